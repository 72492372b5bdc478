"""The decoding loops of the `huffman` codec; its module's docstring specifies the bytes.

Strategy: the next 12 bits of a stream index a window table whose entries hold every symbol that ends within
them, up to six, so that one load yields four symbols of a typical block. The table of all windows of k bits lies at
[2^k, 2^(k+1)) of one array: a symbol of l bits followed by whatever k-l bits hold is a contiguous run of table k and a
copy of table k-l with one symbol put before each entry, which vectorises. Six streams advance in turn, instruction by
instruction, for as many rounds as are safe whatever the bytes are; the processor overlaps them. More would want more
registers than there are. Blocks of four streams are not written any more: theirs are decoded one after another.

Positions and counts are int64, bits are uint64. `streams` holds four columns of six numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import load64be, store64le, trailing_zeros
from featherweight.dtypes import Array
from featherweight.kernel import kernel, primitive

__all__ = [
    "AT",
    "BIT",
    "END",
    "FOUR",
    "LIMIT",
    "MANY",
    "RAW",
    "REPEAT",
    "RUN",
    "SIX",
    "STOP",
    "TABLE",
    "canonical",
    "copy",
    "decode",
]

LIMIT = 12  # bits of the longest code
RAW, RUN, TABLE, REPEAT = 0, 1, 2, 3  # the kind of a block, in its first byte
FOUR, SIX = 4, 8  # and how many streams it has, if not one
MANY = 6  # streams that are decoded together
BIT, AT, END, STOP = 0, 6, 12, 18  # columns of `streams`: next bit, next symbol, behind the last, byte behind


@kernel("i8(u1[r], i8, u1[w], u8[w], u1[w], i8[w])")
def decode(payload: Array, block: Any, out: Array, window: Array, lengths: Array, streams: Array) -> Any:
    """Fill `out` from blocks of 2^`block` symbols; return the bytes read, -1 where they are no such blocks.

    Scratch: `window` 8192, `lengths` 525, `streams` 24.
    """
    at, start, known = 0, 0, False
    while start < len(out):
        count = min(len(out) - start, 1 << block)
        if at >= len(payload):
            return -1
        head = int(payload[at])
        kind, number = head & 3, MANY if head & SIX else 4 if head & FOUR else 1
        at += 1
        if head >= FOUR + SIX:  # both, or what means nothing
            return -1
        if kind <= RUN:
            size = count if kind == RAW else 1
            if number > 1 or size > len(payload) - at:
                return -1
            copy(payload, at, kind == RAW, out, start, count)
            at += size
        else:
            if kind == TABLE:
                at = _read_lengths(payload, at, lengths)
                if at < 0 or not _fill_window(lengths, window):
                    return -1
                known = True
            if not known:
                return -1
            for s in range(number):
                streams[AT + s] = start + count * s // number
                streams[END + s] = start + count * (s + 1) // number
            at = _read_sizes(payload, at, number, streams)
            if at < 0 or not _decode_streams(payload, number, out, window, lengths, streams):
                return -1
        start += count
    return at


@primitive
def copy(source: Array, at: Any, step: Any, target: Array, to: Any, count: Any) -> None:
    """Copy `count` bytes, or with `step` 0 one byte so many times."""
    here, there = source[at:], target[to : to + count]
    if step:
        for i in range(count):
            there[i] = here[i]
    else:
        for i in range(count):
            there[i] = here[0]


@primitive
def _bits(payload: Array, bit: Any) -> Any:
    """Return 57 bits or more from `bit` on, at the top of a word, zeros after the end."""
    at = bit >> 3
    if at + 8 <= len(payload):
        word = load64be(payload, at)
    else:
        word = np.uint64(0)
        for i in range(at, len(payload)):
            word |= np.uint64(payload[i]) << np.uint64(56 - 8 * (i - at))
    return word << np.uint64(bit & 7)


@primitive
def _read_lengths(payload: Array, at: Any, lengths: Array) -> Any:
    """Read the code lengths of all 256 symbols; return where the next byte is, or -1."""
    if at + 2 > len(payload):
        return -1
    symbol = int(payload[at])
    last = symbol + int(payload[at + 1])
    if last > 255:
        return -1
    for i in range(256):
        lengths[i] = 0
    bit, length = 8 * at + 16, LIMIT
    while symbol <= last:
        if bit >= 8 * len(payload):
            return -1
        word = int(_bits(payload, bit) >> np.uint64(40))
        if word >= 0xE00000:
            zeros = 0
            while zeros < 8 and not (word >> (20 - zeros)) & 1:
                zeros += 1
            symbol += (word >> (20 - 2 * zeros)) & ((2 << zeros) - 1)
            bit += 4 + 2 * zeros
            continue
        if word < 0x800000:
            bit += 1
        elif word < 0xC00000:
            length += 1 if word < 0xA00000 else -1
            bit += 3
        else:
            length = (word >> 17) & 15
            bit += 7
        if length < 1 or length > LIMIT:
            return -1
        lengths[symbol] = length
        symbol += 1
    at = (bit + 7) >> 3
    return at if symbol == last + 1 and at <= len(payload) else -1


@primitive
def canonical(lengths: Array) -> Any:
    """Put the used symbols in canonical order behind the 256 lengths; return their number, 0 unless codes fill 2^12.

    Behind them lies where the next symbol of each length goes.
    """
    for length in range(LIMIT + 1):
        lengths[512 + length] = 0
    used, total = 0, 0
    for symbol in range(256):
        length = int(lengths[symbol])
        if length:
            lengths[512 + length] += np.uint8(1)
            used += 1
            total += 1 << (LIMIT - length)
    place = np.uint8(0)
    for length in range(1, LIMIT + 1):
        behind = np.uint8(place + lengths[512 + length])
        lengths[512 + length], place = place, behind
    for symbol in range(256):
        length = int(lengths[symbol])
        if length:
            lengths[256 + int(lengths[512 + length])] = symbol
            lengths[512 + length] += np.uint8(1)
    return used if total == 1 << LIMIT and used > 1 else 0


@primitive
def _fill_window(lengths: Array, window: Array) -> Any:
    """Build the tables of those windows that the one of 12 bits is made of; return whether the code is complete.

    An entry holds bits in its low byte, the number of symbols in the next, the symbols above, the first one lowest.
    """
    used = canonical(lengths)
    if used == 0:
        return False
    shortest = int(lengths[lengths[256]])
    one, byte, few = np.uint64(1 << 8), np.uint64(8), np.uint64(8)
    for width in range(LIMIT + 1):
        if LIMIT - shortest < width < LIMIT:
            continue
        place = np.uint64(1 << width)
        for i in range(used):
            symbol = lengths[256 + i]
            length = int(lengths[symbol])
            if length > width:
                break
            run = np.uint64(1 << (width - length))
            put = (np.uint64(symbol) << np.uint64(16)) + one + np.uint64(length)
            if run < few:  # a loop of its own, for LLVM to leave without vectors: to make ready for them takes longer
                for j in range(run):
                    window[place + j] = _before(window[run + j], put)
            else:
                for j in range(run):
                    window[place + j] = _before(window[run + j], put)
            if shortest == 1:
                # Where there were six, the last fell off the top: take its bits back.
                for j in range(run):
                    if (window[place + j] >> byte) & np.uint64(255) == np.uint64(7):
                        window[place + j] -= one + np.uint64(lengths[window[run + j] >> np.uint64(56)])
            place += run
        for i in range(place, np.uint64(2 << width)):
            window[i] = np.uint64(0)
    return True


@primitive
def _before(entry: Any, put: Any) -> Any:
    """Return an entry with one more symbol before it."""
    low = np.uint64(0xFFFF)
    return ((entry & ~low) << np.uint64(8)) + (entry & low) + put


@primitive
def _read_sizes(payload: Array, at: Any, number: Any, streams: Array) -> Any:
    """Read the sizes of the streams and set where each lies; return where the block ends, or -1."""
    for s in range(number):
        size, shift, byte = 0, 0, 128
        while byte > 127:
            if at >= len(payload) or shift > 21:
                return -1
            byte = int(payload[at])
            at += 1
            size |= (byte & 127) << shift
            shift += 7
        streams[STOP + s] = size
    for s in range(number):
        streams[BIT + s] = 8 * at
        at += streams[STOP + s]
        streams[STOP + s] = at
    return at if at <= len(payload) else -1


@primitive
def _rounds(payload: Array, first: Any, behind: Any, most: Any, streams: Array) -> Any:
    """Return how many rounds are safe. A round is four look-ups; one yields `most` symbols at most.

    R rounds move 4·R·most symbols on, and the last look-up writes 8 bytes: 4·R·most - most + 8 must be left. They take
    48·R bits, 6·R bytes, and load 8 bytes where the last round begins.
    """
    rounds = 1 << 40
    for s in range(first, behind):
        rounds = min(rounds, (streams[END + s] - streams[AT + s] - 8 + most) // (4 * most))
        rounds = min(rounds, (len(payload) - (streams[BIT + s] >> 3) - 2) // 6)
    return max(rounds, 0)


@primitive
def _refill(payload: Array, bit: Any) -> Any:
    """Return at least 56 bits at the top of a word, and a one behind them that tells how many were shifted out."""
    return (load64be(payload, bit >> np.uint64(3)) | np.uint64(1)) << (bit & np.uint64(7))


@primitive
def _step(out: Array, window: Array, word: Any, to: Any) -> Any:
    """Write the symbols of one entry; return the bits behind it and the next place."""
    entry = window[np.uint64(1 << LIMIT) + (word >> np.uint64(64 - LIMIT))]
    store64le(out, to, entry >> np.uint64(16))
    return word << (entry & np.uint64(63)), to + ((entry >> np.uint64(8)) & np.uint64(255))


@primitive
def _decode_six(payload: Array, out: Array, window: Array, most: Any, streams: Array) -> None:
    """Decode six streams until one of them nears its end."""
    seven = np.uint64(7)
    rounds = _rounds(payload, 0, 6, most, streams)
    while rounds > 0:
        b0, b1, b2 = np.uint64(streams[BIT]), np.uint64(streams[BIT + 1]), np.uint64(streams[BIT + 2])
        b3, b4, b5 = np.uint64(streams[BIT + 3]), np.uint64(streams[BIT + 4]), np.uint64(streams[BIT + 5])
        t0, t1, t2 = np.uint64(streams[AT]), np.uint64(streams[AT + 1]), np.uint64(streams[AT + 2])
        t3, t4, t5 = np.uint64(streams[AT + 3]), np.uint64(streams[AT + 4]), np.uint64(streams[AT + 5])
        for _ in range(rounds):
            w0, w1, w2 = _refill(payload, b0), _refill(payload, b1), _refill(payload, b2)
            w3, w4, w5 = _refill(payload, b3), _refill(payload, b4), _refill(payload, b5)
            for _ in range(4):
                w0, t0 = _step(out, window, w0, t0)
                w1, t1 = _step(out, window, w1, t1)
                w2, t2 = _step(out, window, w2, t2)
                w3, t3 = _step(out, window, w3, t3)
                w4, t4 = _step(out, window, w4, t4)
                w5, t5 = _step(out, window, w5, t5)
            b0, b1 = (b0 & ~seven) + trailing_zeros(w0), (b1 & ~seven) + trailing_zeros(w1)
            b2, b3 = (b2 & ~seven) + trailing_zeros(w2), (b3 & ~seven) + trailing_zeros(w3)
            b4, b5 = (b4 & ~seven) + trailing_zeros(w4), (b5 & ~seven) + trailing_zeros(w5)
        streams[BIT], streams[BIT + 1], streams[BIT + 2] = np.int64(b0), np.int64(b1), np.int64(b2)
        streams[BIT + 3], streams[BIT + 4], streams[BIT + 5] = np.int64(b3), np.int64(b4), np.int64(b5)
        streams[AT], streams[AT + 1], streams[AT + 2] = np.int64(t0), np.int64(t1), np.int64(t2)
        streams[AT + 3], streams[AT + 4], streams[AT + 5] = np.int64(t3), np.int64(t4), np.int64(t5)
        rounds = _rounds(payload, 0, 6, most, streams)


@primitive
def _decode_streams(payload: Array, number: Any, out: Array, window: Array, lengths: Array, streams: Array) -> Any:
    """Decode the streams of a block; return whether each used its bits up."""
    most = min(LIMIT // int(lengths[lengths[256]]), 6)
    if number == MANY:
        _decode_six(payload, out, window, most, streams)
    for s in range(number):
        bit, to = np.uint64(streams[BIT + s]), np.uint64(streams[AT + s])
        rounds = _rounds(payload, s, s + 1, most, streams)
        while rounds > 0:
            for _ in range(rounds):
                word = _refill(payload, bit)
                for _ in range(4):
                    word, to = _step(out, window, word, to)
                bit = (bit & ~np.uint64(7)) + trailing_zeros(word)
            streams[BIT + s], streams[AT + s] = np.int64(bit), np.int64(to)
            rounds = _rounds(payload, s, s + 1, most, streams)
        while streams[END + s] - np.int64(to) >= 8 and len(payload) - np.int64(bit >> np.uint64(3)) >= 8:
            word, to = _step(out, window, _refill(payload, bit), to)
            bit = (bit & ~np.uint64(7)) + trailing_zeros(word)
        end = np.int64(bit)
        for i in range(np.int64(to), streams[END + s]):
            entry = window[np.uint64(1 << LIMIT) + (_bits(payload, end) >> np.uint64(64 - LIMIT))]
            symbol = (entry >> np.uint64(16)) & np.uint64(255)
            out[i] = symbol
            end += np.int64(lengths[symbol])
        if (end + 7) >> 3 != streams[STOP + s]:
            return False
    return True
