"""The command line, and the only room that prints.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all is well, 1 the answer is no (`verify`, `diff`),
2 something is wrong with the command, the files or the system, 130 interrupted, 141 nobody reads on.

Every command imports what it needs when it is called: `inspect` of a small file is to be there at once.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

import featherweight
from featherweight.cli import coding, looking, measuring
from featherweight.cli.errors import Commands
from featherweight.cli.options import examples
from featherweight.cli.screen import say

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for room in (coding, looking, measuring):
    room.add_to(app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001, RUF100
    if wanted:
        say(f"featherweight {featherweight.__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        ("featherweight encode model.safetensors", "model.fw, lossless"),
        ("featherweight verify model.fw model.safetensors", "the same, bit for bit?"),
        ("featherweight inspect model.fw", "what is in it, and how small"),
        ("featherweight decode model.fw copy.safetensors", "and back"),
    )
)
def _everything(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", metavar="", help="Show where an error comes from."),
    ] = False,
) -> None:
    r"""Make checkpoints of neural networks smaller, and bring them back bit for bit.

    Files are local paths, URLs such as s3://… (with featherweight\[remote]), or - for stdin and stdout.

    Exit codes: 0 fine; 1 the answer is no, or damage was found (verify, diff); 2 trouble.
    """
    if traceback:
        os.environ["FEATHERWEIGHT_TRACEBACK"] = "1"


def _leave(number: int, frame: object) -> None:
    """Unwind, so that temporary files are removed."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:  # `nohup` had it ignored
            signal.signal(number, _leave)
    app()
