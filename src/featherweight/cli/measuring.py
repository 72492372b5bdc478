"""`bench` and `recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from featherweight.cli.errors import command
from featherweight.cli.options import LOOK, AsJson, File, examples
from featherweight.cli.screen import print_json, print_table, say, ticking
from featherweight.cli.text import count, size

__all__ = ["add_to", "bench", "recipes"]


def bench(
    file: File,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", "-r", metavar="RECIPE", help="What to measure; by default the lossless recipes."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", "-t", min=1, metavar="N", help="Threads for each.")] = 1,
    budget: Annotated[
        float, typer.Option("--seconds", "-s", min=0, metavar="SECONDS", help="About how long to measure.")
    ] = 30,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Rounds for each tensor; the median counts.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure recipes and rivals on this file and this machine.

    Rivals are the other packages that are installed. The largest tensors are coded by each in turn; all is decoded
    again and checked. Speeds are of original bytes.
    """
    from featherweight import reading, rivals
    from featherweight.cli.benching import BENCH, bench_report, bench_rows, bench_summary
    from featherweight.cli.places import readable

    chosen = [rivals.COPY, *map(rivals.ours, recipe or ("lossless", "lossless-small"))]
    with reading.open(readable(file)) as opened, ticking("measuring", quiet=as_json) as tick:
        report = bench_report(opened, chosen, threads=threads, budget=budget, rounds=rounds, tick=tick)
    if as_json:
        print_json(report)
        return
    for group in report["groups"]:
        title = (
            f"{group['dtype']}, {size(group['measured_bytes'])} of {size(group['bytes'])}, {count(threads, 'thread')}"
        )
        say(title, "bold")
        print_table(BENCH, bench_rows(group["rows"]))
        say()
    for line in bench_summary(report):
        say(line, "dim")


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A recipe or a stage, to be described in full, or a recipe of your own.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the recipes, and the stages that they are made of."""
    from featherweight.cli.listing import everything, one

    for number, (title, lines) in enumerate([one(name)] if name else everything()):
        if number:
            say()
        say(title, "bold")
        for line in lines:
            say(f"  {line}" if line else "")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this room."""
    command(
        app,
        LOOK,
        bench,
        examples(
            "featherweight bench model.safetensors",
            "featherweight bench model.safetensors --threads 8 --seconds 120",
            "featherweight bench model.safetensors -r lossless -r 'split(planes(exponent=rans))' --json",
        ),
    )
    command(
        app,
        LOOK,
        recipes,
        examples(
            "featherweight recipes",
            "featherweight recipes lossless",
            "featherweight recipes planes",
            "featherweight recipes 'split(huffman)'",
        ),
    )
