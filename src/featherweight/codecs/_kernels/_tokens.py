"""The tokens of the ggd codec: what indices, however large, become before they are coded, and the bits left open."""

from __future__ import annotations

from typing import Any

from numpy import int16, int32, int64, uint8, uint16, uint32, uint64

from featherweight.codecs._kernels._primitives import bit_length, load64le
from featherweight.kernel import kernel, primitive

__all__ = [
    "DIRECT",
    "ESCAPE",
    "INDICES",
    "LARGEST",
    "NAME",
    "TOKENIZE",
    "code_of",
    "count",
    "spare",
    "token_of",
]

DIRECT, ESCAPE, LARGEST = 63, 254, 238
_0, _1, _2, _3, _4, _7, _8 = (uint64(value) for value in (0, 1, 2, 3, 4, 7, 8))
_32, _64, _TOPS = uint64(32), uint64(64), uint64(0xC0C0C0C0C0C0C0C0)
_DIRECT, _ESCAPE, _LARGEST = uint64(DIRECT), uint64(ESCAPE), uint64(LARGEST)


@primitive
def token_of(k: Any) -> Any:
    """Return the token of an index: itself, zigzag, below 32; else exponent, two bits, the lowest bit and the sign."""
    size = uint64(abs(k))
    negative = uint64(k < int64(0))
    if size < uint64(32):
        return (size << _1) - negative
    top = bit_length(size) - _1
    return _DIRECT + ((top - uint64(5)) << _4 | (size >> top - _2 & _3) << _2 | (size & _1) << _1 | negative)


@primitive
def spare(token: Any) -> Any:
    """Return how many bits of an index its token leaves open."""
    return _0 if token < _DIRECT else (token - _DIRECT >> _4) + _2


@primitive
def code_of(token: Any) -> Any:
    """Return the byte that stands for a token while it is decoded; its lowest bit is that of the index.

    The codes of indices below 32 are these, in 8 bits; those of other tokens are 32 to 209.
    """
    if token < _DIRECT:
        half = token + _1 >> _1
        return (uint64(256) - half) & uint64(255) if token & _1 else half
    if token >= _ESCAPE:
        return uint64(209) if token == _ESCAPE else uint64(208)
    code = token - _DIRECT
    return _32 + (code & ~_3 | (code & _1) << _1 | code >> _1 & _1)


@primitive
def _token_of_code(code: Any) -> Any:
    """Return the token for which a code from 32 on stands."""
    if code >= uint64(208):
        return _ESCAPE if code & _1 else _ESCAPE + _1
    code = code - _32
    return _DIRECT + (code & ~_3 | (code & _1) << _1 | code >> _1 & _1)


@primitive
def _direct(token: Any) -> Any:
    half = int64(token + _1 >> _1)
    return -half if token & _1 else half


def _name(index: Any, tokens: Any) -> None:
    n = uint64(index.size)
    for begin in range(_0, n, _64):
        end, large = min(begin + _64, n), uint32(0)
        for i in range(begin, end):
            large |= uint32(abs(int32(index[i])))
        if large < uint32(32):
            for i in range(begin, end):
                k = int32(index[i])
                tokens[i] = uint8((uint32(abs(k)) << uint32(1)) - (uint32(k) >> uint32(31)))
        else:
            for i in range(begin, end):
                tokens[i] = uint8(token_of(int64(index[i])))


NAME = {size: kernel(f"void(i{size}[r], u1[w])")(_name) for size in (1, 4)}
"""Fill tokens with those of indices of 1 or 4 bytes below 2^16."""


@kernel("void(u1[r], u1[r], u4[w])")
def count(tokens: Any, rows: Any, counts: Any) -> None:
    """Add to `counts`, four times 256 a table, which tokens take turns in: neighbours are often the same."""
    n, quarter = uint64(tokens.size), uint64(counts.size) >> _2
    whole = n & ~_3
    for i in range(_0, whole, _4):
        counts[uint64(rows[i]) << _8 | uint64(tokens[i])] += uint32(1)
        counts[quarter + (uint64(rows[i + _1]) << _8 | uint64(tokens[i + _1]))] += uint32(1)
        counts[_2 * quarter + (uint64(rows[i + _2]) << _8 | uint64(tokens[i + _2]))] += uint32(1)
        counts[_3 * quarter + (uint64(rows[i + _3]) << _8 | uint64(tokens[i + _3]))] += uint32(1)
    for i in range(whole, n):
        counts[uint64(rows[i]) << _8 | uint64(tokens[i])] += uint32(1)


def _tokenize(index: Any, rows: Any, table: Any, tokens: Any, rest: Any) -> Any:
    at, n, least = _0, uint64(index.size), _DIRECT
    for row in range(_0, uint64(table.size), uint64(256)):
        token = _0
        while token < least and table[row + token] != uint16(0):
            token += _1
        least = token
    for begin in range(_0, n, _64):
        end, most = min(begin + _64, n), uint8(0)
        for i in range(begin, end):
            most = max(most, tokens[i])
        if uint64(most) < least:  # all of them have frequencies
            continue
        for i in range(begin, end):
            token = uint64(tokens[i])
            if table[uint64(rows[i]) << _8 | token] == uint16(0):
                tokens[i] = uint8(_ESCAPE + (_0 if uint64(abs(int64(index[i]))) & _1 else _1))
                at = _put(rest, at, token, _8)
            if token >= _DIRECT:
                open_ = spare(token)
                at = _put(rest, at, uint64(abs(int64(index[i]))) >> _1 & ((_1 << open_) - _1), open_)
    return int64(at)


TOKENIZE = {size: kernel(f"i8(i{size}[r], u1[r], u2[r], u1[w], u1[w])")(_tokenize) for size in (1, 4)}
"""Write the open bits of large tokens to a rest of zeros, and escape tokens that have no frequency; return the bits."""


@primitive
def _put(rest: Any, at: Any, value: Any, bits: Any) -> Any:
    for bit in range(bits):
        place = at + uint64(bit)
        rest[place >> _3] = uint8(uint64(rest[place >> _3]) | (value >> uint64(bit) & _1) << (place & _7))
    return at + bits


@primitive
def _take(rest: Any, at: Any, bits: Any) -> Any:
    value = _0
    for bit in range(bits):
        place = at + uint64(bit)
        if place >> _3 < uint64(rest.size):
            value |= (uint64(rest[place >> _3]) >> (place & _7) & _1) << uint64(bit)
    return value


def _indices(codes: Any, rest: Any, out: Any, least: Any, most: Any) -> Any:
    at, n = _0, uint64(codes.size)
    for begin in range(_0, n, uint64(64)):
        end, others = min(begin + uint64(64), n), _1
        if end - begin == uint64(64):
            others = _0
            for at8 in range(begin, end, _8):
                eight = load64le(codes, at8)
                others |= (eight ^ eight << _1) & _TOPS  # of an index below 32 the three highest bits are alike
        if others == _0:
            if out.itemsize > 1:
                for i in range(begin, end):
                    out[i] = int16(codes[i] ^ uint8(128)) - int16(128)
            continue
        for i in range(begin, end):
            code = uint64(codes[i])
            if code + _32 & uint64(192):
                token = _token_of_code(code)
                if token >= _ESCAPE:
                    parity = token == _ESCAPE
                    token = _take(rest, at, _8)
                    at += _8
                    if (token + _1 >> _1 & _1 == _1) != parity or token > _LARGEST:
                        return int64(-1)
                if token < _DIRECT:
                    k = _direct(token)
                else:
                    large, open_ = token - _DIRECT, spare(token)
                    top = (large >> _4) + uint64(5)
                    size = (_4 | large >> _2 & _3) << top - _2 | _take(rest, at, open_) << _1 | large >> _1 & _1
                    at += open_
                    k = -int64(size) if large & _1 else int64(size)
            else:
                k = int64(code) - int64(256) if code > uint64(127) else int64(code)
            if k < least or k > most:
                return int64(-1)
            out[i] = k
    return int64(at)


INDICES = {8 * size: kernel(f"i8(u1[r], u1[r], i{size}[w], i8, i8)")(_indices) for size in (1, 2, 4)}
"""Turn codes into indices of so many bits; return the bits read, -1 where one does not fit or a token is none.

Indices of bytes lie where the codes are.
"""
