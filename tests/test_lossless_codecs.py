"""The codecs that rearrange bits: planes, narrow, constant, runs, palette, delta, bitpack, scales."""

from __future__ import annotations

import doctest
import importlib
import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featherweight
from featherweight import dtypes
from featherweight.codecs import bitpack, constant, delta, narrow, palette, planes, runs, scales
from featherweight.codecs._kernels import bitpack as bitpack_kernels
from featherweight.codecs._kernels import delta as delta_kernels
from featherweight.codecs._kernels import narrow as narrow_kernels
from featherweight.codecs._kernels import palette as palette_kernels
from featherweight.codecs._kernels import planes as planes_kernels
from featherweight.codecs._kernels import runs as runs_kernels
from featherweight.codecs._kernels import scales as scales_kernels
from featherweight.codecs._kernels._vector import AVX2
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import Kernel, features
from featherweight.stage import Empty, Encoded, Spec

TYPES = dtypes.all_types()
FLOATS = [row for row in TYPES if row.kind in "fc"]
KERNEL_MODULES = (
    bitpack_kernels,
    delta_kernels,
    narrow_kernels,
    palette_kernels,
    planes_kernels,
    runs_kernels,
    scales_kernels,
)
SHAPES = st.lists(st.integers(0, 12), max_size=4).map(tuple)


def from_bytes(raw: bytes, row: dtypes.ElementType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Make an array of any bits the type may hold."""
    data = np.frombuffer(raw, np.uint8).copy()
    if row.kind == "b":
        data &= 1
    elif row.bits < 8:
        data &= (1 << row.bits) - 1
    return data.view(row.dtype).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, rows: Any = TYPES, shapes: Any = SHAPES) -> np.ndarray[Any, Any]:
    """Draw bits, not numbers: random, equal, mostly zero, or of a few values, infinities and NaNs among them."""
    row, shape = draw(st.sampled_from(list(rows))), draw(shapes)
    count = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = rng.integers(0, 256, (draw(st.integers(1, 5)), row.dtype.itemsize), dtype=np.uint8)
    few[rng.random(few.shape) < 0.3] = draw(st.sampled_from([0, 0x7F, 0xFF, 0x80]))
    kind = draw(st.sampled_from(["random", "few", "zeros"]))
    if kind == "random":
        data = rng.integers(0, 256, (count, row.dtype.itemsize), dtype=np.uint8)
    else:
        data = few[rng.integers(0, len(few), count)]
    if kind == "zeros":
        data[np.repeat(rng.random(count // 20 + 1) < 0.7, 20)[:count]] = 0
    return from_bytes(data.tobytes(), row, shape)


def round_trip(module: Any, stage: Any, x: np.ndarray[Any, Any], *refs: np.ndarray[Any, Any]) -> Encoded:
    before = x.tobytes()
    x.flags.writeable = False
    encoded = stage.encode(x, *refs)
    assert x.tobytes() == before
    codec = module.CODEC
    assert len(encoded.streams) <= len(codec.streams)
    for port, stream in zip(codec.streams, encoded.streams, strict=False):
        port.check(Spec(stream.dtype, stream.shape), FrameError)
        assert stream.flags.c_contiguous
        stream.flags.writeable = False
    out = np.full(x.size * x.dtype.itemsize, 0xA5, np.uint8).view(x.dtype).reshape(x.shape)
    codec.decode(encoded.wire, encoded.streams, refs, out)
    assert out.tobytes() == before
    assert stage.error_bound(x) == 0.0
    return encoded


@pytest.mark.parametrize("module", [bitpack, constant, delta, narrow, palette, planes, runs, scales])
def test_docstring_is_a_specification_and_runs(module: Any) -> None:
    for word in ("Wire:", "Streams:", "Decoding:"):
        assert word in module.__doc__
    assert doctest.testmod(importlib.import_module(module.__name__)).attempted > 0
    assert doctest.testmod(module).failed == 0


# planes


@given(arrays())
def test_planes_of_bytes(x: np.ndarray[Any, Any]) -> None:
    round_trip(planes, planes.Planes(), x)


@given(arrays(), st.integers(0, 7), st.data())
def test_planes_of_any_widths(x: np.ndarray[Any, Any], packed: int, data: st.DataObject) -> None:
    row = dtypes.of(x.dtype)
    left, widths = row.bits // (2 if row.kind == "c" else 1), []
    while left:
        least = max(1, left - 8 * (7 - len(widths)))
        widths.append(data.draw(st.integers(least, max(least, min(8, left)))))
        left -= widths[-1]
    encoded = round_trip(planes, planes.Planes(tuple(widths), packed), x)
    words = dtypes.bits_view(x).size
    for stream, width in zip(encoded.streams, widths, strict=True):
        if width == packed and -(-words * width // 8) < words:
            assert stream.shape == (-(-words * width // 8),)
        else:
            assert stream.size == words
            assert not (stream >> np.uint8(width - 1) >> np.uint8(1)).any()


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 40_000])
@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("BF16", (8, 8)),
        ("F16", (8, 4, 4)),
        ("F32", ()),
        ("F64", ()),
        ("I16", (3, 5, 8)),
        ("I64", ()),
        ("U32", (8, 8, 8, 4, 4)),
        ("C64", ()),
    ],
)
def test_planes_of_many_elements(size: int, name: str, widths: tuple[int, ...]) -> None:
    row = dtypes.of(name)
    raw = np.random.default_rng(size).integers(0, 256, size * row.dtype.itemsize, dtype=np.uint8).tobytes()
    round_trip(planes, planes.Planes(widths), from_bytes(raw, row, (size,)))


@pytest.mark.parametrize("way", ["compiled", "python"])
@pytest.mark.parametrize(
    ("name", "widths"),
    [
        *((name, ()) for name in ("BF16", "I16", "U16", "F32", "I32", "U32", "C64")),
        *((name, widths) for name in ("F16", "I16", "U16") for widths in ((5, 3, 8), (5, 4, 7), (8, 4, 4))),
        *((name, (8, 4, 4, 8, 8)) for name in ("F32", "I32", "U32")),
    ],
)
def test_large_results_are_streamed_wherever_they_lie(
    name: str, widths: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "compiled" and not features() >= AVX2:
        pytest.skip("needs vectors of 256 bits")
    if way == "python":
        monkeypatch.setattr(planes, "features", lambda: AVX2)
        for table in ("_STREAMS", "_CUTS"):
            monkeypatch.setattr(planes, table, {plain: loop.python for plain, loop in getattr(planes, table).items()})
    monkeypatch.setattr(planes, "_LARGE", 0)
    row, rng = dtypes.of(name), np.random.default_rng(1)
    sizes = (0, 1, 15, 33, 63, 64, 65, *range(200, 208))
    for size, packed in itertools.product(sizes, {0, 3 if 3 in widths else 0}):
        x = from_bytes(rng.integers(0, 256, size * row.dtype.itemsize, dtype=np.uint8).tobytes(), row, (size,))
        with np.errstate(over="ignore"):
            encoded = planes.Planes(widths, packed).encode(x)
        room = np.empty(size + 32, row.dtype)
        for start in (0, 1, 3, 17, 32):
            room.view(np.uint8)[:] = 0xA5
            out = room[start : start + size]
            with np.errstate(over="ignore"):
                planes.decode(encoded.wire, encoded.streams, (), out)
            assert out.tobytes() == x.tobytes()
            around = np.concatenate((room[:start], room[start + size :]))
            assert (around.view(np.uint8) == 0xA5).all()
            for k, width in enumerate(widths):
                wrong, apart = [stream.copy() for stream in encoded.streams], encoded.streams[k].size < size
                if apart and size * width % 8:
                    wrong[k][-1] |= np.uint8(1 << rng.integers(size * width % 8, 8))
                elif size and width < 8 and not apart:
                    wrong[k][rng.integers(size)] |= np.uint8(1 << rng.integers(width, 8))
                else:
                    continue
                with np.errstate(over="ignore"), pytest.raises(FrameError):
                    planes.decode(encoded.wire, tuple(wrong), (), out)


def test_planes_put_the_sign_last() -> None:
    exponent, mantissa = planes.Planes().encode(np.array([1.0, -1.0, -1.5], dtypes.of("BF16").dtype)).streams
    assert exponent.tolist() == [127, 127, 127]
    assert mantissa.tolist() == [0, 1, 0x81]
    high, low = planes.Planes().encode(np.array([-1, 1, -2], np.int16)).streams
    assert high.tolist() == [0, 0, 0]
    assert low.tolist() == [1, 2, 3]


@pytest.mark.parametrize("widths", [(8,), (8, 9), (8, 8, 0), (16,), (8, -8, 8, 8), (), (1,) * 16, (2,) * 8 + (0,)])
def test_planes_refuse_widths(widths: tuple[int, ...]) -> None:
    out = np.empty(3, np.float16)
    with pytest.raises(FrameError):
        planes.decode(planes.PlanesWire(widths), (np.zeros(3, np.uint8),) * len(widths), (), out)
    if widths:
        with pytest.raises(ArgumentError):
            planes.Planes(widths).encode(out)


def test_widths_that_a_hostile_frame_names_are_not_kept() -> None:
    plane, kept = np.zeros(3, np.uint8), planes._fit.cache_info().currsize
    with pytest.raises(FrameError, match="1 planes of"):
        planes.decode(planes.PlanesWire((1,) * 1000), (plane,), (), np.empty(3, np.float16))
    assert planes._fit.cache_info().currsize == kept


def test_planes_refuse_streams() -> None:
    wire, out, good = planes.PlanesWire((8, 4, 4)), np.empty(3, np.float16), np.zeros(3, np.uint8)
    for streams in ((good, good), (good,) * 4, (good, good, good[:1]), (good, good, np.full(3, 16, np.uint8))):
        with pytest.raises(FrameError):
            planes.decode(wire, streams, (), out)
    with pytest.raises(ArgumentError):
        planes.Planes().encode(np.array([16], np.uint8).view(dtypes.of("U4").dtype))
    for widths in ((True, 8), ("8",), [8, 8], (0, 8), (16,)):
        with pytest.raises(ArgumentError):
            planes.Planes(widths)  # type: ignore[arg-type]


# narrow


@given(arrays(FLOATS))
def test_narrow_any_bits(x: np.ndarray[Any, Any]) -> None:
    round_trip(narrow, narrow.Narrow(), x)


@given(arrays([dtypes.of("F32")], st.tuples(st.integers(1, 9), st.integers(1, 300))), st.data())
def test_narrow_mixed_rows(x: np.ndarray[Any, Any], data: st.DataObject) -> None:
    words, kinds = x.view(np.uint32), data.draw(st.lists(st.integers(0, 2), min_size=len(x), max_size=len(x)))
    for i, kind in enumerate(kinds):
        if kind == 1:
            words[i] &= 0xFFFF0000
        if kind == 2:
            words[i] = (words[i] & 0x807FE000) | 0x3F800000
    flags = round_trip(narrow, narrow.Narrow(), x).streams[0]
    assert all(flag for flag, kind in zip(flags, kinds, strict=True) if kind)
    assert narrow.Narrow().pays(x) == (8 * np.count_nonzero(flags) >= len(x))


def wide_half() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Widen every float16 by NumPy, and its NaNs by their definition."""
    words = np.arange(1 << 16, dtype=np.uint16)
    nan = (words & 0x7C00 == 0x7C00) & (words & 0x3FF != 0)
    wide = np.where(nan, np.uint16(0), words).view(np.float16).astype(np.float32).view(np.uint32)
    long = words.astype(np.uint32)
    return words, np.where(nan, (long >> 15 << 31) | 0x7F800000 | (long & 0x3FF) << 13, wide)


def test_narrow_finds_every_half_and_no_other() -> None:
    words, wide = wide_half()
    x = np.stack([wide, wide]).view(np.float32)
    encoded = round_trip(narrow, narrow.Narrow(), x)
    assert encoded.streams[0].tolist() == [2, 2]
    assert (encoded.streams[3].view(np.uint16) == words).all()
    held = set(wide.tolist())
    near = (wide[:, None] + np.arange(-2, 3).astype(np.uint32) * np.uint32(4096)).reshape(-1, 1).view(np.float32)
    marks = np.zeros(len(near), np.uint8)
    narrow_kernels.judge32(near.view(np.uint32).reshape(-1), 1, marks)
    assert [bool(mark & 2) for mark in marks] == [word in held for word in near.view(np.uint32).reshape(-1).tolist()]


def test_narrow_finds_every_kind_of_single_and_no_other() -> None:
    rng = np.random.default_rng(3)
    words = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    words[:4096] &= 0x807FFFFF
    words[: 1 << 12 : 5] >>= rng.integers(0, 23, words[: 1 << 12 : 5].size, dtype=np.uint32)
    words[-5:] = 0, 0x80000000, 1, 0x7F800000, 0xFF800000
    words = words[~np.isnan(words.view(np.float32))]
    nans = rng.integers(1, 1 << 23, 500, dtype=np.uint32) | np.uint32(0x7F800000)
    wide = np.concatenate(
        [
            words.view(np.float32).astype(np.float64).view(np.uint64),
            (nans.astype(np.uint64) & 0x7FFFFF) << 29 | 0x7FF0000000000000,
        ]
    )
    encoded = round_trip(narrow, narrow.Narrow(), wide.view(np.float64).reshape(1, -1))
    assert encoded.streams[0].tolist() == [3]
    assert (encoded.streams[4].view(np.uint32) == np.concatenate([words, nans])).all()
    doubles = np.concatenate([wide ^ (np.uint64(1) << rng.integers(0, 63, wide.size).astype(np.uint64)), wide])
    marks = np.zeros(doubles.size, np.uint8)
    narrow_kernels.judge64(doubles, 1, marks)
    number = doubles.view(np.float64)
    finite = ~np.isnan(number)
    with np.errstate(over="ignore", under="ignore"):
        back = number[finite].astype(np.float32).astype(np.float64)
    assert (marks[finite] == (back == number[finite])).all()


def test_narrow_leaves_dense_rows_and_refuses_streams() -> None:
    x = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    assert len(narrow.Narrow().encode(x).streams) == 2
    assert not narrow.Narrow().pays(x)
    x[1] = 0
    flags, wide, brain = narrow.Narrow().encode(x).streams
    out = np.empty_like(x)
    bad = [
        (),
        (flags,),
        (flags, wide),
        (flags[:3], wide, brain),
        (flags, wide[:2], brain),
        (flags, wide, brain[:, :9]),
        (flags, wide, brain.view(np.float16)),
        (flags * 3, wide, brain),
        (flags * 200, wide, brain),
        (flags, wide, brain, brain[:1].view(np.float16)),
        (flags, wide.reshape(50, 3), brain),
    ]
    for streams in bad:
        with pytest.raises(FrameError):
            narrow.decode(Empty(), streams, (), out)


# constant


@given(arrays(), st.data())
def test_constant(x: np.ndarray[Any, Any], data: st.DataObject) -> None:
    equal = np.repeat(x.reshape(-1)[:1], x.size).reshape(x.shape)
    assert round_trip(constant, constant.Constant(), equal).streams[0].size == min(x.size, 1)
    size = x.dtype.itemsize
    same = len({x.tobytes()[i : i + size] for i in range(0, x.nbytes, size)}) <= 1
    assert constant.is_constant(x) == same
    if not same:
        with pytest.raises(ArgumentError):
            constant.Constant().encode(x)


def test_constant_refuses_streams() -> None:
    for size, out in ((0, np.empty(2, np.float32)), (2, np.empty(2, np.float32)), (1, np.empty(0, np.float32))):
        with pytest.raises(FrameError):
            constant.decode(Empty(), (np.zeros(size, np.float32),), (), out)


# runs


@given(arrays(shapes=st.integers(0, 300).map(lambda n: (n,))), st.integers(1, 70))
def test_runs(x: np.ndarray[Any, Any], least: int) -> None:
    encoded = round_trip(runs, runs.Runs(least), x)
    size = x.dtype.itemsize
    text = "".join("x" if any(x.tobytes()[i : i + size]) else "0" for i in range(0, x.nbytes, size))
    expected = [len(part) for part in re.findall("0+", text) if len(part) >= least]
    found = encoded.streams[1][1::2].tolist() if len(encoded.streams) > 1 else []
    assert expected == found


def test_runs_keep_minus_zero_and_any_shape() -> None:
    x = np.full((3, 40, 2), -0.0, np.float32)
    assert len(round_trip(runs, runs.Runs(), x).streams) == 1
    x = x.copy()
    x[1:] = 0
    assert round_trip(runs, runs.Runs(), x).streams[1].tolist() == [80, 160]
    assert runs.Runs().pays(x)
    assert not runs.Runs(161).pays(x)
    assert not runs.Runs().pays(x[:0])


def test_runs_of_lengths_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    filled, lengths = np.zeros(20, np.uint8), np.zeros(9, np.uint32)
    filled[:7] = 1
    monkeypatch.setattr(runs_kernels, "_MOST", 5)
    count = runs_kernels.find.python(filled, 4, lengths)
    assert lengths[:count].tolist() == [5, 0, 2, 5, 0, 5, 0, 3]
    out = np.empty(20, np.uint8)
    runs.decode(Empty(), (filled[:7], lengths[:count]), (), out)
    assert (out == filled).all()


@pytest.mark.parametrize("lengths", [[1, 6], [4, 5], [0, 5], [2**32 - 1, 1], [1, 2**32 - 1], [1, 2**32 - 1, 1, 8], []])
def test_runs_refuse_lengths(lengths: list[int]) -> None:
    kept, out = np.ones(3, np.float32), np.empty(10, np.float32)
    with pytest.raises(FrameError):
        runs.decode(Empty(), (kept, np.array(lengths, np.uint32)), (), out)


def test_runs_refuse_types() -> None:
    kept, out = np.ones(3, np.float32), np.empty(3, np.float32)
    for streams in ((), (kept.view(np.int32),), (kept, np.zeros(0, np.int32)), (kept, np.zeros((0, 2), np.uint32))):
        with pytest.raises(FrameError):
            runs.decode(Empty(), streams, (), out)


# palette


@given(arrays(), st.integers(1, 256), st.integers(0, 2**32))
def test_palette(x: np.ndarray[Any, Any], count: int, seed: int) -> None:
    if x.dtype.kind == "c" or not x.size:
        return
    places = np.random.default_rng(seed).integers(0, x.size, count)
    found = round_trip(palette, palette.Palette(), x.reshape(-1)[places])
    index, values = found.streams
    assert np.unique(dtypes.bits_view(values)).size == values.size <= count
    zero = np.flatnonzero(dtypes.bits_view(values) == 0)
    assert zero.tolist() in ([], [0])
    assert int(index.max()) == values.size - 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_palette_counts_to_256(dtype: Any) -> None:
    x = (np.arange(256).astype(dtype) * dtype(3))[::-1].repeat(3)
    assert round_trip(palette, palette.Palette(), x).streams[1].size == 256
    with pytest.raises(ArgumentError, match="more than 256 different elements: code this array with lossless"):
        palette.Palette().encode(np.append(x, dtype(1)))


def test_palette_tells_elements_by_their_bits() -> None:
    words = np.array([0x80000000, 0, 0x7FC00001, 0x7F800001, 0xFF800000, 1, 0x80000000], np.uint32)
    assert round_trip(palette, palette.Palette(), words.view(np.float32)).streams[0].tolist() == [1, 0, 2, 3, 4, 5, 1]


def test_palette_refuses_streams() -> None:
    out, index, values = np.empty(3, np.float32), np.array([0, 1, 2], np.uint8), np.ones(3, np.float32)
    for streams in ((index,), (index[:2], values), (index, values[:2]), (index, values.astype(np.float64))):
        with pytest.raises(FrameError):
            palette.decode(Empty(), streams, (), out)


@pytest.mark.parametrize("recipe", ["lossless", "lossless-small"])
@pytest.mark.parametrize("name", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("count", [2, 3, 16, 100])
def test_floats_of_few_values_take_what_their_numbers_do(name: str, count: int, recipe: str) -> None:
    rng = np.random.default_rng(count)
    values = rng.normal(0, 0.05, count).astype(dtypes.of(name).dtype)
    x = values[rng.integers(0, count, (300, 200))]
    frame = featherweight.encode(x, recipe)
    assert featherweight.decode(frame).tobytes() == x.tobytes()
    below = int(np.log2(count))
    huffman = below + 2 * (count - (1 << below)) / count  # the bits of numbers that are about as frequent
    assert 8 * len(frame) < 1.01 * x.size * huffman + 64 * count + 1600


def test_few_values_are_no_reason_where_other_ways_are_smaller() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=200).astype(np.float32), 8)
    assert len(featherweight.encode(x, "lossless")) <= len(featherweight.encode(x, "planes(exponent=rans)"))


# delta


@given(arrays(), st.integers(0, 2**32), st.sampled_from(["auto", "xor", "arithmetic"]))
def test_delta(x: np.ndarray[Any, Any], seed: int, mode: str) -> None:
    row = dtypes.of(x.dtype)
    raw = np.random.default_rng(seed).integers(0, 256, x.nbytes, dtype=np.uint8).tobytes()
    round_trip(delta, delta.Delta(mode), x, from_bytes(raw, row, x.shape))
    same = round_trip(delta, delta.Delta(mode), x, x.copy())
    assert not same.streams[0].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_delta_counts_steps_across_zero(dtype: Any) -> None:
    base = np.array([1, -1, 0, -0.0, 2.5, -7], dtype)
    up, down = np.nextafter(base, dtype(9)), np.nextafter(base, dtype(-9))
    arithmetic = delta.Delta("arithmetic")
    # -0.0 comes right before 0.0, so next to a zero one step of nextafter may be two of ours.
    assert arithmetic.encode(up, base).streams[0].tolist() == [2, 2, 2, 4, 2, 2]
    assert arithmetic.encode(down, base).streams[0].tolist() == [1, 1, 3, 1, 1, 1]


def test_delta_chooses() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0, 0.02, 100_000).astype(dtypes.of("BF16").dtype)
    near = (base.view(np.uint16) + rng.integers(-1, 2, base.size).astype(np.uint16)).view(base.dtype)
    assert delta.Delta().encode(near, base).wire.mode == 1
    flipped = (base.view(np.uint16) ^ np.uint16(0x0400)).view(base.dtype)
    assert delta.Delta().encode(flipped, base).wire.mode == 0


def test_delta_refuses() -> None:
    x = np.zeros((2, 3), np.float32)
    for refs in ((), (x, x), (x.astype(np.float64),), (x.T.copy(),)):
        with pytest.raises(ArgumentError):
            delta.Delta().encode(x, *refs)
    words, out = np.zeros((2, 3), np.uint32), np.empty_like(x)
    bad: list[Any] = [(2, (words,), (x,)), (-1, (words,), (x,)), (0, (), (x,)), (0, (words,), ())]
    bad += [(0, (words[:1],), (x,)), (0, (words.astype(np.uint64),), (x,)), (1, (words,), (x[:1],))]
    for mode, streams, refs in bad:
        with pytest.raises(FrameError):
            delta.decode(delta.DeltaWire(mode), streams, refs, out)
    four = np.zeros(2, dtypes.of("U4").dtype)
    with pytest.raises(FrameError):
        delta.decode(delta.DeltaWire(0), (np.full(2, 16, np.uint8),), (four,), four.copy())


# bitpack


@given(st.integers(0, 8), st.integers(0, 200), st.integers(0, 2**32))
def test_bitpack(width: int, size: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 1 << (width or 3), size, dtype=np.uint8)
    encoded = round_trip(bitpack, bitpack.Bitpack(width), x)
    used = encoded.wire.width
    bits = ((x[:, None] >> np.arange(used, dtype=np.uint8)) & 1).reshape(-1)
    assert (np.packbits(bits, bitorder="little") == encoded.streams[0]).all()
    if size > 1:
        round_trip(bitpack, bitpack.Bitpack(width), x.reshape(1, -1, 1))
        round_trip(bitpack, bitpack.Bitpack(width), x[:1].reshape(()))


def test_bitpack_from_any_address() -> None:
    x = np.arange(1000, dtype=np.uint8)[3:] % np.uint8(16)
    packed = round_trip(bitpack, bitpack.Bitpack(), x).streams[0]
    moved, out = np.empty(packed.size + 1, np.uint8), np.empty(1000, np.uint8)[3:]
    moved[1:] = packed
    bitpack.decode(bitpack.BitpackWire(4), (moved[1:],), (), out)
    assert (out == x).all()


def test_bitpack_refuses() -> None:
    with pytest.raises(ArgumentError):
        bitpack.Bitpack(3).encode(np.array([8], np.uint8))
    out = np.empty(3, np.uint8)
    for width, packed in ((0, [0]), (9, [0] * 4), (-1, [0]), (4, [0]), (4, [0, 0, 0]), (4, [0, 16]), (1, [8])):
        with pytest.raises(FrameError):
            bitpack.decode(bitpack.BitpackWire(width), (np.array(packed, np.uint8),), (), out)


# scales


@given(arrays([dtypes.of("U8")]), st.integers(1, 32))
def test_scales(x: np.ndarray[Any, Any], resolution: int) -> None:
    row, column, values = round_trip(scales, scales.Scales(resolution), x).streams
    assert values is x
    assert np.broadcast_shapes(row.shape, column.shape) in (x.shape, (1,) * x.ndim)
    assert max(row.max(initial=0), column.max(initial=0)) <= 63


def test_scales_find_levels_past_zeros() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 8, (30, 1, 1)), rng.integers(0, 8, (1, 5, 6))
    x = (100 + rows + columns).astype(np.uint8)
    x[rng.random(x.shape) < 0.05] = 0
    x[3] = 0
    row, column, _ = scales.Scales().encode(x).streams
    there = x[x != 0].astype(int)
    level = (row.astype(int) + column)[x != 0] / 4
    assert np.std(there - level) < 0.2


def test_scales_cut_outliers_not_the_rest() -> None:
    x = np.full((100, 4), 120, np.uint8)
    x[0], x[1] = 1, 255
    x[50:] = 121
    row = scales.Scales().encode(x).streams[0].reshape(-1)
    assert row[0] == 0
    assert row[1] == 63
    assert row[60] - row[40] == 4


def test_scales_refuse() -> None:
    x = np.ones((2, 3), np.uint8)
    row, column, values = scales.Scales().encode(x).streams
    for streams in ((row, column), (column, row, values), (row, column, values[:1]), (row[:1], column, values)):
        with pytest.raises(FrameError):
            scales.decode(Empty(), streams, (), np.empty_like(x))


# kernels


class Recorder:
    """Run a kernel compiled and as plain Python on the same arrays, and compare all they leave."""

    def __init__(self, kernel: Kernel, seen: set[str]) -> None:
        self.kernel, self.seen = kernel, seen

    def __call__(self, *args: Any) -> Any:
        twins = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
        with np.errstate(over="ignore"):
            expected = self.kernel.python(*twins)
        result = self.kernel(*args)
        assert expected == result
        for arg, twin in zip(args, twins, strict=True):
            assert not isinstance(arg, np.ndarray) or arg.tobytes() == twin.tobytes()
        self.seen.add(self.kernel.signature + self.kernel.__name__)
        return result


def test_kernels_compute_the_same_compiled_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel, through its codec, on all types."""
    seen: set[str] = set()
    wanted = set()
    for module in KERNEL_MODULES:
        for name, value in list(vars(module).items()):
            found = (
                {None: value}
                if isinstance(value, Kernel)
                else value
                if name in ("ADD", "SUBTRACT", "SPLIT", "MERGE")
                else {}
            )
            for key, kernel in found.items():
                wanted.add(kernel.signature + kernel.__name__)
                if key is None:
                    monkeypatch.setattr(module, name, Recorder(kernel, seen))
                else:
                    monkeypatch.setitem(value, key, Recorder(kernel, seen))
    fast = {key: tuple(Recorder(kernel, seen) for kernel in pair) for key, pair in planes._FAST.items()}
    monkeypatch.setattr(planes, "_FAST", fast)
    monkeypatch.setattr(planes, "_PACKED", {key: Recorder(loop, seen) for key, loop in planes._PACKED.items()})
    packers = {width: tuple(Recorder(kernel, seen) for kernel in pair) for width, pair in bitpack_kernels._FAST.items()}
    monkeypatch.setattr(bitpack_kernels, "_FAST", packers)

    @settings(max_examples=60)
    @given(arrays())
    def everything(x: np.ndarray[Any, Any]) -> None:
        round_trip(planes, planes.Planes(), x)
        round_trip(runs, runs.Runs(5), x)
        round_trip(delta, delta.Delta("arithmetic"), x, x[::-1].copy() if x.ndim else x)
        words = x.reshape(-1).view(np.uint8)
        round_trip(scales, scales.Scales(), words.reshape(4, -1) if words.size % 4 == 0 else words)
        for width in (2, 3, 4, 5):
            round_trip(bitpack, bitpack.Bitpack(width), words & np.uint8((1 << width) - 1))
        if dtypes.of(x.dtype).kind in "fc":
            round_trip(narrow, narrow.Narrow(), x)
        if x.dtype.itemsize == 2:
            for widths in ((8, 4, 4), (5, 3, 8), (5, 4, 7)):
                round_trip(planes, planes.Planes(widths), x)
            round_trip(planes, planes.Planes((5, 3, 8), 3), x)

    everything()
    mixed = np.stack([wide_half()[1][::97], np.arange(676, dtype=np.uint32)]).view(np.float32)
    round_trip(narrow, narrow.Narrow(), mixed)
    round_trip(narrow, narrow.Narrow(), np.where(np.isnan(mixed), np.float32(1), mixed).astype(np.float64))
    for dtype in (np.uint8, np.float16, np.float32, np.float64):
        x = np.arange(200).astype(dtype)
        round_trip(planes, planes.Planes(), x)
        round_trip(bitpack, bitpack.Bitpack(3), x.astype(np.uint8) & np.uint8(7))
        round_trip(delta, delta.Delta("arithmetic"), x, x[::-1].copy())
    for dtype, widths in (
        (np.uint8, (3, 5)),
        (np.int16, (5, 6, 5)),
        (np.float32, (8, 4, 5, 7, 8)),
        (np.float32, (8, 4, 4, 8, 8)),
        (np.uint64, (8,) * 8),
    ):
        round_trip(planes, planes.Planes(widths), np.arange(200).astype(dtype))
    for widths in ((8, 4, 4), (5, 3, 8), (5, 4, 7)):
        round_trip(planes, planes.Planes(widths), np.arange(200, dtype=np.uint16))
    round_trip(planes, planes.Planes((5, 3, 8), 3), np.arange(2500, dtype=np.uint16))
    assert wanted == seen


def test_a_symbol_that_is_most_of_them_is_not_left_to_huffman() -> None:
    rng = np.random.default_rng(3)
    values = np.append(0, rng.normal(size=16)).astype(np.float32)
    x = values[rng.integers(0, 17, (300, 200)) * (rng.random((300, 200)) < 0.1)]
    shares = np.unique(x, return_counts=True)[1] / x.size
    assert 8 * len(featherweight.encode(x, "lossless")) / x.size < 1.05 * -(shares * np.log2(shares)).sum() + 0.02
