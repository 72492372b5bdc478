"""The encoding loops of the `huffman` codec.

Strategy: histograms per stream give the size of every stream before a bit is written, so all streams go straight to
their places. Counting pairs of symbols, and a table of their codes, halve the look-ups.

Positions and counts are int64, bits are uint64. `streams` holds four columns of six numbers; `work` holds the six
histograms, then the sorted symbols, then two lists of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import load16le, load64le, store64be
from featherweight.codecs._kernels.huffman import (
    AT,
    BIT,
    END,
    LIMIT,
    MANY,
    RAW,
    REPEAT,
    RUN,
    SIX,
    STOP,
    TABLE,
    canonical,
    copy,
)
from featherweight.dtypes import Array
from featherweight.kernel import kernel, primitive

__all__ = ["COUNTERS", "encode"]

_SPLIT = 1 << 13  # symbols from which on a block gets many streams
_PAIRS = 65536  # where the codes of single symbols stand behind those of pairs
# From one stream's counters to the next one's: not a multiple of 4096 bytes, for then processors take what is loaded
# for what was just stored, see that it is not, and begin again.
_APART = 65536 + 32
COUNTERS = 3 * _APART
_PAIR, _16 = np.uint64(65535), np.uint64(16)
_SECOND, _THIRD = np.uint64(_APART), np.uint64(2 * _APART)
_HISTOGRAMS = 256 * MANY
_ONE = np.uint32(1)


@kernel("i8(u1[r], i8, u1[w], u4[w], u4[w], u1[w], u1[w], u1[w], u8[w], i8[w])")
def encode(
    source: Array, block: Any, payload: Array,
    pairs: Array, codes: Array, fresh: Array, known: Array, leaves: Array, work: Array, streams: Array,
) -> Any:  # fmt: skip
    """Write `source` in blocks of 2^`block` symbols, 2^19 at most; return the bytes written.

    `payload` has room for `source`, a byte a block and 512 more. Scratch: `pairs` `COUNTERS`, `codes` 65792, `fresh`
    and `known` 525, `leaves` 6144, `work` 2816, `streams` 24.
    """
    for symbol in range(256):
        known[symbol] = 0
    at, start = 0, 0
    while start < len(source):
        count = min(len(source) - start, 1 << block)
        number = MANY if count >= _SPLIT else 1
        for s in range(number):
            streams[AT + s] = start + count * s // number
            streams[END + s] = start + count * (s + 1) // number
        _count(source, number, pairs, work, streams)
        first, last = _assign(number, fresh, leaves, work)
        behind = _write_lengths(fresh, first, last, payload, at + 1)
        size = behind - at + _measure(number, fresh, first, last, work, streams, STOP)
        repeated = 1 + _measure(number, known, first, last, work, streams, BIT)
        if first == last:
            payload[at] = RUN
            payload[at + 1] = source[start]
            at += 2
        elif min(size, repeated) > count:
            payload[at] = RAW
            copy(source, start, True, payload, at + 1, count)
            at += 1 + count
        else:
            payload[at] = TABLE + (SIX if number == MANY else 0)
            if repeated <= size:
                payload[at] += REPEAT - TABLE
                behind = at + 1
                for s in range(number):
                    streams[STOP + s] = streams[BIT + s]
            else:
                for symbol in range(256):
                    known[symbol] = fresh[symbol]
                _build_codes(number, known, codes)
            at = _write_streams(source, number, payload, behind, codes, streams)
        start += count
    return at


@primitive
def _count(source: Array, number: Any, pairs: Array, work: Array, streams: Array) -> None:
    """Count the symbols of each stream apart, at 256·s: that gives the streams' sizes, and counters rarely collide."""
    for i in range(256 * number):
        work[i] = np.uint64(0)
    done = 0
    if number == MANY:
        # Three at a time: the counters of more would not stay near the processor.
        done = (streams[END] - streams[AT]) & -8
        for s in range(0, MANY, 3):
            _count_three(source, done, pairs, work[256 * s :], streams[s:])
    for s in range(number):
        for i in range(streams[AT + s] + done, streams[END + s]):
            work[256 * s + int(source[i])] += np.uint64(1)


@primitive
def _count_three(source: Array, count: Any, pairs: Array, work: Array, streams: Array) -> None:
    """Count the first `count` symbols of each of three streams."""
    # Zeros may lie far from all others: less one, modulo 256, they are never the least.
    below, most, one = np.uint8(255), np.uint8(0), np.uint8(1)
    for symbol in source[streams[AT] : streams[END + 2]]:
        below, most = min(below, np.uint8(symbol - one)), max(most, symbol)
    behind = int(most) + 1
    first = min(int(below) + 1, behind)
    # Pairs pay where it takes no longer to clear and to add up their counters than to count them.
    if 4 * (behind - first) * (behind - first) > count:
        _clear(pairs, 0, behind)
        _count_symbols(source, count, pairs, streams)
        for s in range(3):
            for symbol in range(behind):
                work[256 * s + symbol] += np.uint64(pairs[_APART * s + symbol])
        return
    _clear(pairs, 0, 1)
    for second in range(first, behind):
        _clear(pairs, 256 * second, 1)
        _clear(pairs, 256 * second + first, behind - first)
    _clear(pairs, first, behind - first)
    _count_pairs(source, count, pairs, streams)
    for s in range(3):
        mine = work[256 * s : 256 * s + 256]
        _add_row(pairs, _APART * s, 0, first, behind, mine)
        for second in range(first, behind):
            _add_row(pairs, _APART * s, second, first, behind, mine)


@primitive
def _clear(pairs: Array, at: Any, count: Any) -> None:
    for s in range(3):
        cells = pairs[_APART * s + at : _APART * s + at + count]
        for j in range(count):
            cells[j] = 0


@primitive
def _add_row(pairs: Array, at: Any, second: Any, first: Any, behind: Any, counts: Array) -> None:
    """Add the counts of pairs with one second symbol to those of symbols."""
    row = at + 256 * second
    total = np.uint64(pairs[row])
    counts[0] += total
    cells, firsts = pairs[row + first : row + behind], counts[first:behind]
    for j in range(behind - first):
        firsts[j] += np.uint64(cells[j])
        total += np.uint64(cells[j])
    counts[second] += total


@primitive
def _count_pairs(source: Array, count: Any, pairs: Array, streams: Array) -> None:
    i0, i1, i2 = streams[AT], streams[AT + 1], streams[AT + 2]
    for i in range(0, count, 8):
        a, b, c = load64le(source, i0 + i), load64le(source, i1 + i), load64le(source, i2 + i)
        for _ in range(4):
            pairs[a & _PAIR] += _ONE
            pairs[(b & _PAIR) + _SECOND] += _ONE
            pairs[(c & _PAIR) + _THIRD] += _ONE
            a, b, c = a >> _16, b >> _16, c >> _16


@primitive
def _count_symbols(source: Array, count: Any, counts: Array, streams: Array) -> None:
    i0, i1, i2 = streams[AT], streams[AT + 1], streams[AT + 2]
    for i in range(count):
        counts[np.uint64(source[i0 + i])] += _ONE
        counts[np.uint64(source[i1 + i]) + _SECOND] += _ONE
        counts[np.uint64(source[i2 + i]) + _THIRD] += _ONE


@primitive
def _assign(number: Any, lengths: Array, leaves: Array, work: Array) -> Any:
    """Find the optimal code lengths of at most 12 bits by package-merge; return the first and the last symbol used.

    Level by level the symbols, sorted by weight, are merged with pairs of the list before. Of the last list the first
    2·used - 2 items count; a pair counts two items of the list before, a symbol gets one bit.
    """
    keys, used, byte, first, last = _HISTOGRAMS, 0, np.uint64(8), 255, 0
    for symbol in range(256):
        lengths[symbol] = 0
        total = np.uint64(0)
        for s in range(number):
            total += work[256 * s + symbol]
        if total > np.uint64(0):
            # Insertion keeps the keys sorted: weights, then symbols.
            key, j = total << byte | np.uint64(symbol), keys + used
            while j > keys and work[j - 1] > key:
                work[j] = work[j - 1]
                j -= 1
            work[j] = key
            used += 1
            first, last = min(first, symbol), symbol
    old, new, size = keys + 256, keys + 768, 0
    for level in range(LIMIT):
        pairs, leaf, pair = size >> 1, 0, 0
        size = used + pairs
        for i in range(size):
            weight = work[keys + leaf] >> byte
            if leaf < used and (pair == pairs or weight <= work[old + 2 * pair] + work[old + 2 * pair + 1]):
                work[new + i] = weight
                leaves[512 * level + i] = 1
                leaf += 1
            else:
                work[new + i] = work[old + 2 * pair] + work[old + 2 * pair + 1]
                leaves[512 * level + i] = 0
                pair += 1
        old, new = new, old
    take = 2 * used - 2
    for level in range(LIMIT - 1, -1, -1):
        leaf = 0
        for i in range(take):
            leaf += int(leaves[512 * level + i])
        for i in range(leaf):
            lengths[work[keys + i] & np.uint64(255)] += 1
        take = 2 * (take - leaf)
    return first, last


@primitive
def _measure(number: Any, lengths: Array, first: Any, last: Any, work: Array, streams: Array, column: Any) -> Any:
    """Put the bytes of every stream into a column; return their sum with their size fields, 2^40 where codes lack."""
    total = np.int64(0)
    for s in range(number):
        bits, lacking = np.uint64(0), np.uint64(0)
        for symbol in range(first, last + 1):
            counted = work[256 * s + symbol]
            bits += counted * np.uint64(lengths[symbol])
            lacking |= counted if lengths[symbol] == 0 else np.uint64(0)
        if lacking != np.uint64(0):
            return 1 << 40
        size = np.int64((bits + np.uint64(7)) >> np.uint64(3))
        streams[column + s] = size
        total += size + 1 + (size > 127) + (size > 16383)
    return total


@primitive
def _write_lengths(lengths: Array, first: Any, last: Any, payload: Array, at: Any) -> Any:
    """Write the code lengths of the symbols from the first to the last; return where the next byte is."""
    payload[at], payload[at + 1] = first, last - first
    at += 2
    word, bits, length, idle = 0, 0, LIMIT, 0
    for symbol in range(first, last + 1):
        now = int(lengths[symbol])
        if now == 0:
            idle += 1
            continue
        if idle > 0:
            zeros = 0
            while idle >> (zeros + 1):
                zeros += 1
            word, bits = word << (4 + 2 * zeros) | 7 << (1 + 2 * zeros) | idle, bits + 4 + 2 * zeros
            idle = 0
        if now == length:
            word, bits = word << 1, bits + 1
        elif abs(now - length) == 1:
            word, bits = word << 3 | (4 if now > length else 5), bits + 3
        else:
            word, bits = word << 7 | 96 | now, bits + 7
        length = now
        while bits >= 8:
            bits -= 8
            payload[at] = (word >> bits) & 255
            at += 1
        word &= 255
    if bits > 0:
        payload[at] = (word << (8 - bits)) & 255
        at += 1
    return at


@primitive
def _build_codes(number: Any, lengths: Array, codes: Array) -> None:
    """Make the codes of symbols, and of pairs if there is much to code: bits above, their number in the low byte."""
    used = canonical(lengths)
    single = codes[_PAIRS:]
    for symbol in range(256):
        single[symbol] = 0
    code, first, last = 0, 255, 0
    for i in range(used):
        symbol = int(lengths[256 + i])
        length = int(lengths[symbol])
        single[symbol] = (code >> (LIMIT - length)) << 8 | length
        code += 1 << (LIMIT - length)
        first, last = min(first, symbol), max(last, symbol)
    if number == MANY:
        for i in range(used):
            second = int(lengths[256 + i])
            shift, low, put = np.uint32(lengths[second]), np.uint32(255), single[second]
            here, row = single[first : last + 1], codes[256 * second + first : 256 * second + last + 1]
            for j in range(last + 1 - first):
                row[j] = ((here[j] & ~low) << shift) + (here[j] & low) + put


@primitive
def _put(source: Array, i: Any, codes: Array, payload: Array, word: Any, bit: Any) -> Any:
    """Append the codes of four symbols to the bits at the bottom of `word` and store them; return both, advanced."""
    one, two = np.uint64(codes[load16le(source, i)]), np.uint64(codes[load16le(source, i + np.uint64(2))])
    some = (one + two) & np.uint64(63)
    word = word << some | (one >> np.uint64(8)) << (two & np.uint64(63)) | two >> np.uint64(8)
    store64be(payload, bit >> np.uint64(3), word << (np.uint64(64) - some - (bit & np.uint64(7))))
    return word, bit + some


@primitive
def _put_two(source: Array, payload: Array, codes: Array, streams: Array, first: Any) -> None:
    """Write two streams but for their ends: the last 8 bytes stored must not reach the next stream.

    More at once would want more registers than there are.
    """
    shorter = min(streams[END + first] - streams[AT + first], streams[END + first + 1] - streams[AT + first + 1])
    four, rounds = np.uint64(4), (shorter - 64) // 4
    w0, b0, i0 = np.uint64(0), np.uint64(streams[BIT + first]), np.uint64(streams[AT + first])
    w1, b1, i1 = np.uint64(0), np.uint64(streams[BIT + first + 1]), np.uint64(streams[AT + first + 1])
    for _ in range(rounds):
        w0, b0 = _put(source, i0, codes, payload, w0, b0)
        w1, b1 = _put(source, i1, codes, payload, w1, b1)
        i0, i1 = i0 + four, i1 + four
    streams[BIT + first], streams[BIT + first + 1] = np.int64(b0), np.int64(b1)
    streams[AT + first], streams[AT + first + 1] = np.int64(i0), np.int64(i1)


@primitive
def _write_streams(source: Array, number: Any, payload: Array, at: Any, codes: Array, streams: Array) -> Any:
    """Write the sizes of the streams, then the streams; return where the next byte is."""
    for s in range(number):
        size = streams[STOP + s]
        while size > 127:
            payload[at] = size & 127 | 128
            size >>= 7
            at += 1
        payload[at] = size
        at += 1
    for s in range(number):
        streams[BIT + s] = 8 * at
        at += streams[STOP + s]
    if number == MANY:
        for s in range(0, MANY, 2):
            _put_two(source, payload, codes, streams, s)
    for s in range(number):
        to, held = streams[BIT + s] >> 3, streams[BIT + s] & 7
        word = np.uint64(payload[to]) >> np.uint64(8 - held) if held else np.uint64(0)
        for i in range(streams[AT + s], streams[END + s]):
            code = np.uint64(codes[_PAIRS + int(source[i])])
            word = word << (code & np.uint64(63)) | code >> np.uint64(8)
            held += np.int64(code & np.uint64(63))
            while held >= 8:
                held -= 8
                payload[to] = (word >> np.uint64(held)) & np.uint64(255)
                to += 1
        if held:
            payload[to] = (word << np.uint64(8 - held)) & np.uint64(255)
    return at
