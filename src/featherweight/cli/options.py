"""The options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from featherweight.errors import ArgumentError

__all__ = [
    "GOAL",
    "LOOK",
    "MAX_BYTES",
    "RUN",
    "AsJson",
    "Base",
    "File",
    "Force",
    "MaxBytes",
    "Quiet",
    "Threads",
    "examples",
]

RUN, LOOK = "Encode and decode", "Look and compare"
GOAL = "Goals, one of these, for lossy recipes"
MAX_BYTES = "16GiB"


def examples(*lines: tuple[str, str] | str) -> str:
    """Return the end of a command's help."""
    pairs = [(line, "") if isinstance(line, str) else line for line in lines]
    width = max(len(command) for command, _ in pairs)
    shown = [
        f"  {command.ljust(width)}  [dim]{remark}[/dim]" if remark else f"  {command}" for command, remark in pairs
    ]
    return "\n".join(["[bold]Examples[/bold]", *shown])


def bytes_of(text: str, option: str = "--max-bytes") -> int:
    """Read a number of bytes: ``16GB``, ``512MiB``, ``1e9``."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if not found:
        raise ArgumentError(f"{option} {text}: expected a number of bytes, such as 16GB, 512MiB or 1e9")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A checkpoint: .fw, .safetensors, its sharded index, or .npz.", show_default=False
    ),
]
Base = Annotated[
    str | None,
    typer.Option("--base", "-b", metavar="FILE", help="The checkpoint it was encoded against.", show_default=False),
]
Threads = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, metavar="N", help="Threads to use; by default all there are.")
]
MaxBytes = Annotated[
    str, typer.Option("--max-bytes", metavar="SIZE", help="The most memory that one tensor may take, as a guard.")
]
Force = Annotated[bool, typer.Option("--force", "-f", metavar="", help="Overwrite the target if it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Print nothing but warnings and errors.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for programs.")]
