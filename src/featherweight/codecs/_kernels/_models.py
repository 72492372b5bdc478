"""Models of quantized weights: generalised Gaussians by scale class, fitted to counts."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from featherweight.codecs._kernels import _tokens, ggd_fit, ggd_shares
from featherweight.codecs._kernels import ggd_models as kernels
from featherweight.dtypes import Array

__all__ = ["NONE", "START", "Suited", "counted", "fit", "logs", "suited", "tables"]

NONE = np.empty(0, np.int8)
_MORE = 6  # bytes that a further stream takes, about

START = (0, 16, 96, 0, 0, 0)
_STARTS = ((48, -48), (64, -24), (96, 0), (128, 8))  # shapes, and how far the scale then lies from the mean
# Steps: of the scale, of the shape with the scale, of the slope, of the shape, of the bend.
_ROUNDS = ((16, 16, 2, 16, 24), (8, 8, 1, 8, 12), (4, 4, 1, 4, 6), (2, 4, 1, 4, 6))


@functools.cache
def logs() -> Array:
    """Return log2(1 + i / 256) in 2^-12 for i = 0 … 255, by integers alone."""
    found = []
    for i in range(256):
        value, result = (256 + i) << 56, 0
        for _ in range(14):  # squaring doubles the logarithm, whose integer part is then the next bit
            value = value * value >> 64
            whole = value >> 65
            value, result = value >> whole, result << 1 | whole
        found.append(result + 2 >> 2)
    return np.array(found, np.uint32)


@functools.cache
def _places(quantizers: int) -> Array:
    places = np.zeros(quantizers * kernels.SIZES, np.int32)
    kernels.places(np.uint64(quantizers), logs(), places)
    return places


def tables(model: tuple[int, ...], low: int, classes: int, quantizers: int, shares: Array = NONE) -> Array:
    """Return the frequencies of the tokens, u16 (classes · quantizers · 256)."""
    table, scratch = np.empty(classes * quantizers << 8, np.uint16), np.empty(256, np.uint64)
    given = np.array(model, np.int64), np.uint64(low), np.uint64(quantizers), logs()
    kernels.frequencies(*given, shares, scratch, table)
    return table


def counted(index: Array, rows: Array, tables: int) -> tuple[Array, Array]:
    """Return the token of each index, which is below 2^16, and how often each occurs, u32, 256 a table."""
    tokens, counts = np.empty(index.size, np.uint8), np.zeros(tables << 10, np.uint32)
    _tokens.NAME[index.itemsize](index, tokens)
    _tokens.count(tokens, rows, counts)
    return tokens, counts.reshape(4, -1).sum(0, dtype=np.uint32)


def fit(
    counts: Array,
    low: int,
    quantizers: int,
    slope: int,
    start: tuple[int, ...] | None = None,
    rounds: int = 4,
    gap: int = 1,
) -> tuple[int, ...]:
    """Return the model under which tokens take fewest bits, found by going along one parameter after another.

    `counts`, u32 (classes · quantizers · 256), tells how often each token occurs in each class and quantizer. `start`
    is a model from which it is not far; each of the four `rounds` is finer than the last. Parameters hang together,
    most of all where nearly all is zero: after every move zeros are made to weigh what suits the rest, slopes turn
    about the middle class, and shapes are tried with the scale as it is and with the one that leaves the share of the
    ones as it is. Sizes from 1 on below `gap` are taken to be impossible.
    """
    tables = counts.size >> 8
    model = np.array((0,) * 6 if start is None else start, np.int64)
    starts = np.array(_STARTS if start is None else (), np.int64).reshape(-1)
    steps = np.array(_ROUNDS[:rounds], np.int64).reshape(-1)
    given = (
        np.uint64(low),
        np.uint64(quantizers),
        np.int64(slope),
        np.uint64(gap),
        logs(),
        _places(quantizers),
        starts,
        steps,
    )
    sizes, weights = np.empty((2, tables * kernels.SIZES), np.uint32)
    scratch = sizes, weights, np.empty(3 * tables), np.empty(tables, np.int64), np.empty(6, np.int64)
    ggd_fit.fit(counts, *given, *scratch, model)
    found = tuple(model.tolist())
    # What is fitted are weights; slots round them, and of few tokens that may cost more than a move spares.
    return found if start is None else min(found, start, key=lambda each: _cost(counts, each, low, quantizers))


def _cost(counts: Array, model: tuple[int, ...], low: int, quantizers: int) -> int:
    """Return what tokens cost under a model, in 2^-12 bits."""
    return int(kernels.cost(counts, tables(model, low, counts.size // quantizers >> 8, quantizers), logs()))


class Suited(NamedTuple):
    """A model, the shares that it goes with, and its tables."""

    model: tuple[int, ...]
    shares: Array
    table: Array


def suited(
    counts: Array,
    low: int,
    quantizers: int,
    slope: int,
    start: tuple[int, ...] | None = None,
    rounds: int = 4,
    times: float = 1.0,
    share: float = 0.0,
) -> Suited:
    """Fit a model, and shares that make it suit the counts better where these spare more bytes than they take.

    `counts` and the rest are those of `fit`; they are of every `times`-th token, about. Shares must spare the `share`
    of all bytes, too.
    """
    model, classes = fit(counts, low, quantizers, slope, start, rounds), counts.size // quantizers >> 8
    table, seen = tables(model, low, classes, quantizers), np.empty(2 * kernels.SIZES)
    best, spent = Suited(model, NONE, table), int(kernels.cost(counts, table, logs()))
    promised = int(ggd_shares.promise(counts, table, logs(), seen))
    held = np.flatnonzero(seen[: kernels.SIZES])
    number, gap = int(held[-1]) + 1, int(held[min(1, held.size - 1)])
    taken = int(max((number + _MORE) * (8 << 12) / times, share * spent))
    if promised < taken:
        return best
    models = [model] if gap < 2 else [model, fit(counts, low, quantizers, slope, None, rounds, gap)]
    weights, found = np.empty((counts.size >> 8) * kernels.SIZES), np.empty(kernels.SIZES, np.int64)
    for each in models:
        shares = np.empty(number, np.int8)
        given = counts, np.array(each, np.int64), np.uint64(low), np.uint64(quantizers), logs(), np.uint64(number)
        ggd_shares.find(*given, weights, seen, found, shares)
        table = tables(each, low, classes, quantizers, shares)
        cost = int(kernels.cost(counts, table, logs())) + taken
        if cost < spent:
            best, spent = Suited(each, shares, table), cost
    return best
