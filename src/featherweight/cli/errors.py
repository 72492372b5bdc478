"""Every error becomes one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from typer.core import TyperGroup

from featherweight.cli.screen import complain
from featherweight.errors import FeatherweightError

__all__ = ["NO", "Commands", "naming"]

NO, TROUBLE, INTERRUPTED = 1, 2, 130


class Commands(TyperGroup):
    """The group of all commands, with our exit codes instead of typer's."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit."""
        extra |= {"prog_name": "featherweight", "standalone_mode": False}
        try:
            code = super().main(args, **extra)
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001  (nobody comes after us)
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what typer would treat in ways of its own is treated here."""
        try:
            return super().invoke(ctx)
        except (OSError, KeyboardInterrupt) as error:
            return _report(error)


def _report(error: BaseException) -> int:
    """Tell what went wrong and return the exit code."""
    if isinstance(error, BrokenPipeError):  # `… | head` has seen enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    if os.environ.get("FEATHERWEIGHT_TRACEBACK", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
        return TROUBLE
    if hasattr(error, "format_message"):  # one of typer's, about the command itself
        message = error.format_message()
        if message:  # else it is the help, which has been printed
            context = getattr(error, "ctx", None)
            complain(f"{message} (see: {context.command_path if context else 'featherweight'} --help)")
    elif isinstance(error, FeatherweightError):
        complain(str(error))
    elif isinstance(error, OSError) and error.strerror:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    elif isinstance(error, MemoryError):
        complain("there is not enough memory for this")
    else:
        complain(f"{type(error).__name__}: {error}. A bug: please run it again with --traceback, and report it")
    return TROUBLE


@contextlib.contextmanager
def naming(*files: Any) -> Iterator[None]:
    """Put the name of the first file before errors that name none of them."""
    try:
        yield
    except FeatherweightError as error:
        if not error.path.startswith(tuple(map(str, files))):
            error.path = f"{files[0]}: {error.path}" if error.path else str(files[0])
        raise
