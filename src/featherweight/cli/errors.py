"""Every error becomes one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from featherweight.cli.screen import complain
from featherweight.errors import FeatherweightError

__all__ = ["NO", "Command", "Commands", "command", "naming"]

NO, TROUBLE, INTERRUPTED, UNREAD = 1, 2, 130, 141
CLOSE = 0.8  # to a command: "encodee" is not meant to be "decode"


class Command(TyperCommand):
    """A command; takes ``--traceback`` as the group does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        end = args.index("--") if "--" in args else len(args)
        if "--traceback" in args[:end]:
            os.environ["FEATHERWEIGHT_TRACEBACK"] = "1"
            args = [arg for arg in args[:end] if arg != "--traceback"] + args[end:]
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option without the type that typer would show."""
        return _bare(super().get_help_option(ctx))


def _bare(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


def command(app: typer.Typer, panel: str, function: Callable[..., Any], epilog: str) -> None:
    """Add a command; the paragraphs of its help are as wide as the terminal."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    app.command(cls=Command, rich_help_panel=panel, help=text, epilog=epilog)(function)


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

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option without the type that typer would show."""
        return _bare(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; others are suggested only when they are close."""
        self.suggest_commands = False
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            if close := difflib.get_close_matches(args[0], list(self.commands), 1, CLOSE):
                error.message = f"No such command {args[0]!r}. Did you mean {close[0]!r}?"  # type: ignore[attr-defined]
            raise

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
        return UNREAD
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    if os.environ.get("FEATHERWEIGHT_TRACEBACK", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
        return TROUBLE
    if hasattr(error, "format_message"):  # one of typer's, about the command itself
        message = error.format_message().strip().removesuffix(".")
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
