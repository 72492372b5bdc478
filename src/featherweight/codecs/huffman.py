"""Code bytes with canonical Huffman codes of at most 12 bits, made anew for every block where that pays.

Huffman (1952); lengths by package-merge: Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman
codes" (JACM 1990).

Wire: `block`, 10 … 18: the symbols, in C order, are cut into blocks of 2^block, the last one shorter.
Streams: `payload`, u8, one-dimensional: the blocks one after the other and nothing else; empty for no symbols.
Decoding: bits are taken from the most significant one of a byte to the least. A block of n symbols begins with a byte:

==== ==== ===============================================================================================
byte kind what follows
==== ==== ===============================================================================================
0    raw  n bytes, the symbols
1    run  one byte, the symbol that fills the block
2    code lengths, sizes, one bit stream
3    code sizes, one bit stream; the lengths are those of the last block that held any: an error if none did
6    code lengths, sizes, four bit streams
7    code sizes, four bit streams; lengths as for 3
10   code lengths, sizes, six bit streams
11   code sizes, six bit streams; lengths as for 3
==== ==== ===============================================================================================

Any other first byte is an error. **Lengths**: a byte `first`, a byte `more`, then bits that give the code lengths of
the symbols first … first + more (255 at most), filled up to a whole byte with bits that mean nothing. The other
symbols have none. With a length that is 12 before the first:

==================== ======================================================================================
bits                 meaning
==================== ======================================================================================
``0``                the next symbol has that length
``100``, ``101``     the next symbol's length is one more, one less
``110`` and 4 bits   the next symbol's length is that number
``111`` and r        the next r symbols have none: k zeros, then r in k + 1 bits beginning with 1; k at most 7
==================== ======================================================================================

Lengths are 1 … 12, symbols end exactly at first + more, and over all of them Σ 2^-length = 1 with two symbols at least;
all else is an error. **Codes** are canonical: symbols sorted by length, then by number, are given successive codes, the
first one zeros; from one length to the next a code is increased by one and then extended by zeros.

**Sizes**: the bytes of each stream, each number in groups of 7 bits, the lowest first, in bytes whose top bit says that
another follows (4 bytes at most). Then the streams. Of S streams, stream s holds the codes of symbols ⌊n·s/S⌋ up to
⌊n·(s+1)/S⌋ of the block; the last byte is filled up with bits that mean nothing, and a stream of another size than its
codes need is an error.

>>> import numpy as np
>>> encoded = Huffman().encode(np.frombuffer(b"featherweight features", np.uint8))
>>> encoded.wire.block, encoded.streams[0].tobytes().hex(" ")
(16, '00 66 65 61 74 68 65 72 77 65 69 67 68 74 20 66 65 61 74 75 72 65 73')
>>> x = np.array([7, 7, 8, 7, 9, 7, 8, 7] * 4, np.uint8)
>>> Huffman().encode(x).streams[0].tobytes().hex(" ")
'02 07 02 c3 00 06 26 84 d0 9a 13 40'

Those are: a new code; symbols 7 … 9; lengths ``110 0001`` = 1, ``100`` = one more, ``0`` = the same; 6 bytes; the codes
0 0 10 0 11 0 10 0 and so on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from featherweight.codecs._kernels import huffman as kernels
from featherweight.codecs._kernels import huffman_encode
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Huffman", "HuffmanWire", "decode"]

_LEAST, _MOST = 10, 18


class _Scratch(threading.local):
    """What the kernels work in, made once a thread; pages that are never touched cost nothing."""

    def __init__(self) -> None:
        self.streams = np.empty(24, np.int64)
        self.lengths = np.empty(525, np.uint8)
        self.window = np.empty(8192, np.uint64)
        self.pairs = np.empty(huffman_encode.COUNTERS, np.uint32)
        self.codes = np.empty((1 << 16) + 256, np.uint32)
        self.known = np.empty(525, np.uint8)
        self.leaves = np.empty(6144, np.uint8)
        self.work = np.empty(2816, np.uint64)


_scratch = _Scratch()


class HuffmanWire(Wire, frozen=True):
    """How the symbols are cut."""

    block: Annotated[int, msgspec.Meta(ge=_LEAST, le=_MOST)]


def decode(wire: HuffmanWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` from the payload."""
    payload, here = streams[0], _scratch
    used = kernels.decode(payload, wire.block, out.reshape(-1), here.window, here.lengths, here.streams)
    if used < 0:
        raise FrameError("the payload is not made of whole blocks with complete codes")
    if used != payload.size:
        raise FrameError(f"{payload.size - used} bytes follow the last block")


CODEC = Codec(
    name="huffman",
    wire=HuffmanWire,
    out=Port("symbols", "u", bits=8),
    streams=(Port("payload", "u", 1, 8),),
    decode=decode,
)


@dataclass(frozen=True, slots=True)
class Huffman:
    """Code bytes by how often they occur nearby; the fastest way to most of what their entropy allows."""

    block: int = param(16, lo=_LEAST, hi=_MOST, doc="base-2 logarithm of the symbols that share a code")

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Code block by block; a block that does not shrink is stored as it is."""
        flat, here = x.reshape(-1), _scratch
        payload = np.empty(flat.size + (flat.size >> self.block) + 513, np.uint8)
        used = huffman_encode.encode(
            flat, self.block, payload,
            here.pairs, here.codes, here.lengths, here.known, here.leaves, here.work, here.streams,
        )  # fmt: skip
        payload.resize(used, refcheck=False)  # which copies nothing
        return Encoded(HuffmanWire(self.block), (payload,))

    def error_bound(self, x: Array, /) -> float | None:
        """Nothing is lost."""
        return 0.0
