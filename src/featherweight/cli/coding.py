"""`encode` and `decode`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherweight.cli.errors import command, naming
from featherweight.cli.options import GOAL, MAX_BYTES, RUN, Base, Force, MaxBytes, Quiet, Threads, bytes_of, examples
from featherweight.cli.screen import complain, progress, say
from featherweight.cli.text import clean, count, exponent, ratio, seconds, significant, size
from featherweight.errors import ArgumentError

if TYPE_CHECKING:
    from featherweight.checkpoint import Encoded
    from featherweight.goals import Goal

__all__ = ["add_to", "decode", "encode"]

_NEARLY = 0.95  # of a size that was asked for: below, a file is smaller than anybody would expect


def encode(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A checkpoint.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="The file to write; by default SOURCE with .fw.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", metavar="RECIPE", help="How to code it: see 'featherweight recipes'.", show_default=False
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="PATTERN=RECIPE", help="For these names; the first that fits counts."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="FILE", help="Code what changed since; decoding needs it too."),
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option("--bits", metavar="B", help="The file takes B bits per weight, at most.", rich_help_panel=GOAL),
    ] = None,
    goal_size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="The file takes SIZE (2MB), at most.", rich_help_panel=GOAL),
    ] = None,
    nmse: Annotated[
        float | None,
        typer.Option("--nmse", metavar="E", help="Squared errors are E of the squares.", rich_help_panel=GOAL),
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option("--snr", metavar="DB", help="Squares are DB decibels above errors'.", rich_help_panel=GOAL),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option("--max-error", metavar="E", help="No error is above E.", rich_help_panel=GOAL),
    ] = None,
    sensitivity: Annotated[
        list[str] | None,
        typer.Option(
            "--sensitivity",
            metavar="PATTERN=S",
            help="Squared errors of these names count S times; the first that fits.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Encode a checkpoint into a .fw file.

    Lossless unless the recipe says otherwise. A lossy one changes finite floats of two dimensions or more and keeps all
    else exactly; but 'transform-clustering' changes vectors, too, and those for gradients ('3lc', 'eden', 'topk') and
    stages of your own choice whatever they get, unless 'weights(…)' is around them. A goal finds how coarse a recipe
    may be, and takes 'tcq' where none is named.
    """
    from featherweight.checkpoint import encode_file
    from featherweight.cli.places import called, default_target, files_of, guard, place, readable, size_of, spare
    from featherweight.formats import open_checkpoint
    from featherweight.plan import Plan

    aim = _goal(bits, goal_size, nmse, snr, max_error)
    weighed = _sensitivities(sensitivity or (), aim)
    plan = Plan.of(
        ("tcq" if aim else "lossless") if recipe is None else recipe, rules=rule or (), sensitivities=weighed
    )
    if base is not None and not plan.takes_base:
        complain(
            "warning: --base is for lossless, lossless-small and recipes given @base: this one makes nothing of it"
        )
    default, where = default_target(source, ".fw"), readable(source)
    with open_checkpoint(where) as checkpoint:
        before, infos, files = checkpoint.size, list(checkpoint.tensors.values()), files_of(checkpoint)
    with place(target or default, default) as goal:
        spare(goal, files, base)
        _check_ending(goal)
        guard(goal, force=force)
        _check_names("rule", rule or (), [info.name for info in infos])
        _check_names("sensitivity", sensitivity or (), [info.name for info in infos])
        total = sum(info.packed for info in infos)
        with progress("encoding", total, quiet=quiet) as tell, naming(called(source), goal):
            clock = _Clock(total, tell)
            found = encode_file(where, goal, plan, goal=aim, base=base, threads=threads, progress=clock)
        spent, after = clock.read(), size_of(goal)
    weights = sum(info.count for info in infos)
    gain = f"{ratio(before, after)}, {8 * after / weights:.3f} bits per weight" if weights else ratio(before, after)
    _summarise(goal, f"{size(after)} from {size(before)}, {gain}, {spent}", quiet=quiet)
    if not quiet:
        _tell_lossy(found, [info.name for info in infos], told=aim is not None)
        _tell_short(found, aim, weights)


def _goal(
    bits: float | None, size: str | None, nmse: float | None, snr: float | None, max_error: float | None
) -> Goal | None:
    """Make a goal of the options, if there are any."""
    from featherweight.goals import Goal

    given: dict[str, Any] = {
        "bits": bits,
        "size": size and bytes_of(size, "--size"),
        "nmse": nmse,
        "snr": snr,
        "max_error": max_error,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ArgumentError(f"{options}: a file is encoded for one goal")
    return Goal(**given) if given else None


def _tell_lossy(found: Encoded, names: Iterable[str], *, told: bool) -> None:
    """Say what was lost, and what a goal came to."""
    if told:
        own = sum(found.plan.recipe_for(name) != found.plan.recipe for name in names if not found.plan.ruled(name))
        some = f", but for {count(own, 'tensor')}, whose knobs are their own" if own else ""
        say(f"The recipe is {clean(found.plan.named or '')}{some}.")
    if found.error is not None:
        from featherweight.losses import decibels

        if found.error.noise:
            nmse, snr = exponent(found.error.nmse), significant(decibels(found.error.nmse))
            say(f"Over the tensors of two dimensions or more that are not exact: NMSE {nmse}, SNR {snr} dB.")
        say(f"Largest error of all tensors: {exponent(found.error.largest)}.")
    elif told:
        say("Nothing is lost: all tensors are exact.")


def _tell_short(found: Encoded, aim: Goal | None, weights: int) -> None:
    """Say that a file is well below the size that was asked for, where it loses something for that."""
    wanted = 0.0
    if aim is not None and found.error is not None:
        wanted = float(aim.size or (aim.bits or 0.0) * weights / 8)
    if found.size < _NEARLY * wanted:
        from featherweight.named import NAMED

        named = NAMED.get((found.plan.named or "").partition("(")[0])
        knob = named.knob if named and named.knob else "knob"
        share = f"{1 - found.size / wanted:.0%}"
        say(f"The file is {share} below what was asked for: no value of {knob} was found that comes nearer.")


def _check_ending(goal: Any) -> None:
    """Refuse a name that promises another format."""
    from featherweight.formats import FORMATS

    name = str(goal).replace("\\", "/").rpartition("/")[2]
    if any(name.lower().endswith(end) for end, kind in FORMATS.items() if kind != "fw"):
        raise ArgumentError(f"a .fw file named {name} would mislead: let its name end in .fw")


def _sensitivities(given: Sequence[str], aim: Goal | None) -> dict[str, float]:
    """Read patterns and how much errors count there."""
    if given and aim is None:
        raise ArgumentError("--sensitivity says how a goal is met: name one, such as --bits 3 or --nmse 1e-3")
    found: dict[str, float] = {}
    for each in given:
        pattern, _, value = each.rpartition("=")
        try:
            found.setdefault(pattern, float(value))
        except ValueError:
            pattern = ""
        if not pattern:
            raise ArgumentError(f"--sensitivity {each!r}: expected 'pattern=number', such as '*.head.*=10'")
    return found


def _check_names(option: str, given: Sequence[str], names: Sequence[str]) -> None:
    """Warn of a rule or a sensitivity that fits no tensor: most often it is a slip."""
    from fnmatch import fnmatchcase

    for each in given:
        pattern = each.partition("=")[0]
        if not any(fnmatchcase(name, pattern) for name in names):
            complain(f"warning: {option} {each!r} fits no tensor of this file")


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
    from featherweight.cli.places import called, default_target, files_of, guard, place, readable, size_of, spare
    from featherweight.formats import open_checkpoint, sharded
    from featherweight.formats.fw import FwFile

    where = readable(source)
    with open_checkpoint(where) as coded:
        origin = coded.container.origin if isinstance(coded.container, FwFile) else coded.format
        shards = sharded.file_names(coded.layout)
        ending = ".safetensors.index.json" if shards else ".npz" if origin == "npz" else ".safetensors"
        before, total = coded.size, sum(info.packed for info in coded.tensors.values())
        files, metadata = files_of(coded), dict(coded.metadata)
    default = default_target(source, ending)
    with place(target or default, default) as goal:
        kind = _kind(goal, origin)
        also = shards if kind == "sharded" else ()
        spare(goal, files, base, also=also)
        guard(goal, force=force, also=also)
        how: dict[str, Any] = {"base": base, "max_bytes": bytes_of(max_bytes), "threads": threads}
        with progress("decoding", total, quiet=quiet) as tell, naming(called(source), goal):
            clock = _Clock(total, tell)
            if kind == "npz" and metadata:
                complain("warning: npz holds no metadata: left out")
                _decode_bare(where, goal, clock, **how)
            else:
                decode_file(where, goal, progress=clock, **how)
        spent, after = clock.read(), size_of(goal)
    _summarise(goal, f"{size(after)} from {size(before)}, {spent}", quiet=quiet)


def _kind(goal: Any, origin: str) -> str:
    """Return the format that a target gets, or refuse a name that says none."""
    from featherweight.cli.places import Stream
    from featherweight.formats import FORMATS

    if isinstance(goal, Stream):
        return origin
    name = str(goal).replace("\\", "/").rpartition("/")[2]
    fitting = [end for end in FORMATS if name.lower().endswith(end)]
    if fitting:
        return FORMATS[max(fitting, key=len)]
    known = ", ".join(end for end, kind in FORMATS.items() if kind != "fw")
    if "." in name.lstrip("."):
        raise ArgumentError(f"this ending says no format: expected one of {known}", path=str(goal))
    return origin


def _decode_bare(where: Any, goal: Any, tell: Any, **how: Any) -> None:
    """Decode into a format that holds no metadata."""
    from featherweight import reading
    from featherweight.formats import write_checkpoint

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(reading.open(where, **how))
        infos = list(file.infos.values())
        out = stack.enter_context(write_checkpoint(goal, infos, layout=file.layout, format="npz"))
        file.decode_into(out.tensor, tell)


class _Clock:
    """Measures the time and, where that means something, the speed; passes progress on."""

    def __init__(self, total: int, tell: Callable[[str, int], object]) -> None:
        self.total, self.tell = total, tell
        self.begin = time.perf_counter()
        self.first: tuple[float, int] | None = None

    def __call__(self, name: str, nbytes: int) -> None:
        """Take note of the first bytes: before them, the program starts up."""
        if self.first is None:
            self.first = time.perf_counter() - self.begin, nbytes
        self.tell(name, nbytes)

    def read(self) -> str:
        """Write what it took."""
        spent = time.perf_counter() - self.begin
        waited, nbytes = self.first or (spent, 0)
        if spent < 1 or (waited > spent / 2 and nbytes < self.total / 2):
            return seconds(spent)
        return f"{seconds(spent)} ({size(self.total / spent)}/s)"


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
    command(
        app,
        RUN,
        encode,
        examples(
            "featherweight encode model.safetensors",
            "featherweight encode model.safetensors small.fw --recipe lossless-small",
            "featherweight encode model.safetensors --rule '*.bias=raw'",
            "featherweight encode tuned.safetensors tuned.fw --base model.safetensors",
        ),
    )
    command(
        app,
        RUN,
        decode,
        examples(
            "featherweight decode model.fw",
            "featherweight decode model.fw copy.npz",
            "featherweight decode tuned.fw --base model.safetensors",
            "featherweight decode s3://bucket/model.fw model.safetensors",
        ),
    )
