"""How the command line writes numbers, names and tables; returns text, prints nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Column", "clean", "count", "exponent", "plain", "ratio", "seconds", "shape", "significant", "size"]


class Column(NamedTuple):
    """A column of a table; on a narrow terminal one is `cut`, those that `fold` are broken.

    Where that is not enough those that can be spared are left out, the `spare` ones of the highest number first.
    """

    title: str
    right: bool = False
    fold: bool = False
    cut: bool = False
    spare: int = 0


def clean(text: str) -> str:
    """Make what a file says printable on one line: control characters could steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def size(nbytes: float) -> str:
    """Write bytes in decimal units.

    >>> size(999), size(1234), size(90868376)
    ('999 B', '1.23 kB', '90.9 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if nbytes < 999.5 or unit == "PB":
            return f"{nbytes:.0f} B" if unit == "B" else f"{significant(nbytes)} {unit}"
        nbytes /= 1000
    raise AssertionError


def count(number: int, one: str) -> str:
    """Write how many there are of something.

    >>> count(1, "tensor"), count(22713216, "weight")
    ('1 tensor', '22,713,216 weights')
    """
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number with a few digits that count, trailing zeros included.

    >>> significant(1.2), significant(45.678), significant(1234.5), significant(None)
    ('1.20', '45.7', '1234', '-')
    """
    if value is None or not math.isfinite(value):
        return "-" if value is None else "∞" if value == math.inf else "-∞" if value == -math.inf else "NaN"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits}g}")))) if value else 0
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def ratio(before: float, after: float) -> str:
    """Write how many times as small it has become."""
    return f"ratio {before / after:.3f}"


def exponent(value: float | None) -> str:
    """Write an error: there are many magnitudes."""
    if value is None or not math.isfinite(value) or value == 0:
        return "0" if value == 0 else significant(value)
    return significant(value) if 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def seconds(value: float) -> str:
    """Write a time: what took long needs fewer digits."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def shape(dimensions: Sequence[int]) -> str:
    """Write a shape; a scalar has none."""
    return "×".join(map(str, dimensions)) or "scalar"  # noqa: RUF001


def plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as aligned text, as wide as it needs to be."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )
