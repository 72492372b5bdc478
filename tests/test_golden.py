"""Committed frames: what was once written is read for ever.

``pytest --write-golden`` writes the frames of new cases and nothing else; a frame that is there is never written again.
`golden.json` says of each what it must decode to, and which version wrote it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import featherweight
from featherweight import codecs, dtypes
from featherweight.dtypes import Array
from featherweight.testing import same

HOME = Path(__file__).parent / "golden"


def noise(count: int, seed: int = 0) -> Array:
    """Return pseudo-random u64 (splitmix64), the same on every machine and with every NumPy."""
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def places(columns: int) -> list[Array]:
    """Return scales of columns and of places in a filter for two blocks of rows."""
    place = np.exp2(np.arange(9, dtype=np.float32)).reshape(3, 3)
    column = np.exp2(np.arange(columns, dtype=np.float32) % 4).reshape(columns, 1, 1)
    return [place * column, place * column[::-1]]


def bits(kind: str, *shape: int, seed: int = 0) -> Array:
    """Return an array of any bits of a type."""
    row = dtypes.of(kind)
    count = int(np.prod(shape)) * row.dtype.itemsize
    mask = 1 if row.kind == "b" else (1 << min(row.bits, 8)) - 1
    return (noise(count, seed) & np.uint64(mask)).astype(np.uint8).view(row.dtype).reshape(shape)


def weights(kind: str, *shape: int, seed: int = 0) -> Array:
    """Return numbers that look like weights, each exactly a multiple of 2^-20 before it is narrowed."""
    words = noise(int(np.prod(shape)), seed)
    sixteen = [(words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
    values = (sum(s.astype(np.int64) for s in sixteen) - 131070) / 2.0**20
    return values.astype(np.float32).astype(dtypes.of(kind).dtype).reshape(shape)


def sparse(kind: str, *shape: int) -> Array:
    x = weights(kind, *shape)
    x.reshape(-1)[100:900] = 0
    x.reshape(-1)[-50:] = 0
    return x


def skewed(*shape: int, seed: int = 0) -> Array:
    """Return bytes of geometric distribution."""
    words = noise(int(np.prod(shape)), seed)
    ones = [((words >> np.uint64(i)) & np.uint64(1)).astype(np.uint8) for i in range(12)]
    return np.cumprod(np.stack(ones), axis=0, dtype=np.uint8).sum(axis=0, dtype=np.uint8).reshape(shape)


def pruned(*shape: int) -> Array:
    """Return bytes below 16, seven eighths of them 0."""
    words = bits("U8", *shape, seed=5)
    return np.where(words < 32, words % 16, 0).astype(np.uint8)


def steps(kind: str, *shape: int, low: int, high: int) -> Array:
    """Return all multiples of 1/64 between two, over and over along rows."""
    every = (np.arange(shape[-1]) * 7 % (high - low + 1) + low) / 64
    return np.broadcast_to(every, shape).astype(dtypes.of(kind).dtype)


def ternary(kind: str, scale: float, *shape: int) -> Array:
    """Return numbers that are mostly 0, else plus or minus `scale`."""
    words = bits("U8", *shape, seed=6)
    return np.where(words < 8, scale, np.where(words > 240, -scale, 0)).astype(dtypes.of(kind).dtype)


def zero_runs() -> Array:
    """Return bytes below 243 with runs of 121 of every length up to 60 between them."""
    parts = [np.r_[np.full(n, 121), byte] for n, byte in enumerate((bits("U8", 60) % 243).tolist())]
    return np.concatenate(parts).astype(np.uint8)


def gaussian(kind: str, *shape: int) -> Array:
    """Return the four best levels for the normal distribution, each as often as there."""
    levels = np.array([-1583788, -474774, 474774, 1583788]) / 2.0**20
    places = np.searchsorted([-0.98, 0, 0.98], weights("F32", *shape).astype(np.float64) * 27.7)
    return levels[places].astype(np.float32).astype(dtypes.of(kind).dtype)


def small_integers(kind: str, *shape: int) -> Array:
    """Return numbers from 1 to 8, which survive the rounding of sums in a wider type."""
    return ((bits("U8", *shape, seed=8) & np.uint8(7)) + np.float32(1)).astype(dtypes.of(kind).dtype)


def changed(base: Array) -> Array:
    """Return the array with every 61st element one step further."""
    x = base.copy()
    x.view(f"u{x.dtype.itemsize}").reshape(-1)[::61] += 1
    return x


def walk(kind: str, *shape: int, paths: int) -> Array:
    """Return points that a trellis of 8 states reaches."""
    nexts = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))
    indices = skewed(int(np.prod(shape))).astype(int) * np.where(bits("BOOL", int(np.prod(shape)), seed=5), 1, -1)
    states, points = [0] * paths, []
    for i, k in enumerate(indices.tolist()):
        state = states[i % paths]
        points.append(2 * k - (state & 1) * ((k > 0) - (k < 0)))
        states[i % paths] = nexts[state][k & 1]
    return np.array(points, dtypes.of(kind).dtype).reshape(shape)


class Golden(NamedTuple):
    """How a frame was made."""

    recipe: str
    array: Callable[[], Array]
    refs: Callable[[], dict[str, Array]] = dict


def base() -> dict[str, Array]:
    return {"base": weights("BF16", 40, 30, seed=3)}


def book() -> dict[str, Array]:
    return {"book": steps("F32", 17, low=-8, high=8)}


def small(kind: str) -> Golden:
    return Golden("raw", lambda: bits(kind, 3, 5, seed=7))


def lattice(parameters: str, kind: str, count: int) -> Golden:
    """Return a case of weights that lie on the points of a lattice."""
    recipe = f"lattice({parameters})"
    return Golden(recipe, lambda: featherweight.decode(featherweight.encode(weights(kind, count), recipe)))


# By name; the part before the first dash is the codec that the frame is for, or what else it shows.
CASES: dict[str, Golden] = {
    **{f"raw-{row.name.lower().replace('_', '')}": small(row.name) for row in dtypes.all_types()},
    "raw-scalar": Golden("raw", lambda: np.array(-0.0, np.float32)),
    "raw-empty": Golden("raw", lambda: np.zeros((3, 0, 2), np.int16)),
    "huffman-skewed": Golden("huffman", lambda: skewed(50, 70)),
    "huffman-flat": Golden("huffman", lambda: bits("U8", 5000)),
    "huffman-two": Golden("huffman", lambda: skewed(999) // 6),
    "huffman-one": Golden("huffman", lambda: np.full(77, 9, np.uint8)),
    "huffman-empty": Golden("huffman", lambda: np.zeros(0, np.uint8)),
    "huffman-large": Golden("huffman", lambda: skewed(70_000)),
    "huffman-six": Golden("huffman", lambda: skewed(70_001)),
    "rans-skewed": Golden("rans", lambda: skewed(50, 70)),
    "rans-flat": Golden("rans", lambda: bits("U8", 5000)),
    "rans-one": Golden("rans", lambda: np.full(77, 9, np.uint8)),
    "rans-empty": Golden("rans", lambda: np.zeros(0, np.uint8)),
    "rans-large": Golden("rans", lambda: skewed(70_000)),
    "rans-classes": Golden(
        "planes([8, 4, 4], exponent=rans, mantissa=rans(given=exponent))", lambda: weights("BF16", 60, 50)
    ),
    "planes-bf16": Golden("planes", lambda: bits("BF16", 30, 40)),
    "planes-f32": Golden("planes", lambda: bits("F32", 30, 40)),
    "planes-f64": Golden("planes", lambda: bits("F64", 30, 40)),
    "planes-c64": Golden("planes", lambda: bits("C64", 6, 7)),
    "planes-i32": Golden("planes", lambda: bits("I32", 6, 7)),
    "planes-u16": Golden("planes", lambda: bits("U16", 6, 7)),
    "planes-e4m3": Golden("planes([5, 3])", lambda: bits("F8_E4M3", 6, 7)),
    "planes-e8m0": Golden("planes", lambda: bits("F8_E8M0", 6, 7)),
    "planes-f4": Golden("planes", lambda: bits("F4", 6, 7)),
    "planes-844": Golden("planes([8, 4, 4])", lambda: bits("F16", 30, 40)),
    "planes-628": Golden("planes([6, 2, 8])", lambda: bits("F16", 30, 40)),
    "planes-packed": Golden("planes([6, 2, 8], packed=2)", lambda: bits("F16", 31, 41)),
    "planes-538": Golden("planes([5, 3, 8], packed=3)", lambda: bits("F16", 31, 41)),
    "planes-odd": Golden("planes([1, 5, 3, 7])", lambda: bits("BF16", 30, 40)),
    "narrow-bf16": Golden("narrow", lambda: weights("BF16", 20, 30).astype(np.float32)),
    "narrow-f16": Golden("narrow", lambda: weights("F16", 20, 30).astype(np.float32)),
    "narrow-rows": Golden(
        "narrow",
        lambda: np.concatenate(
            [weights("BF16", 5, 30).astype("f4"), weights("F16", 4, 30).astype("f4"), bits("F32", 3, 30)]
        ),
    ),
    "narrow-f64": Golden("narrow", lambda: np.concatenate([weights("F32", 5, 30).astype("f8"), bits("F64", 2, 30)])),
    "constant-c128": Golden("constant", lambda: np.full((5, 6), 1 - 2j)),
    "constant-nan": Golden("constant", lambda: np.full((5, 6), 0x7FC12345, np.uint32).view(np.float32)),
    "constant-empty": Golden("constant", lambda: np.zeros((0, 6), np.float16)),
    "runs-f32": Golden("runs", lambda: sparse("F32", 40, 30)),
    "runs-none": Golden("runs", lambda: weights("F16", 70)),
    "delta-xor": Golden("delta(xor, given=@base)", lambda: changed(base()["base"]), base),
    "delta-arithmetic": Golden("delta(arithmetic, given=@base)", lambda: changed(base()["base"]), base),
    "bitpack-five": Golden("bitpack", lambda: bits("U8", 30, 41) & np.uint8(31)),
    "bitpack-zero": Golden("bitpack", lambda: np.zeros(100, np.uint8)),
    "scales-exponents": Golden("scales", lambda: skewed(30, 40)),
    "gaps-f32": Golden("gaps", lambda: sparse("F32", 40, 30)),
    "gaps-fillers": Golden("gaps(3, gaps=bitpack(3), values=bitpack)", lambda: pruned(40, 30)),
    "gaps-c128": Golden("gaps(2)", lambda: sparse("C128", 40, 30)),
    "gaps-none": Golden("gaps", lambda: np.zeros(300, np.int16)),
    "sparse-bf16": Golden("sparse(mask=bitpack)", lambda: sparse("BF16", 40, 30)),
    "sparse-i4": Golden("sparse", lambda: (bits("U8", 9, 11) & np.uint8(1)).view(dtypes.of("I4").dtype)),
    "sparse-c128": Golden("sparse", lambda: sparse("C128", 40, 30)),
    "sparse-none": Golden("sparse", lambda: np.zeros((3, 5), np.float16)),
    "kmeans-f32": Golden("kmeans", lambda: steps("F32", 40, 30, low=-8, high=7)),
    "kmeans-bf16": Golden("kmeans(8, index=bitpack)", lambda: steps("BF16", 40, 30, low=-4, high=3)),
    "kmeans-zero": Golden("kmeans(zero=true, index=rans)", lambda: pruned(40, 30).astype(np.float16)),
    "kmeans-wide": Golden("kmeans(400, init=exact)", lambda: steps("F64", 1200, low=-200, high=199)),
    "kmeans-empty": Golden("kmeans", lambda: np.zeros((0, 3), np.float32)),
    "kmeans-given": Golden("kmeans(given=@book)", lambda: steps("F32", 40, 30, low=-8, high=7), book),
    "affine-channels": Golden("affine", lambda: steps("F32", 4, 300, low=-127, high=127)),
    "affine-tensor": Golden("affine(4, tensor, index=bitpack)", lambda: steps("BF16", 9, 50, low=-7, high=7)),
    "affine-groups": Golden("affine(3, group, 16, scale=f16)", lambda: steps("F16", 3, 2, 23, low=-3, high=3)),
    "affine-zeros": Golden("affine(symmetric=false)", lambda: steps("F32", 3, 300, low=-100, high=155)),
    "affine-one": Golden("affine(1, index=bitpack)", lambda: (bits("U8", 9, 50) & np.uint8(2)) - np.float32(1)),
    "affine-f64": Golden("affine", lambda: steps("F64", 300, low=-127, high=127) * 2.0**900),
    "affine-empty": Golden("affine", lambda: np.zeros((0, 3), np.float32)),
    "cast-bf16": Golden("cast(bf16)", lambda: weights("BF16", 90, 50).astype(np.float32)),
    "cast-f16": Golden("cast(f16)", lambda: weights("F16", 9, 50).astype(np.float64)),
    "cast-e4m3": Golden("cast(f8_e4m3)", lambda: steps("BF16", 90, 50, low=-15, high=15)),
    "cast-f4": Golden("cast(f4)", lambda: (bits("U8", 9, 11) & np.uint8(3)).astype(np.float16)),
    "palette-f32": Golden("palette", lambda: steps("F32", 40, 30, low=-8, high=7)),
    "palette-words": Golden("palette(index=bitpack)", lambda: bits("BF16", 7)[np.arange(300) % 7].reshape(20, 15)),
    "palette-empty": Golden("palette", lambda: np.zeros((0, 3), np.int64)),
    "uniform-f32": Golden("uniform(0.0078125)", lambda: steps("F32", 40, 30, low=-8, high=7) * np.float32(0.5)),
    "uniform-f64": Golden("uniform(0.046875)", lambda: steps("F64", 40, 30, low=-200, high=199) * 3),
    "uniform-bf16": Golden("uniform(0.015625, index=ggd)", lambda: steps("BF16", 40, 30, low=-8, high=7)),
    "uniform-empty": Golden("uniform(1)", lambda: np.zeros((0, 3), np.float32)),
    "ggd-skewed": Golden("ggd", lambda: skewed(50, 70).astype(np.int8) - np.int8(2)),
    "ggd-wide": Golden("ggd", lambda: bits("I16", 3000)),
    "ggd-pruned": Golden("ggd", lambda: pruned(150, 90).astype(np.int8)),
    "ggd-empty": Golden("ggd", lambda: np.zeros(0, np.int32)),
    "levels-index": Golden(
        "levels(values=uniform(0.015625, index=ggd(given=[row, column])))",
        lambda: steps("F32", 40, 30, low=-8, high=7) * np.arange(1, 41, dtype=np.float32)[:, None],
    ),
    "levels-blocks": Golden(
        "levels(blocks=2, values=uniform(0.015625, index=ggd(given=[row, column, place])))",
        lambda: np.concatenate([steps("F32", 8, 12, 3, 3, low=-8, high=7) * scale for scale in places(12)]),
    ),
    "trellis-f32": Golden("trellis(1, rate=0, index=ggd(8))", lambda: walk("F32", 40, 30, paths=16)),
    "trellis-large": Golden("trellis(1, rate=0, index=ggd(8))", lambda: walk("F32", 200, 300, paths=128)),
    "trellis-f16": Golden("trellis(1, rate=0)", lambda: walk("F16", 600, paths=16)),
    "lattice-z": Golden("lattice(z, 0.015625)", lambda: steps("F32", 9, 50, low=-99, high=99)),
    "lattice-common": lattice("step=0.01, dither=true, common=3", "F32", 400),
    "lattice-a2": lattice("a2, 0.02", "BF16", 401),
    "lattice-d4": lattice("d4, 0.02, true, 5", "F32", 403),
    "lattice-e8": lattice("e8, 0.01, true, 7", "F64", 404),
    "lattice-leech": lattice("leech, 0.0001, true", "F32", 600),
    "bzip2-bytes": Golden("bzip2", lambda: pruned(40, 30)),
    "bzip2-c128": Golden("bzip2", lambda: bits("C128", 3, 5)),
    "bzip2-empty": Golden("bzip2", lambda: np.zeros((0, 3), np.bool_)),
    "lzma-bytes": Golden("lzma", lambda: pruned(40, 30)),
    "lzma-i16": Golden("lzma(lc=3)", lambda: steps("F32", 40, 300, low=-99, high=99).astype(np.int16)),
    "zstd-bytes": Golden("zstd", lambda: pruned(40, 30)),
    "zstd-i16": Golden("zstd(3)", lambda: bits("I16", 9, 50)),
    "bloomier-sparse": Golden("bloomier(16)", lambda: skewed(30, 40)),
    "bloomier-full": Golden("bloomier(8, seed=7)", lambda: skewed(50, 70) + np.uint8(1)),
    "bloomier-u16": Golden(
        "bloomier(extra=0)", lambda: skewed(50, 70).astype(np.uint16) * np.uint16(99) + np.uint16(1)
    ),
    "bloomier-none": Golden("bloomier", lambda: np.zeros((3, 4), np.uint8)),
    "ribbon-sparse": Golden("ribbon(16)", lambda: skewed(30, 40)),
    "ribbon-full": Golden("ribbon(8, seed=7)", lambda: skewed(50, 170) + np.uint8(1)),
    "ribbon-u16": Golden("ribbon(extra=0)", lambda: skewed(50, 70).astype(np.uint16) * np.uint16(99) + np.uint16(1)),
    "ribbon-none": Golden("ribbon", lambda: np.zeros((3, 4), np.uint8)),
    "ternary-f32": Golden("ternary", lambda: ternary("F32", 0.3, 40, 30)),
    "ternary-f64": Golden("ternary(block=100)", lambda: ternary("F64", 1e300, 40, 33)),
    "ternary-bf16": Golden("ternary(values=rans)", lambda: ternary("BF16", 1e-38, 40, 30)),
    "ternary-parts": Golden(
        "ternary(given=@parts)",
        lambda: np.concatenate([ternary("F32", 2.0, 700), ternary("F32", 0.1, 500)]),
        lambda: {"parts": np.array([700, 0, 500], np.uint64)},
    ),
    "base3-rows": Golden("base3", lambda: bits("U8", 7, 11) % np.uint8(3)),
    "base3-empty": Golden("base3", lambda: np.zeros((0, 3), np.uint8)),
    "zero_run-runs": Golden("zero_run", zero_runs),
    "lloydmax-two": Golden("lloydmax(2, index=bitpack)", lambda: gaussian("F32", 30, 40)),
    "lloydmax-blocks": Golden("lloydmax(2, 256)", lambda: gaussian("F64", 600)),
    "density-pruned": Golden("density(50, density=rans, values=rans(given=density))", lambda: pruned(40, 31)),
    "recipe-3lc": Golden("ternary(values=base3(bytes=zero_run))", lambda: ternary("F32", 0.3, 40, 30)),
    "dct-filters": Golden("dct", lambda: small_integers("F16", 9, 8, 3, 3)),
    "dct-first": Golden("dct", lambda: small_integers("BF16", 5, 5, 4, 70)),
    "dct-blocks": Golden("dct(blocks, 8)", lambda: small_integers("F16", 21, 75)),
    "dct-row": Golden("dct(edge=16)", lambda: small_integers("F8_E4M3", 100)),
    "dct-empty": Golden("dct", lambda: np.zeros((0, 3), np.float32)),
    "hadamard-all": Golden("hadamard(7)", lambda: small_integers("F16", 40, 127)),
    "hadamard-axis": Golden("hadamard(18446744073709551615, axis=0)", lambda: small_integers("BF16", 100, 3)),
    "hadamard-blocks": Golden("hadamard(block=192, rounds=3)", lambda: small_integers("F8_E4M3", 999)),
    "hadamard-empty": Golden("hadamard", lambda: np.zeros((0, 3), np.float64)),
    "lowrank-matrix": Golden("lowrank(9)", lambda: small_integers("F16", 9, 8)),
    "lowrank-channel": Golden("lowrank(9, form=channel)", lambda: small_integers("BF16", 9, 8, 3, 3)),
    "lowrank-spatial": Golden("lowrank(24, type=bf16, remainder=true)", lambda: small_integers("F16", 9, 8, 3, 3)),
    "lowrank-depthwise": Golden("lowrank(9, form=depthwise)", lambda: small_integers("F16", 3, 3, 8, 9)),
    "lowrank-zero": Golden("lowrank(0)", lambda: np.zeros((4, 3), np.float32)),
    "recipe-lossless": Golden("lossless", lambda: weights("BF16", 100, 90)),
    "recipe-lossless-small": Golden("lossless-small", lambda: weights("BF16", 100, 90)),
    "recipe-lossless-f32": Golden("lossless", lambda: weights("F32", 100, 90)),
    "recipe-lossless-f16": Golden("lossless", lambda: weights("F16", 100, 90)),
    "recipe-lossless-delta": Golden("lossless-delta", lambda: changed(base()["base"]), base),
    "pieces-rows": Golden("split(planes(exponent=huffman), 700)", lambda: weights("F16", 50, 60)),
    "pieces-flat": Golden("split(planes(exponent=rans), 70)", lambda: weights("F16", 5, 100)),
    "pieces-given": Golden(
        "planes(exponent=huffman, mantissa=split(rans(given=exponent), 600))", lambda: weights("F16", 40, 50)
    ),
    "pieces-base": Golden(
        "split(delta(given=@base, difference=planes(exponent=runs)), 300)", lambda: changed(base()["base"]), base
    ),
}


def digest(x: Array) -> str:
    row = dtypes.of(x.dtype)
    elements = x.reshape(-1).view(np.uint8)
    packed = elements if row.bits >= 8 else dtypes.pack(elements, row.bits)
    return hashlib.sha256(f"{row.name}{list(x.shape)}".encode() + packed.tobytes()).hexdigest()


def index(home: Path = HOME) -> dict[str, dict[str, str]]:
    path = home / "golden.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_new_cases(home: Path) -> list[str]:
    """Write the frames of cases that have neither frame nor entry; return their names."""
    home.mkdir(exist_ok=True)
    known, written = index(home), []
    for name, case in CASES.items():
        path = home / f"{name}.fw"
        if path.exists() or name in known:
            continue
        x, refs = case.array(), case.refs()
        with path.open("xb") as file:
            file.write(featherweight.encode(x, case.recipe, refs=refs))
        known[name] = {"recipe": case.recipe, "version": featherweight.__version__, "sha256": digest(x)}
        written.append(name)
    (home / "golden.json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return written


@pytest.fixture(scope="module", autouse=True)
def _write(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden"):
        write_new_cases(HOME)


@pytest.mark.parametrize("name", CASES)
def test_a_golden_frame_decodes_to_what_it_was_made_of(name: str) -> None:
    path, case = HOME / f"{name}.fw", CASES[name]
    assert path.exists(), f"{name} has no frame: write it with --write-golden, once its format is settled"
    refs = case.refs()
    decoded = featherweight.decode(path.read_bytes(), refs=refs)
    assert index()[name]["sha256"] == digest(decoded)
    assert same(case.array(), decoded)


@pytest.mark.parametrize("name", codecs.names())
def test_every_codec_has_a_golden_frame_that_uses_it(name: str) -> None:
    frames = [featherweight.inspect(path.read_bytes()) for path in HOME.glob(f"{name}-*.fw")]
    programs = [program for frame in frames for program in (frame.root, *frame.branches)]
    used = {codecs.CODECS.get(node.codec) for program in programs for node in program.nodes}
    assert name in used, f"no golden frame uses {name}"


def test_frames_and_index_and_cases_name_the_same() -> None:
    assert sorted(CASES) == sorted(path.stem for path in HOME.glob("*.fw"))
    assert sorted(CASES) == sorted(index())


@pytest.mark.parametrize("name", CASES)
def test_a_case_still_encodes_and_comes_back(name: str) -> None:
    case = CASES[name]
    x, refs = case.array(), case.refs()
    assert same(x, featherweight.decode(featherweight.encode(x, case.recipe, refs=refs), refs=refs))


def test_a_frame_that_is_there_is_never_written_again(tmp_path: Path) -> None:
    assert list(CASES) == write_new_cases(tmp_path)
    first, second, *_ = CASES
    (tmp_path / f"{first}.fw").write_bytes(b"as it was")
    (tmp_path / f"{second}.fw").unlink()
    before = (tmp_path / "golden.json").read_text()
    assert [] == write_new_cases(tmp_path), "a frame that was lost is not made up"
    assert b"as it was" == (tmp_path / f"{first}.fw").read_bytes()
    assert before == (tmp_path / "golden.json").read_text()
    for name, case in CASES.items():
        if name not in (first, second):
            frame = (tmp_path / f"{name}.fw").read_bytes()
            assert index(tmp_path)[name]["sha256"] == digest(featherweight.decode(frame, refs=case.refs()))


def test_golden_arrays_are_the_same_everywhere() -> None:
    assert "e220a8397b1dcdaf" == f"{int(noise(1)[0]):x}"
    assert [digest(weights("F32", 7)), digest(skewed(9))] == [digest(weights("F32", 7)), digest(skewed(9))]
