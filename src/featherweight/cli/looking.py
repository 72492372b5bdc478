"""`inspect`, `verify` and `diff`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherweight.cli.errors import NO, command, naming
from featherweight.cli.options import LOOK, MAX_BYTES, AsJson, Base, File, MaxBytes, Quiet, Threads, bytes_of, examples
from featherweight.cli.screen import complain, print_json, print_table, progress, say
from featherweight.cli.text import clean, count, seconds
from featherweight.errors import ArgumentError, FrameError, LimitError

if TYPE_CHECKING:
    from featherweight.reading import TensorFile

__all__ = ["add_to", "diff", "inspect", "verify"]


def inspect(file: File, as_json: AsJson = False) -> None:
    """Show what a checkpoint holds: tensors, recipes, bits per weight."""
    from featherweight.cli.places import readable
    from featherweight.cli.reports import inspect_columns, inspect_report, inspect_rows, inspect_summary
    from featherweight.formats import open_checkpoint

    with open_checkpoint(readable(file)) as checkpoint:
        report = inspect_report(checkpoint)
    if as_json:
        print_json(report)
        return
    print_table(inspect_columns(report), inspect_rows(report))
    say()
    for line in inspect_summary(report):
        say(line)


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .fw file.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="What it was made from, to be compared with.", show_default=False),
    ] = None,
    base: Base = None,
    max_bytes: MaxBytes = MAX_BYTES,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Check every checksum, and compare with the source bit for bit.

    Everything is decoded. The exit code is 0 if all is well, and 1 if the file is damaged or is not that of SOURCE.
    """
    from featherweight.cli.places import called

    begin = time.perf_counter()
    name, other = called(file), called(source or "")
    try:
        with naming(name, *([other] if other else ())), _open(file, base, bytes_of(max_bytes)) as coded:
            if coded.fw is None:
                raise ArgumentError("has no checksums to verify: verify takes a .fw file", path=coded.name)
            lines = _intact(coded, threads, quiet) if source is None else _equal(coded, source, threads, quiet)
    except FrameError as error:
        blamed = other and error.path.startswith(other) and not error.path.startswith(name)
        if blamed or isinstance(error, LimitError):
            raise
        complain(str(error))
        lines = []
    if not lines:
        raise typer.Exit(NO)
    if not quiet:
        for line in lines:
            say(line)
        say(f"Verified in {seconds(time.perf_counter() - begin)}.", "dim")


def _open(path: str, base: str | None, max_bytes: int) -> TensorFile:
    from featherweight import reading
    from featherweight.cli.places import readable

    return reading.open(readable(path), base=base, max_bytes=max_bytes)


def _intact(coded: TensorFile, threads: int | None, quiet: bool) -> list[str]:
    """Check the file alone; return what is to be said of it, nothing if it is damaged."""
    from featherweight.compare import damages

    total, number = sum(info.packed for info in coded.infos.values()), 0
    with progress("verifying", total, quiet=quiet) as tell:
        for found in damages(coded, threads, tell):
            number += 1
            complain(f"{coded.name}: {found.error}")
    if number:
        complain(f"{coded.name}: {number} of {count(len(coded), 'tensor')} cannot be decoded")
        return []
    return [f"{clean(coded.name)}: {count(len(coded), 'tensor')} decoded, every checksum matches."]


_REASONS = {
    "changed": "the elements are not those of the source",
    "dtype": "the source has another dtype",
    "shape": "the source has another shape",
    "first only": "the source has no such tensor",
    "second only": "only the source has this tensor",
}


def _equal(coded: TensorFile, source: str, threads: int | None, quiet: bool) -> list[str]:
    """Compare with the source; return what is to be said of it, nothing if they are not the same."""
    from featherweight.compare import compare

    with _open(source, None, bytes_of(MAX_BYTES)) as original:
        with progress("verifying", sum(info.packed for info in coded.infos.values()), quiet=quiet) as tell:
            different = [found for found in compare(coded, original, threads, tell) if found.status != "equal"]
        for found in different[:10]:
            complain(f"{coded.name}: {found.name}: {_REASONS[found.status]}")
        if different:
            number = f"{count(len(different), 'tensor')} not as in {original.name}"
            complain(f"{coded.name}: {number}; how much: featherweight diff {original.name} {coded.name}")
            return []
        if list(coded) != list(original):
            complain(f"{coded.name}: the tensors are those of {original.name}, in another order")
            return []
        if coded.metadata() != original.metadata():
            complain(f"{coded.name}: the metadata are not those of {original.name}")
            return []
        same = f"{count(len(coded), 'tensor')} equal to those of {clean(original.name)}, bit for bit"
        return [f"{clean(coded.name)}: {same}; every checksum matches.", _bytes_around(coded, original)]


def _bytes_around(coded: TensorFile, original: TensorFile) -> str:
    """Tell whether decoding writes the very bytes of the source."""
    # For a canonical format the same tensors, metadata (their order counts) and layout are the same bytes.
    ordered = list(coded.metadata().items()) == list(original.metadata().items())
    if original.canonical and ordered and (coded.origin, coded.layout) == (original.origin, original.layout):
        return "Decoding writes the same file, byte for byte."
    return "Decoding writes the same tensors, metadata and order; the header around them is written canonically."


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A checkpoint.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one, of any format.", show_default=False)],
    every: Annotated[bool, typer.Option("--all", "-a", metavar="", help="List equal tensors, too.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", "-b", metavar="FILE", help="What A, B or both were encoded against.", show_default=False
        ),
    ] = None,
    max_bytes: MaxBytes = MAX_BYTES,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints tensor by tensor.

    NMSE is the sum of squared errors over that of the squares of A. The exit code is 0 if names, dtypes, shapes and
    bits are the same, and 1 if not; metadata and order may differ.
    """
    from featherweight.cli.reports import DIFF, diff_report, diff_rows, diff_summary
    from featherweight.compare import compare

    with _open(first, base, bytes_of(max_bytes)) as a, _open(second, base, bytes_of(max_bytes)) as b:
        with progress("comparing", sum(info.packed for info in a.infos.values()), quiet=as_json) as tell:
            found = list(compare(a, b, threads, tell))
        report: Any = diff_report(a, b, found)
    if as_json:
        print_json(report)
    else:
        shown = found if every else [each for each in found if each.status != "equal"]
        if shown:
            print_table(DIFF, diff_rows(shown))
            say()
        for line in diff_summary(report):
            say(line)
    if not report["equal"]:
        raise typer.Exit(NO)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this room."""
    command(
        app,
        LOOK,
        inspect,
        examples(
            "featherweight inspect model.fw",
            "featherweight inspect model.safetensors",
            "featherweight inspect model.fw --json | jq .totals.bits_per_weight",
        ),
    )
    command(
        app,
        LOOK,
        verify,
        examples(
            "featherweight verify model.fw",
            "featherweight verify model.fw model.safetensors",
            "featherweight verify tuned.fw tuned.safetensors --base model.safetensors",
        ),
    )
    command(
        app,
        LOOK,
        diff,
        examples(
            "featherweight diff model.safetensors model.fw",
            "featherweight diff old.safetensors new.npz --all",
            "featherweight diff old.safetensors new.fw --json | jq .totals.lossy_nmse",
        ),
    )
