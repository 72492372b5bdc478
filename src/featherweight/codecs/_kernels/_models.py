"""Models of quantized weights: generalised Gaussians by scale class, fitted to counts by integers alone."""

from __future__ import annotations

import functools

import numpy as np

from featherweight.codecs._kernels import _tokens
from featherweight.codecs._kernels import ggd_models as kernels
from featherweight.dtypes import Array

__all__ = ["START", "counted", "fit", "logs", "tables"]

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
    places = np.zeros(quantizers * kernels.SIZES, np.int64)
    kernels.places(np.uint64(quantizers), logs(), places)
    return places


def tables(model: tuple[int, ...], low: int, classes: int, quantizers: int) -> Array:
    """Return the frequencies of the tokens, u16 (classes · quantizers · 256)."""
    table = np.empty(classes * quantizers << 8, np.uint16)
    kernels.frequencies(
        np.array(model, np.int64), np.uint64(low), np.uint64(quantizers), logs(), np.empty(256, np.uint64), table
    )
    return table


def counted(index: Array, rows: Array, tables: int) -> tuple[Array, Array]:
    """Return the token of each index, which is below 2^16, and how often each occurs, u32, 256 a table."""
    tokens, counts = np.empty(index.size, np.uint8), np.zeros(tables << 10, np.uint32)
    _tokens.name(index, tokens)
    _tokens.count(tokens, rows, counts)
    return tokens, counts.reshape(4, -1).sum(0, dtype=np.uint32)


def fit(
    counts: Array, low: int, quantizers: int, slope: int, start: tuple[int, ...] | None = None, rounds: int = 4
) -> tuple[int, ...]:
    """Return the model under which tokens take fewest bits, found by going along one parameter after another.

    `counts`, u32 (classes · quantizers · 256), tells how often each token occurs in each class and quantizer. `start`
    is a model from which it is not far; each of the four `rounds` is finer than the last. Parameters hang together,
    most of all where nearly all is zero: after every move zeros are made to weigh what suits the rest, slopes turn
    about the middle class, and shapes are tried with the scale as it is and with the one that leaves the share of the
    ones as it is.
    """
    sizes = _grouped(counts)
    tables = sizes.size // kernels.SIZES
    number = counts.reshape(-1, quantizers << 8).sum(1, dtype=np.int64)
    middle = low + int(number @ np.arange(number.size)) // max(int(number.sum()), 1)
    given = sizes, np.uint64(low), np.uint64(quantizers), logs(), _places(quantizers), np.empty(sizes.size, np.uint64)
    shared = (*given, np.empty(2 * tables, np.uint64))

    def settled(scale: int, slope: int, shape: int, bend: int) -> tuple[int, list[int]]:
        model = np.array([scale, slope, shape, bend, 0, 0], np.int64)
        return int(kernels.settle(*shared, model)), model.tolist()

    if start is None:
        # Ones begin at 8 bits or less: where all sizes weigh nothing, no small move makes a difference.
        scale, least = _scale(counts, low, quantizers, slope), 64 - slope * middle
        cost, first = min(
            settled(max(scale + move, least - 12288 // shape), slope, shape, 0) for shape, move in _STARTS
        )
    else:
        cost, first = settled(*start[:4])
    model, steps = np.array(first, np.int64), np.array(_ROUNDS[:rounds], np.int64).reshape(-1)
    kernels.improve(*shared, np.int64(middle), steps, np.int64(cost), model, np.empty(6, np.int64))
    return tuple(model.tolist())


def _grouped(counts: Array) -> Array:
    """Return the counts of tokens that weigh the same, as `settle` wants them."""
    rows = counts.reshape(-1, 256)
    sizes = np.empty((len(rows), kernels.SIZES), np.uint32)
    sizes[:, 0] = rows[:, 0]
    sizes[:, 1:32] = rows[:, 1 : _tokens.DIRECT : 2] + rows[:, 2 : _tokens.DIRECT : 2]
    large = rows[:, _tokens.DIRECT : _tokens.LARGEST + 1].reshape(len(rows), -1, 4)
    sizes[:, 32:] = large.sum(2, dtype=np.uint32)
    return sizes.reshape(-1)


@functools.cache
def _sizes() -> Array:
    """Return about how large the index of each token is."""
    tokens = np.arange(256, dtype=np.int64)
    code = np.clip(tokens - _tokens.DIRECT, 0, None)
    large = ((4 | code >> 2 & 3) << (code >> 4) + 3) + (1 << (code >> 4) + 2)
    return np.where(tokens < _tokens.DIRECT, tokens + 1 >> 1, large)


def _scale(counts: Array, low: int, quantizers: int, slope: int) -> int:
    """Return a scale to start from: that of the mean magnitudes, classes weighted by their counts."""
    rows = counts.reshape(-1, quantizers, 256).sum(1, dtype=np.int64)
    total, number = rows @ _sizes(), rows.sum(1)
    seen = np.nonzero(total)[0]
    if not seen.size:
        return -256
    found = [64 * (2048 * int(total[c]) // int(number[c])).bit_length() - 640 - slope * (low + int(c)) for c in seen]
    return int(np.dot(found, number[seen]) / int(number[seen].sum()))
