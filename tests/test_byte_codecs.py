"""The byte codecs bzip2, lzma and zstd: what other tools can unpack, and payloads nobody should send."""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight import dtypes
from featherweight.codecs import zstd
from featherweight.codecs.bzip2 import Bzip2
from featherweight.codecs.lzma import Lzma, LzmaWire
from featherweight.codecs.zstd import Zstd
from featherweight.errors import FrameError, MissingDependencyError, TruncatedError
from featherweight.stage import Empty

Array = np.ndarray[Any, np.dtype[Any]]


def raw_lzma(wire: LzmaWire) -> list[dict[str, Any]]:
    names = ("lc", "lp", "pb")
    return [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << wire.dictionary, **{k: getattr(wire, k) for k in names}}]


UNPACK: dict[str, Callable[[Any, bytes], bytes]] = {
    "bzip2": lambda wire, data: bz2.decompress(data),
    "lzma": lambda wire, data: lzma.decompress(data, lzma.FORMAT_RAW, filters=raw_lzma(wire)),
    "zstd": lambda wire, data: zstandard.ZstdDecompressor().decompress(data),
}
PACK: dict[str, Callable[[bytes], tuple[Any, bytes]]] = {
    "bzip2": lambda data: (Empty(), bz2.compress(data)),
    "lzma": lambda data: (
        LzmaWire(12, 3, 0, 2),
        lzma.compress(data, lzma.FORMAT_RAW, filters=raw_lzma(LzmaWire(12, 3, 0, 2))),
    ),
    "zstd": lambda data: (Empty(), zstandard.ZstdCompressor().compress(data)),
}
STAGES: dict[str, Any] = {"bzip2": Bzip2, "lzma": Lzma, "zstd": Zstd}
each_codec = pytest.mark.parametrize("name", STAGES)


def decoded(name: str, wire: Any, data: bytes, out: Array) -> Array:
    STAGES[name].codec.decode(wire, (np.frombuffer(data, np.uint8),), (), out)
    return out


@each_codec
@pytest.mark.parametrize("row", dtypes.all_types(), ids=lambda row: row.name)
def test_other_tools_unpack_the_bytes_of_every_type(name: str, row: dtypes.ElementType) -> None:
    words = np.random.default_rng(1).geometric(0.4, 40 * row.dtype.itemsize).astype(np.uint8)
    mask = 1 if row.kind == "b" else (1 << row.bits) - 1 if row.bits < 8 else 255
    x = (words & np.uint8(mask)).view(row.dtype).reshape(5, 8)
    wire, (payload,) = STAGES[name]().encode(x)
    assert x.tobytes() == UNPACK[name](wire, payload.tobytes())
    assert x.tobytes() == decoded(name, wire, payload.tobytes(), np.empty_like(x)).tobytes()


@each_codec
@given(st.binary(max_size=3000), st.integers(1, 5))
def test_what_other_tools_pack_is_decoded(name: str, data: bytes, times: int) -> None:
    data = data * times
    out = np.empty(len(data), np.uint8)
    if data:
        wire, packed = PACK[name](data)
        assert data == decoded(name, wire, packed, out).tobytes()


@each_codec
def test_compresses(name: str) -> None:
    x = np.random.default_rng(2).geometric(0.5, 20_000).astype(np.int8)
    sizes = [STAGES[name](level=level).encode(x).streams[0].size for level in (1, 9)]
    assert max(sizes) < 0.35 * x.size  # the entropy is 2 bits


def test_lzma_takes_the_place_within_an_element_for_context() -> None:
    x = np.random.default_rng(3).normal(0, 3000, 20_000).astype(np.int16)
    _, (payload,) = Lzma().encode(x)
    _, (blind,) = Lzma().encode(x.view(np.uint8))
    assert payload.size < 0.98 * blind.size


@each_codec
def test_payloads_cut_short_or_with_more_behind_are_refused(name: str) -> None:
    data = np.random.default_rng(4).geometric(0.5, 500).astype(np.uint8)
    wire, (payload,) = STAGES[name]().encode(data)
    packed, out = payload.tobytes(), np.empty_like(data)
    for size in range(len(packed)):
        with pytest.raises(FrameError):
            decoded(name, wire, packed[:size], out)
    for more in (b"\0", b"x", packed):
        with pytest.raises(FrameError):
            decoded(name, wire, packed + more, out)
    for count in (0, 1, 499, 501, 100_000):
        with pytest.raises(FrameError):
            decoded(name, wire, packed, np.empty(count, np.uint8))


@pytest.mark.parametrize("name", ["bzip2", "lzma"])
def test_an_early_end_is_named(name: str) -> None:
    x = np.random.default_rng(4).integers(0, 256, 500).astype(np.uint8)
    wire, (payload,) = STAGES[name]().encode(x)
    with pytest.raises(TruncatedError):
        decoded(name, wire, payload[:-2].tobytes(), np.empty_like(x))


@each_codec
@given(st.binary(max_size=60), st.data())
def test_damage_is_refused_or_decodes_to_something(name: str, junk: bytes, data: st.DataObject) -> None:
    wire, packed = PACK[name](bytes(range(200)))
    place = data.draw(st.integers(0, len(packed)))
    for hostile in (junk, packed[:place] + junk + packed[place + len(junk) :]):
        try:
            decoded(name, wire, hostile, np.empty(200, np.uint8))
        except FrameError:
            continue


@each_codec
def test_a_bomb_makes_no_more_than_is_asked_for(name: str) -> None:
    wire, bomb = PACK[name](bytes(1 << 26))
    out = np.empty(1000, np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decoded(name, wire, bomb, out)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_dictionary_beyond_the_array_is_refused() -> None:
    wire, packed = PACK["lzma"](bytes(9000))
    assert not decoded("lzma", wire, packed, np.ones(9000, np.uint8)).any()
    for bad in (LzmaWire(15, 3, 0, 2), LzmaWire(12, 3, 2, 2)):
        with pytest.raises(FrameError, match="fit"):
            decoded("lzma", bad, packed, np.empty(9000, np.uint8))


def test_a_zstd_frame_must_say_how_large_it_is() -> None:
    data = bytes(1000)
    for options in ({"write_content_size": False}, {"write_checksum": True}):
        packed = zstandard.ZstdCompressor(**options).compress(data)
        if "write_checksum" in options:
            assert not decoded("zstd", Empty(), packed, np.ones(1000, np.uint8)).any()
        else:
            with pytest.raises(FrameError, match="size"):
                decoded("zstd", Empty(), packed, np.ones(1000, np.uint8))
    for size in (1, 255, 256, 257, 65_791, 65_792, 1 << 20):
        packed = zstandard.ZstdCompressor().compress(bytes(size))
        assert not decoded("zstd", Empty(), packed, np.ones(size, np.uint8)).any()


@each_codec
def test_a_byte_that_is_no_boolean_is_refused(name: str) -> None:
    wire, packed = PACK[name](bytes([0, 1, 2]))
    with pytest.raises(FrameError):
        decoded(name, wire, packed, np.empty(3, np.bool_))
    assert [0, 1, 2] == decoded(name, wire, packed, np.empty(3, np.uint8)).tolist()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = featherweight.encode(np.zeros(9, np.int8), "zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    for run in (lambda: featherweight.encode(np.zeros(9, np.int8), "zstd"), lambda: featherweight.decode(frame)):
        with pytest.raises(MissingDependencyError, match=r"featherweight\[zstd\]"):
            run()


class Incremental:
    """The standard library's way to decompress, over zstandard."""

    def __init__(self) -> None:
        self.rest, self.eof, self.unused_data = b"", False, b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if data:
            coder = zstandard.ZstdDecompressor().decompressobj()
            self.rest = coder.decompress(data)
            self.unused_data = coder.unused_data
            self.ended = bool(coder.eof)
        made, self.rest = self.rest[:max_length], self.rest[max_length:]
        self.eof = self.ended and not self.rest
        return made


def test_the_standard_library_s_module_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    standard = SimpleNamespace(
        __name__="compression.zstd",
        ZstdError=zstandard.ZstdError,
        ZstdDecompressor=Incremental,
        compress=lambda data, level: zstandard.ZstdCompressor(level=level).compress(data),
    )
    x = np.random.default_rng(5).geometric(0.5, 5000).astype(np.int16)
    _, (expected,) = Zstd().encode(x)
    monkeypatch.setattr(zstd, "_library", lambda: standard)
    _, (payload,) = Zstd().encode(x)
    assert payload.tobytes() == expected.tobytes()
    assert np.array_equal(x, decoded("zstd", Empty(), payload.tobytes(), np.empty_like(x)))
    for bad in (payload[:-1].tobytes(), payload.tobytes() + b"x", b"\x28\xb5\x2f\xfd" + bytes(40)):
        with pytest.raises(FrameError):
            decoded("zstd", Empty(), bad, np.empty_like(x))


def test_the_modules_of_the_same_name_are_not_shadowed() -> None:
    assert lzma is importlib.import_module("lzma")
    assert hasattr(importlib.import_module("featherweight.codecs.lzma"), "CODEC")
