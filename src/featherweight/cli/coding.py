"""`encode` and `decode`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherweight.cli.errors import naming
from featherweight.cli.options import MAX_BYTES, RUN, Base, Force, MaxBytes, Quiet, Threads, bytes_of, examples
from featherweight.cli.screen import complain, progress, say
from featherweight.cli.text import clean, ratio, seconds, size

if TYPE_CHECKING:
    from featherweight.formats import Checkpoint

__all__ = ["add_to", "decode", "encode"]


def encode(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A checkpoint.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="The file to write; by default SOURCE with .fw.", show_default=False),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option("--recipe", "-r", metavar="RECIPE", help="How to code it: see 'featherweight recipes'."),
    ] = "lossless",
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="PATTERN=RECIPE", help="For these names; the first that fits counts."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="FILE", help="Code what changed since; decoding needs it too."),
    ] = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Encode a checkpoint into a .fw file."""
    from featherweight.checkpoint import encode_file
    from featherweight.cli.places import default_target, guard, place, readable, size_of
    from featherweight.formats import open_checkpoint
    from featherweight.plan import Plan

    plan = Plan.of(recipe, rules=rule or ())
    default, where = default_target(source, ".fw"), readable(source)
    with place(target or default, default) as goal:
        with open_checkpoint(where) as checkpoint:
            guard(goal, force=force)
            _check_rules(rule or (), checkpoint)
            before, infos = checkpoint.size, list(checkpoint.tensors.values())
        begin = time.perf_counter()
        with progress("encoding", sum(info.packed for info in infos), quiet=quiet) as tell, naming(source, goal):
            encode_file(where, goal, plan, base=base, threads=threads, progress=tell)
        spent, after = time.perf_counter() - begin, size_of(goal)
    weights = sum(info.count for info in infos)
    gain = f"{ratio(before, after)}, {8 * after / weights:.3f} bits per weight" if weights else ratio(before, after)
    _summarise(goal, f"{size(after)} from {size(before)}, {gain}, {_speed(before, spent)}", quiet=quiet)


def _check_rules(rules: Sequence[str], checkpoint: Checkpoint) -> None:
    """Warn of a rule that fits no tensor: most often it is a slip."""
    from fnmatch import fnmatchcase

    for rule in rules:
        pattern = rule.partition("=")[0]
        if not any(fnmatchcase(name, pattern) for name in checkpoint.tensors):
            complain(f"warning: rule {rule!r} fits no tensor of this file")


def decode(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A .fw file.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="The file to write, in the format that its ending says; by default the one it was made from.",
            show_default=False,
        ),
    ] = None,
    base: Base = None,
    max_bytes: MaxBytes = MAX_BYTES,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Decode a .fw file into the checkpoint that it was made from."""
    from featherweight.checkpoint import decode_file
    from featherweight.cli.places import default_target, guard, place, readable, size_of
    from featherweight.formats import open_checkpoint, sharded
    from featherweight.formats.fw import FwFile

    where = readable(source)
    with open_checkpoint(where) as coded:
        origin = coded.container.origin if isinstance(coded.container, FwFile) else coded.format
        shards = sharded.file_names(coded.layout)
        ending = ".safetensors.index.json" if shards else ".npz" if origin == "npz" else ".safetensors"
        before, total = coded.size, sum(info.packed for info in coded.tensors.values())
    default = default_target(source, ending)
    with place(target or default, default) as goal:
        guard(goal, force=force, also=shards if str(goal).endswith(".index.json") else ())
        begin = time.perf_counter()
        with progress("decoding", total, quiet=quiet) as tell, naming(source, goal):
            decode_file(where, goal, base=base, max_bytes=bytes_of(max_bytes), threads=threads, progress=tell)
        spent, after = time.perf_counter() - begin, size_of(goal)
    _summarise(goal, f"{size(after)} from {size(before)}, {_speed(after, spent)}", quiet=quiet)


def _speed(nbytes: int, spent: float) -> str:
    return f"{seconds(spent)} ({size(nbytes / max(spent, 1e-9))}/s)"


def _summarise(goal: Any, text: str, *, quiet: bool) -> None:
    from featherweight.cli.places import Stream

    if quiet:
        return
    if isinstance(goal, Stream):
        sys.stdout.flush()
        complain(text)
    else:
        say(f"{clean(str(goal))}: {text}")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command(
        rich_help_panel=RUN,
        epilog=examples(
            "featherweight encode model.safetensors",
            "featherweight encode model.safetensors small.fw --recipe lossless-small",
            "featherweight encode model.safetensors --rule '*.bias=raw'",
            "featherweight encode tuned.safetensors tuned.fw --base model.safetensors",
        ),
    )(encode)
    app.command(
        rich_help_panel=RUN,
        epilog=examples(
            "featherweight decode model.fw",
            "featherweight decode model.fw copy.npz",
            "featherweight decode tuned.fw --base model.safetensors",
            "featherweight decode s3://bucket/model.fw model.safetensors",
        ),
    )(decode)
