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


def changed(base: Array) -> Array:
    """Return the array with every 61st element one step further."""
    x = base.copy()
    x.view(f"u{x.dtype.itemsize}").reshape(-1)[::61] += 1
    return x


class Golden(NamedTuple):
    """How a frame was made."""

    recipe: str
    array: Callable[[], Array]
    refs: Callable[[], dict[str, Array]] = dict


def base() -> dict[str, Array]:
    return {"base": weights("BF16", 40, 30, seed=3)}


def small(kind: str) -> Golden:
    return Golden("raw", lambda: bits(kind, 3, 5, seed=7))


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
    "recipe-lossless": Golden("lossless", lambda: weights("BF16", 100, 90)),
    "recipe-lossless-small": Golden("lossless-small", lambda: weights("BF16", 100, 90)),
    "recipe-lossless-f32": Golden("lossless", lambda: weights("F32", 100, 90)),
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
