"""Filters of what is not zero, `bloomier` and `ribbon`, and look-ups of single elements."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featherweight as fw
from featherweight import kernel
from featherweight.codecs import bloomier, kmeans, ribbon
from featherweight.codecs._kernels import bloomier as bloomier_kernels
from featherweight.codecs._kernels import ribbon as ribbon_kernels
from featherweight.dtypes import Array
from featherweight.stage import Codec, Edge, Empty, Encoded, Port, Spec, chain
from featherweight.testing import Case, Sealed, arrays, cases, hostile_frames, same, shapes

pytestmark = pytest.mark.filterwarnings("error")

MODULES = {"bloomier": bloomier, "ribbon": ribbon}
STAGES = {"bloomier": bloomier.Bloomier, "ribbon": ribbon.Ribbon}
TOP = (1 << 64) - 1


def index(count: int, share: float, codes: int, seed: int = 0) -> Array:
    """Return `count` numbers, a share of them drawn from 1 … codes, the others 0."""
    rng = np.random.Generator(np.random.Philox(seed))
    kind = np.uint8 if codes < 256 else np.uint16
    return np.where(rng.random(count) < share, rng.integers(1, codes + 1, count), 0).astype(kind)


def through(stage: Any, x: Array) -> Array:
    wire, streams = stage.encode(x)
    out = np.full(x.shape, 85, np.uint8).astype(x.dtype)
    stage.codec.decode(wire, streams, (), out)
    return out


# The norm, in Python's integers.


def random(seed: int, i: int) -> int:
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & TOP
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & TOP
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & TOP
    return z ^ (z >> 31)


def bloomier_at(wire: bloomier.BloomierWire, streams: tuple[Array, ...], v: int) -> int:
    if not wire.codes:
        return 0
    table, third = sum(stream.astype(int) << 8 * i for i, stream in enumerate(streams)).tolist(), streams[0].size // 3
    k = random(wire.seed, 0)
    a, b = random(k, 2 * v), random(k, 2 * v + 1)
    halves = a >> 32, a % 2**32, b >> 32
    cells = [i * third + (half * third >> 32) for i, half in enumerate(halves)]
    y = (b ^ table[cells[0]] ^ table[cells[1]] ^ table[cells[2]]) % 2**wire.bits
    return y + 1 if y < wire.codes else 0


def ribbon_at(wire: ribbon.RibbonWire, streams: tuple[Array, ...], v: int) -> int:
    words, levels = streams[0].tolist(), streams[1].view(np.uint8).tolist()
    for layer, blocks in enumerate(wire.layers):
        table, words = words[: blocks * wire.bits], words[blocks * wire.bits :]
        own, levels = levels[: math.ceil((64 * blocks - 63) / 128)], levels[math.ceil((64 * blocks - 63) / 128) :]
        if not blocks:
            continue
        k = random(wire.seed, layer)
        a, c = random(k, 2 * v), random(k, 2 * v + 1) | 1
        s = (a >> 32) * (64 * blocks - 63) >> 32
        if s % 128 < (0, 20, 56, 128)[own[s // 128]]:
            continue
        y = a % 2**wire.bits
        for i in range(64):
            for j in range(wire.bits):
                if c >> i & 1 and table[(s + i) // 64 * wire.bits + j] >> (s + i) % 64 & 1:
                    y ^= 1 << j
        return y + 1 if y < wire.codes else 0
    return 0


NORM: dict[str, Callable[..., int]] = {"bloomier": bloomier_at, "ribbon": ribbon_at}


@pytest.mark.parametrize(("count", "share", "codes", "bits"), [(700, 0.3, 15, 8), (900, 0.9, 300, 13), (64, 1.0, 1, 1)])
@pytest.mark.parametrize("name", STAGES)
def test_decoding_is_what_the_norm_says(name: str, count: int, share: float, codes: int, bits: int) -> None:
    x = index(count, share, codes)
    stage = STAGES[name](bits)
    wire, streams = stage.encode(x)
    assert [NORM[name](wire, streams, v) for v in range(count)] == through(stage, x).tolist()


@pytest.mark.parametrize("name", STAGES)
def test_kernels_do_the_same_uncompiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = index(400, 0.5, 15)
    stage = STAGES[name](11, seed=5)
    wire, streams = stage.encode(x)
    out = through(stage, x)
    home = {"bloomier": bloomier_kernels, "ribbon": ribbon_kernels}[name]
    for key, value in vars(home).items():
        if isinstance(value, kernel.Kernel):
            monkeypatch.setattr(home, key, kernel._interpret(value.python))
    again = stage.encode(x)
    assert wire == again.wire
    assert all(map(same, streams, again.streams))
    assert same(out, through(stage, x))


# What comes back


@given(
    st.sampled_from(sorted(STAGES)),
    st.integers(0, 3000),
    st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
    st.sampled_from([1, 2, 15, 16, 255, 256, 65535]),
    st.integers(0, 9),
    st.integers(0, 1 << 32),
)
def test_what_is_not_zero_comes_back_and_zeros_become_codes(
    name: str, count: int, share: float, codes: int, extra: int, seed: int
) -> None:
    x = index(count, share, codes, seed)
    out = through(STAGES[name](extra=extra, seed=seed), x)
    assert (out[x > 0] == x[x > 0]).all()
    assert int(out.max(initial=0)) <= int(x.max(initial=0))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("name", STAGES)
def test_every_unsigned_type_passes(name: str, kind: type) -> None:
    x = index(6000, 0.2, 200).astype(kind).reshape(60, 100)
    out = through(STAGES[name](16), x)
    assert out.dtype == kind
    assert (out[x > 0] == x[x > 0]).all()


@pytest.mark.parametrize("name", STAGES)
def test_extremes(name: str) -> None:
    stage = STAGES[name]
    for x in (np.uint8([]), np.zeros((4, 0, 2), np.uint8), np.zeros((30, 40), np.uint16), np.array(0, np.uint8)):
        assert same(x, through(stage(), x))
    assert through(stage(), np.array(7, np.uint8)) == 7
    full = np.random.Generator(np.random.Philox(1)).integers(1, 256, (50, 70), np.uint8)
    assert same(full, through(stage(8), full))
    wide = np.arange(65536, dtype=np.uint16)
    assert same(wide[1:], through(stage(16), wide)[1:])


@pytest.mark.parametrize("bits", [6, 7, 8, 9, 11, 14])
@pytest.mark.parametrize("codes", [15, 16])
@pytest.mark.parametrize("name", STAGES)
def test_zeros_are_lost_at_the_rate_of_theory_and_become_any_code(name: str, codes: int, bits: int) -> None:
    x = index(400_000, 0.05, codes, seed=bits)
    false = through(STAGES[name](bits), x)[x == 0]
    zeros, rate = false.size, codes / 2**bits
    assert abs((false > 0).sum() - rate * zeros) < 5 * math.sqrt(zeros * rate * (1 - rate))
    each = np.bincount(false, minlength=codes + 1)[1:]
    chi = ((each - zeros / 2**bits) ** 2).sum() / (zeros / 2**bits)
    assert chi < codes + 5 * math.sqrt(2 * codes) + 10


@given(st.sampled_from(sorted(STAGES)), st.integers(0, 1 << 32), st.integers(1, 40), st.integers(1, 12))
def test_the_rate_holds_for_few_keys_too(name: str, seed: int, keys: int, bits: int) -> None:
    x = np.zeros(20_000, np.uint8)
    x[np.arange(keys) * 11 + seed % 1000] = 1
    false = through(STAGES[name](bits, seed=seed), x)[x == 0]
    rate = 2.0**-bits
    assert abs((false > 0).sum() - rate * false.size) < 7 * math.sqrt(false.size * rate) + 7


# Sizes


@pytest.mark.parametrize(("keys", "most"), [(1000, 1.27), (10_000, 1.24), (200_000, 1.23)])
def test_a_bloomier_filter_takes_little_more_cells_than_can_be_peeled(keys: int, most: float) -> None:
    x = np.zeros(keys * 10, np.uint8)
    x[np.random.Generator(np.random.Philox(3)).choice(x.size, keys, replace=False)] = 1
    (table,) = bloomier.Bloomier(8).encode(x).streams
    assert 1.2 < table.size / keys < most


@pytest.mark.parametrize("bits", [6, 14])
@pytest.mark.parametrize(("keys", "most"), [(10_000, 1.03), (30_000, 1.015), (200_000, 1.01)])
def test_a_ribbon_with_its_frame_costs_few_percent_beyond_its_bits(keys: int, most: float, bits: int) -> None:
    x = np.zeros(keys * 10, np.uint8)
    x[np.random.Generator(np.random.Philox(keys)).choice(x.size, keys, replace=False)] = 7
    frame = fw.encode(x, f"ribbon({bits})")
    assert 1 <= 8 * len(frame) / (bits * keys) < most


@pytest.mark.parametrize("bits", [8, 11])
def test_an_entropy_coder_takes_the_free_cells_out(bits: int) -> None:
    x = index(400_000, 0.05, 15)
    keys = np.count_nonzero(x)
    ways = "table=bitpack, high=bitpack", "table=rans, high=rans(given=table)"
    packed, coded = (len(fw.encode(x, f"bloomier({bits}, {way})")) * 8 / keys for way in ways)
    # A fifth of the cells is free; to tell which costs the entropy of that, and the others hold all their bits.
    free = 1 - 1 / 1.2235
    told = 1.2235 * -(free * math.log2(free) + (1 - free) * math.log2(1 - free))
    assert packed == pytest.approx(1.2235 * bits, rel=0.01)
    assert coded == pytest.approx(bits + told, rel=0.02)


# Bad input


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_build_refuses_what_is_no_function(module: Any) -> None:
    with pytest.raises(fw.ArgumentError, match="twice"):
        module.build([3, 5, 3], [0, 1, 0], 8)
    with pytest.raises(fw.ArgumentError, match="do not fit in 4 bits"):
        module.build([3, 5], [0, 16], 4)
    with pytest.raises(fw.ArgumentError, match="do not fit"):
        module.build([3, 5], [0, -1], 4)
    for positions, values in (([1, 2], [0]), ([0.5], [1]), ([[1]], [[1]])):
        with pytest.raises(fw.ArgumentError, match="as many"):
            module.build(positions, values, 8)
    for positions, bits, seed in (([-1], 8, 0), ([1 << 62], 8, 0), ([1], 0, 0), ([1], 17, 0), ([1], 8, 1 << 64)):
        with pytest.raises(fw.ArgumentError, match="expected 1 to 16"):
            module.build(positions, [0], bits, seed)


@given(st.dictionaries(st.integers(0, (1 << 62) - 1), st.integers(0, 31), max_size=200), st.integers(0, TOP))
def test_build_takes_any_positions(function: dict[int, int], seed: int) -> None:
    keys = np.array(list(function), np.uint64)
    values = np.array(list(function.values()), np.uint16)
    out = np.empty(keys.size, np.uint16)
    bloomier.evaluate(bloomier.build(keys, values, 9, seed), 9, 32, keys, out)
    assert out.tolist() == [value + 1 for value in function.values()]
    ribbon.evaluate(ribbon.build(keys, values, 9, seed), seed, 9, 32, keys, out)
    assert out.tolist() == [value + 1 for value in function.values()]


def test_keys_that_were_made_to_collide_only_cost_other_seeds() -> None:
    third = -(-(100 * 12225 // 10000 + 2 * 10 // 5) // 3)
    positions = [v for v in range(9000) if (random(random(0, 0), 2 * v) >> 32) * third >> 32 == 7][:100]
    found = bloomier.build(positions, np.arange(100), 9)
    assert found.seed > 0
    out = np.empty(100, np.uint16)
    bloomier.evaluate(found, 9, 100, np.array(positions, np.uint64), out)
    assert out.tolist() == list(range(1, 101))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_refuses_what_does_not_fit(name: str) -> None:
    with pytest.raises(fw.ArgumentError, match="200 codes need 8"):
        STAGES[name](7).encode(np.array([0, 200], np.uint8))
    with pytest.raises(fw.ArgumentError, match="65536"):
        STAGES[name]().encode(np.array([0, 65536], np.uint32))


@pytest.mark.parametrize(
    ("wire", "sizes"),
    [
        (bloomier.BloomierWire(-1, 8, 3), (6,)),
        (bloomier.BloomierWire(1 << 64, 8, 3), (6,)),
        (bloomier.BloomierWire(0, 0, 1), (6,)),
        (bloomier.BloomierWire(0, 17, 1), (6, 6)),
        (bloomier.BloomierWire(0, 8, -1), (6,)),
        (bloomier.BloomierWire(0, 8, 257), (6,)),
        (bloomier.BloomierWire(0, 8, 256), (6,)),
        (bloomier.BloomierWire(0, 8, 0), (6,)),
        (bloomier.BloomierWire(0, 8, 3), (0,)),
        (bloomier.BloomierWire(0, 8, 3), (5,)),
        (bloomier.BloomierWire(0, 8, 3), (6, 6)),
        (bloomier.BloomierWire(0, 9, 3), (6,)),
        (bloomier.BloomierWire(0, 9, 3), (6, 3)),
    ],
)
def test_a_hostile_filter_is_refused(wire: bloomier.BloomierWire, sizes: tuple[int, ...]) -> None:
    with pytest.raises(fw.FrameError):
        bloomier.decode(wire, tuple(np.zeros(size, np.uint8) for size in sizes), (), np.empty(9, np.uint8))


@pytest.mark.parametrize(
    ("wire", "words", "levels"),
    [
        (ribbon.RibbonWire(-1, 2, 3, (1,)), 2, 1),
        (ribbon.RibbonWire(0, 0, 1, (1,)), 0, 1),
        (ribbon.RibbonWire(0, 17, 1, (1,)), 17, 1),
        (ribbon.RibbonWire(0, 2, 5, (1,)), 2, 1),
        (ribbon.RibbonWire(0, 9, 256, (1,)), 9, 1),
        (ribbon.RibbonWire(0, 2, 3, (2,)), 2, 1),
        (ribbon.RibbonWire(0, 2, 3, (1,)), 2, 2),
        (ribbon.RibbonWire(0, 2, 3, (2, -1)), 2, 1),
        (ribbon.RibbonWire(0, 2, 3, (1 << 60,)), 2, 1),
        (ribbon.RibbonWire(0, 2, 3, (0,) * 65), 0, 0),
    ],
)
def test_a_hostile_ribbon_is_refused(wire: ribbon.RibbonWire, words: int, levels: int) -> None:
    streams = np.zeros(words, np.uint64), np.zeros(levels, np.uint8)
    with pytest.raises(fw.FrameError):
        ribbon.decode(wire, streams, (), np.empty(9, np.uint8))
    with pytest.raises(fw.FrameError):
        ribbon.decode(wire, streams[:1], (), np.empty(9, np.uint8))


def test_what_every_layer_bumps_is_zero() -> None:
    wire = ribbon.RibbonWire(0, 2, 3, (1, 0, 1))
    out = np.full(99, 9, np.uint8)
    ribbon.decode(wire, (np.full(4, TOP, np.uint64), np.array([3, 3], np.uint8)), (), out)
    assert not out.any()


# Look-ups

LAYER = "kmeans(16, zero=true, index={})"


def layer(*shape: int) -> Array:
    rng = np.random.Generator(np.random.Philox(2))
    x = rng.standard_normal(shape).astype(np.float32)
    x[abs(x) < 1.6] = 0
    return x


RECIPES = [
    "raw",
    "lossless",
    LAYER.format("bloomier(8)"),
    LAYER.format("bloomier(8, table=rans)"),
    LAYER.format("ribbon(9)"),
    LAYER.format("split(ribbon(9), 5000)"),
    "split(kmeans(16, zero=true, index=bloomier(table=huffman, high=rans)), 3001)",
    "split(planes(exponent=huffman), 999)",
    "planes(exponent=huffman, mantissa=split(rans(given=exponent), 700))",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_look_up_gives_what_decoding_gives(recipe: str) -> None:
    x = layer(70, 300)
    frame = fw.encode(x, recipe)
    whole = fw.decode(frame)
    rng = np.random.Generator(np.random.Philox(4))
    positions = rng.integers(0, x.size, (3, 40))
    reader = fw.Lookup.of(frame)
    assert (reader.dtype, reader.shape) == (x.dtype, x.shape)
    for _ in range(2):
        assert same(whole.reshape(-1)[positions], reader.at(positions))
    rows, columns = rng.integers(0, 70, (5, 1)), rng.integers(0, 300, 6)
    assert same(whole[rows, columns], reader.at((rows, columns)))
    assert same(whole[3, 9], fw.lookup(frame, (3, 9)))
    assert same(whole.reshape(-1)[positions - x.size], reader.at(positions - x.size))
    assert same(whole[rows - 70, columns - 300], reader.at((rows - 70, columns - 300)))
    assert same(whole.reshape(-1)[[7, 7, 0]], fw.lookup(frame, [7, 7, 0]))
    assert fw.lookup(frame, []).shape == (0,)


@settings(max_examples=25)
@given(cases(arrays(shape=shapes(most=256)), depth=2), st.integers(0, 1 << 32))
def test_a_look_up_in_any_frame_gives_what_decoding_gives(case: Case, seed: int) -> None:
    frame = fw.encode(case.x, case.recipe, refs=case.refs, threads=1)
    whole = fw.decode(frame, refs=case.refs, threads=1)
    positions = np.random.Generator(np.random.Philox(seed)).integers(0, max(1, whole.size), 9)[: whole.size]
    assert same(whole.reshape(-1)[positions], fw.lookup(frame, positions, refs=case.refs))


@given(hostile_frames())
def test_a_look_up_in_a_hostile_frame_raises_only_our_errors(frame: Sealed) -> None:
    def tried(work: Callable[[], Array]) -> Array | None:
        try:
            return work()
        except fw.FeatherweightError:
            return None

    options = {"refs": frame.refs, "codecs": frame.codecs, "max_bytes": 1 << 26}
    whole = tried(lambda: fw.decode(frame.data, threads=1, **options))
    found = tried(lambda: fw.lookup(frame.data, [0], **options))
    if whole is not None and whole.size:
        assert found is not None
        assert same(whole.reshape(-1)[:1], found)


@pytest.mark.parametrize(
    "positions", [[-70 * 300 - 1], [70 * 300], [3, 1 << 40], (70, 0), (0, -301), (1,), (1, 2, 3), ([1, 2], [1, 2, 3])]
)
@pytest.mark.parametrize("recipe", ["raw", LAYER.format("ribbon")])
def test_positions_outside_are_refused(recipe: str, positions: Any) -> None:
    frame = fw.encode(layer(70, 300), recipe)
    with pytest.raises(fw.ArgumentError, match=r"outside|dimensions|together"):
        fw.lookup(frame, positions)


def test_positions_are_integers() -> None:
    with pytest.raises(fw.ArgumentError, match="integers"):
        fw.lookup(fw.encode(layer(7, 9), "raw"), [0.5])
    assert fw.lookup(fw.encode(np.array(2.5), "raw"), ()) == 2.5
    with pytest.raises(fw.ArgumentError, match="outside"):
        fw.lookup(fw.encode(np.zeros((0, 3)), "raw"), 0)


def test_a_file_gives_elements_of_its_tensors(tmp_path: Path) -> None:
    x, y = layer(70, 300), layer(9, 5)
    path = tmp_path / "x.fw"
    fw.save_file({"x": x, "y": y}, path, fw.Plan.of(LAYER.format("ribbon"), rules=["y=raw"]))
    with fw.open(path) as file:
        held = np.flatnonzero(x)[5:9]
        assert same(file["x"].reshape(-1)[held], file.lookup("x").at(held))
        assert file.lookup("y").at((3, 4)) == y[3, 4]
        with pytest.raises(KeyError):
            file.lookup("z")
    np.savez(tmp_path / "x.npz", x=x)
    with fw.open(tmp_path / "x.npz") as file, pytest.raises(fw.ArgumentError, match="look-ups"):
        file.lookup("x")


def _refuse(*_: Any) -> None:
    raise AssertionError("all of it was decoded")


def renamed(stage: type, name: str) -> Any:
    """Return the stage under another name."""
    return type(name, (stage,), {"codec": dataclasses.replace(stage.codec, name=name)})  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STAGES)
def test_a_look_up_decodes_no_index(name: str) -> None:
    x = layer(70, 300)
    index, values = renamed(STAGES[name], "asked"), renamed(kmeans.KMeans, "book")
    frame = fw.encode(x, chain(values(16, zero=True), index=index(8)))
    # They can be asked, but not decode.
    known = {each.codec.name: dataclasses.replace(each.codec, decode=_refuse) for each in (index, values)}
    held = np.flatnonzero(x)[:50]
    found = fw.lookup(frame, held, codecs=known)
    plain = fw.decode(fw.encode(x, "kmeans(16, zero=true)"))
    assert same(plain.reshape(-1)[held], found)
    with pytest.raises(AssertionError, match="all of it"):
        fw.decode(frame, codecs=known)


def test_only_pieces_that_are_asked_for_are_read() -> None:
    x = layer(70, 300)
    frame = fw.encode(x, "split(raw, 3000)")
    damaged = bytearray(frame)
    damaged[-1] ^= 1
    assert same(x.reshape(-1)[:9], fw.lookup(damaged, np.arange(9)))
    with pytest.raises(fw.FrameError, match="checksum"):
        fw.lookup(damaged, [x.size - 1])


def test_codecs_that_ask_one_another_without_end_are_decoded() -> None:
    def copy(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
        out[...] = streams[0]

    def asked(wire: Empty, streams: tuple[Edge, ...], given: tuple[Edge, ...], spec: Spec, at: Array) -> Array:
        depths.append(streams)
        return streams[0].at(at)

    depths: list[Any] = []

    @dataclasses.dataclass(frozen=True)
    class Echo:
        codec = Codec("echo", Empty, Port("values"), (Port("values"),), copy, at=asked)

        def encode(self, x: Array, /, *given: Array) -> Encoded:
            return Encoded(Empty(), (x,))

        def error_bound(self, x: Array, /) -> float:
            return 0.0

    recipe = chain(Echo())
    for _ in range(200):
        recipe = chain(Echo(), values=recipe)
    x = layer(7, 30)
    frame = fw.encode(x, recipe)
    assert same(x.reshape(-1)[[5]], fw.lookup(frame, [5], codecs={"echo": Echo.codec}))
    assert 1 < len(depths) < 200
