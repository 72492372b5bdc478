"""The rans codec's statistics and tables, all by integers, so that they are the same everywhere.

A decoding table has a word of 32 bits a slot: symbol | start << 8 | (2^bits - frequency) << 20.

An encoding table has two such words a symbol: a field frequency | bias << 13 | shift << 26, and an inverse with
⌊x / frequency⌋ = ⌊x · inverse / 2^32⌋ >> shift for every x below frequency · 2^(31 - bits), and bias = start. Only a
frequency of 1 has no such inverse: there ⌊x · (2^32 - 1) / 2^32⌋ is x - 1, which a bias of start + 2^bits - 1 mends.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint8, uint32, uint64

from featherweight.codecs._kernels._primitives import bit_length, load64le, popcount, store64le
from featherweight.kernel import kernel, primitive

_0, _1, _2, _3, _4, _7, _8 = (uint64(value) for value in (0, 1, 2, 3, 4, 7, 8))
_13, _16, _20, _26, _32 = (uint64(value) for value in (13, 16, 20, 26, 32))
_ALL = uint64(256)  # symbols, and classes
_WORD32 = uint64((1 << 32) - 1)
_PRECISIONS = uint64(8)
_ORDERS = uint64(8)
_OCTAVES = uint64(13)  # of the scale of weights
_LOG = uint64(20)  # costs are in 2^-20 bits
_HUGE = uint64(1 << 62)


# The bits of the header, least significant first; position `cursor[0]`. Both ends leave 8 bytes beyond them.
@primitive
def _take(header: Any, cursor: Any, order: Any) -> Any:
    window = load64le(header, min(cursor[0] >> _3, uint64(header.size) - _8)) >> (cursor[0] & _7)
    zeros = popcount((window & (_0 - window)) - _1)
    if zeros > _16:
        return _HUGE
    length = zeros + zeros + _1 + order
    code = (window & ((_1 << length) - _1)) >> (zeros + _1)
    cursor[0] += length
    return ((((_1 << zeros) | (code & ((_1 << zeros) - _1))) - _1) << order) + (code >> zeros)


@primitive
def _put(header: Any, cursor: Any, value: Any, order: Any) -> Any:
    whole = (value >> order) + _1
    zeros = bit_length(whole) - _1
    code = (whole - (_1 << zeros)) | (value & ((_1 << order) - _1)) << zeros
    place = cursor[0] >> _3
    store64le(header, place, load64le(header, place) | (_1 | code << _1) << zeros + (cursor[0] & _7))
    cursor[0] += zeros + zeros + _1 + order
    return value


@primitive
def _weight(level: Any, precision: Any) -> Any:
    if level == _0:
        return _0
    fraction = (level - _1) & ((_1 << precision) - _1)
    return ((_1 << precision) + fraction) << ((level - _1) >> precision)


@kernel("i8(u1[r], u8, u1[w], u4[w], u8[w], u8[w])")
def read_tables(header: Any, bits: Any, firsts: Any, entries: Any, cursor: Any, levels: Any) -> Any:
    """Read classes and tables: fill the first class of each table and the decoding `entries`.

    `header` is the payload or more of it than tables can take, and 8 bytes; `cursor` and `levels` (256) are scratch.
    Returns the number of bytes read, -1 where they are not valid; `cursor[1]` is then the symbol where there is only
    one in all, 256 otherwise.
    """
    cursor[0], cursor[1] = _0, _ALL
    first = _0
    firsts[0] = uint8(_0)
    for table in range(_1, uint64(firsts.size)):
        first += _1 + _take(header, cursor, _2)
        if first >= _ALL:
            return -1
        firsts[table] = uint8(first)
    base = _0
    for _ in range(uint64(firsts.size)):
        for each in range(_ALL):
            levels[each] = _0
        end, present, more = _0, _0, _1
        while more:
            begin = end + _take(header, cursor, _2)
            end = begin + _1 + _take(header, cursor, _2)
            if end > _ALL or begin >= end:
                return -1
            for each in range(begin, end):
                levels[each] = _1
            present += end - begin
            more = _take(header, cursor, _0)
            if more > _1:
                return -1
            end += more
        total, precision = _1, _0
        if present > _1:
            precision, order = _take(header, cursor, _2), _take(header, cursor, _2)
            if precision > _7 or order > _7:
                return -1
            level = total = _0
            for each in range(_ALL):
                if levels[each]:
                    step = _take(header, cursor, order)
                    level = level - (step + _1 >> _1) if step & _1 else level + (step >> _1)
                    if level > _OCTAVES << precision:
                        return -1
                    levels[each] = level + _1
                    total += _weight(level, precision)
            if total == _0:
                return -1
        elif firsts.size == 1:
            cursor[1] = end - _1
        _spread(levels, precision, total, present, bits)
        start = _0
        for each in range(_ALL):
            entry = each | start << _8 | ((_1 << bits) - levels[each]) << _20
            for bias in range(levels[each]):
                entries[base + bias] = uint32(entry)
            start += levels[each]
            base += levels[each]
    used = (cursor[0] + _7) >> _3
    return int64(used) if used + _8 <= uint64(header.size) else -1


@primitive
def _spread(levels: Any, precision: Any, total: Any, present: Any, bits: Any) -> Any:
    """Turn levels + 1, 0 where a symbol is absent, into frequencies: each gets 1 and its share of what is left."""
    left = (_1 << bits) - present
    start = before = seen = _0
    for each in range(_ALL):
        if levels[each]:
            before += _1 if present == _1 else _weight(levels[each] - _1, precision)
            seen += _1
            end = seen + before * left // total
            levels[each] = end - start
            start = end
    return seen


@kernel("void(u1[r], u4[w])")
def count(symbols: Any, counts: Any) -> Any:
    """Add to `counts` (4 · 256, four histograms that neighbouring symbols take turns in)."""
    n = uint64(symbols.size)
    for i in range(n):
        counts[(i & _3) << _8 | symbols[i]] += uint32(1)


@kernel("void(u1[r], u1[r], u4[w])")
def count_classes(symbols: Any, classes: Any, counts: Any) -> Any:
    """Add to `counts` (256 classes · 256 symbols)."""
    n = uint64(symbols.size)
    for i in range(n):
        counts[classes[i] << _8 | symbols[i]] += uint32(1)


@primitive
def _log2(value: Any, logs: Any) -> Any:
    """Return log2(value) in 2^-20; `logs` holds 257 values of log2(1 + i / 256)."""
    length = bit_length(value)
    mantissa = value << (uint64(33) - length) & _WORD32
    i, rest = mantissa >> uint64(24), mantissa >> _8 & uint64(65535)
    low, high = logs[i], logs[i + _1]
    return (length - _1 << _LOG) + low + ((high - low) * rest >> _16)


@primitive
def _cost(counts: Any, one: Any, other: Any, logs: Any) -> Any:
    """Return about how many bits rows `one` and `other` (maybe the same) cost with one table, in 2^-20."""
    n = spent = _0
    table = uint64(32)
    for symbol in range(_ALL):
        c = counts[one << _8 | symbol]
        if one != other:
            c += counts[other << _8 | symbol]
        if c:
            n += c
            spent += c * _log2(c, logs)
            table += _3
    return n * _log2(n, logs) - spent + (table << _LOG) if n else _0


@kernel("i8(u4[w], u8, u4[r], u8[w], u8[w], u8[w])")
def merge(counts: Any, limit: Any, logs: Any, firsts: Any, costs: Any, joint: Any) -> Any:
    """Merge neighbouring classes while one table for both is cheaper, or there are more than `limit`.

    Adds up rows of `counts` (256 · 256) so that row t belongs to table t, `firsts[t]` is its first class; returns the
    number of tables. `costs` and `joint` (256 each) are scratch.
    """
    tables = _0
    for which in range(_ALL):
        joint[which] = _0
        cost = _cost(counts, which, which, logs)
        if cost:
            firsts[tables] = which
            costs[tables] = cost
            tables += _1
    while tables > _1:
        best, gain = _0, _0
        for t in range(tables - _1):
            after = t + _1
            if joint[t] == _0:
                joint[t] = _cost(counts, firsts[t], firsts[after], logs)
            # _HUGE keeps the difference of unsigned numbers above zero.
            now = _HUGE + costs[t] + costs[after] - joint[t]
            if now > gain:
                best, gain = uint64(t), now
        if gain < _HUGE and tables <= limit:
            break
        into, source = firsts[best] << _8, firsts[best + _1] << _8
        for symbol in range(_ALL):
            counts[into + symbol] += counts[source + symbol]
        costs[best] = joint[best]
        tables -= _1
        for t in range(best + _1, tables):
            after = t + _1
            firsts[t], costs[t], joint[t] = firsts[after], costs[after], joint[after]
        joint[best] = _0
        if best > _0:
            joint[best - _1] = _0
    for t in range(tables):
        if firsts[t] != t:
            for symbol in range(_ALL):
                counts[t << _8 | symbol] = counts[firsts[t] << _8 | symbol]
    return int64(tables)


@primitive
def _plan(counts: Any, row: Any, n: Any, bits: Any, precision: Any, levels: Any) -> Any:
    """Quantise the counts of a row into levels + 1; returns the sum of the weights."""
    total = _0
    best, most = _0, _0
    for symbol in range(_ALL):
        c = counts[row + symbol]
        levels[symbol] = _0
        if c:
            # The share beyond the one slot that every symbol has, in 2^-7 slots, at least 0.
            share = (c << (bits + uint64(7))) // n
            share = share - uint64(128) if share > uint64(128) else _0
            level = _0
            if share >= uint64(64):
                share = max(share, uint64(128))
                octave = bit_length(share) - _8
                level = _1 + (((share << precision) + (_1 << octave + uint64(6))) >> octave + uint64(7))
                level += (octave << precision) - (_1 << precision)
            levels[symbol] = level + _1
            total += _weight(level, precision)
            if c > most:
                best, most = uint64(symbol), uint64(c)
    if total == _0:
        levels[best] = _2
        total = _weight(_1, precision)
    return total


@kernel("i8(u4[r], u8, u1[r], u4[r], u8[w], u8[w], u4[w], u1[w], u8[w])")
def write_tables(
    counts: Any,
    bits: Any,
    firsts: Any,
    logs: Any,
    levels: Any,
    sizes: Any,
    entries: Any,
    header: Any,
    cursor: Any,
) -> Any:
    """Write classes and tables into `header`; fill the encoding `entries`.

    `levels` (256), `sizes` (8) and `cursor` are scratch. Returns the number of bytes; `cursor[1]` is the cost of the
    symbols in bits.
    """
    tables = uint64(firsts.size)
    cursor[0] = _0
    for t in range(_1, tables):
        _put(header, cursor, firsts[t] - firsts[t - _1] - _1, _2)
    spent = _0
    for t in range(tables):
        row = t << _8
        n = present = _0
        for symbol in range(_ALL):
            c = counts[row + symbol]
            n += c
            present += uint64(c > _0)
        _put_runs(counts, row, header, cursor)
        precision, order, lowest = _0, _0, _HUGE
        # Try every precision and order, then once more with the best.
        for trial in range(_PRECISIONS + _1):
            last = trial == _PRECISIONS
            p = precision if last else uint64(trial)
            total = _plan(counts, row, n, bits, p, levels)
            if last and present > _1:
                _put(header, cursor, p, _2)
                _put(header, cursor, order, _2)
            for k in range(_ORDERS):
                sizes[k] = _0
            level = _0
            for symbol in range(_ALL):
                if levels[symbol]:
                    step = _step(level, levels[symbol] - _1)
                    level = levels[symbol] - _1
                    if last and present > _1:
                        _put(header, cursor, step, order)
                    for k in range(_ORDERS):
                        sizes[k] += _2 * bit_length((step >> k) + _1) + k
            _spread(levels, p, _1 if present == _1 else total, present, bits)
            cost = _0
            for symbol in range(_ALL):
                if levels[symbol]:
                    c = counts[row + symbol]
                    cost += c * ((bits << _LOG) - _log2(levels[symbol], logs))
            for k in range(_ORDERS):
                if cost + (sizes[k] << _LOG) < lowest:
                    precision, order, lowest = p, uint64(k), cost + (sizes[k] << _LOG)
        spent += cost
        start = _0
        for symbol in range(_ALL):
            frequency = levels[symbol]
            if frequency:
                start = enter(entries, row | uint64(symbol), frequency, start, bits)
    cursor[1] = spent >> _LOG
    return int64((cursor[0] + _7) >> _3)


@primitive
def enter(entries: Any, which: Any, frequency: Any, start: Any, bits: Any) -> Any:
    """Write the encoding entry of a symbol; returns where the slots of the next one start."""
    shift, bias, inverse = _0, start + (_1 << bits) - _1, _WORD32
    if frequency > _1:
        shift, bias = bit_length(frequency - _1) - _1, start
        inverse = ((_1 << shift + _32) + frequency - _1) // frequency
    entries[which << _1] = uint32(frequency | bias << _13 | shift << _26)
    entries[which << _1 | _1] = uint32(inverse)
    return start + frequency


@primitive
def _step(level: Any, following: Any) -> Any:
    """Return the difference, zigzagged: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4."""
    return ((level - following) << _1) - _1 if following < level else (following - level) << _1


@primitive
def _put_runs(counts: Any, row: Any, header: Any, cursor: Any) -> Any:
    """Write which symbols occur: how many do not, how many do, whether more follow, and again."""
    begin = end = known = _0
    while begin < _ALL:
        while begin < _ALL and counts[row + begin] == uint32(0):
            begin += _1
        if begin < _ALL:
            if end:
                _put(header, cursor, _1, _0)
            end = begin
            while end < _ALL and counts[row + end]:
                end += _1
            _put(header, cursor, begin - known, _2)
            _put(header, cursor, end - begin - _1, _2)
            begin, known = end, end + _1
    return _put(header, cursor, _0, _0)
