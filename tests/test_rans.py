"""The rans codec: round trips, sizes, the same bytes however its loops run, and payloads nobody should send."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processors import GENERIC, NARROW, PYTHON, elsewhere

from featherweight.codecs import _interleaved, ggd, rans
from featherweight.codecs._kernels import _vector, rans_baseline, rans_permute, rans_simd, rans_tables
from featherweight.codecs._kernels import rans as kernels
from featherweight.codecs.ggd import Ggd
from featherweight.codecs.rans import CODEC, Rans, RansWire
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import Kernel, compiled, features

Array = np.ndarray[Any, np.dtype[Any]]


def round_trip(x: Array, *classes: Array, stage: Rans | None = None) -> int:
    """Assert that `x` comes back; return the bytes of its payload."""
    stage = stage or Rans()
    wire, (payload,) = stage.encode(x, *classes)
    assert wire.tables <= (stage.tables if classes else 1)
    out = np.empty_like(x)
    payload.flags.writeable = False
    CODEC.decode(wire, (payload,), classes, out)
    assert np.array_equal(out, x)
    return payload.size


def entropy(x: Array, classes: Array | None = None) -> float:
    """Return the bits that the symbols hold, given their classes."""
    joint = x.reshape(-1).astype(np.int64) + (0 if classes is None else classes.reshape(-1).astype(np.int64) << 8)
    bits = 0.0
    for which in np.unique(joint >> 8):
        counts = np.unique(joint[joint >> 8 == which], return_counts=True)[1]
        bits -= float(np.sum(counts * np.log2(counts / counts.sum())))
    return bits


def samples(n: int, seed: int = 0) -> dict[str, Array]:
    """Return arrays of different character."""
    rng = np.random.default_rng(seed)
    return {
        "geometric": rng.geometric(0.4, n).astype(np.uint8),
        "uniform": rng.integers(0, 256, n).astype(np.uint8),
        "bell": np.clip(np.rint(rng.normal(128, 20, n)), 0, 255).astype(np.uint8),
        "rare": (rng.random(n) > 0.998).astype(np.uint8) * np.uint8(200),
        "scattered": rng.choice(np.array([0, 3, 64, 128, 255], np.uint8), n, p=[0.6, 0.2, 0.1, 0.09, 0.01]),
        "constant": np.full(n, 77, np.uint8),
    }


def classed(rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Return symbols whose distribution moves with a class of the row plus one of the column."""
    rng = np.random.default_rng(1)
    row, column = rng.integers(0, 12, (rows, 1)), rng.integers(0, 5, (1, columns))
    return (40 + 3 * (row + column) + rng.geometric(0.4, (rows, columns))).astype(np.uint8), row, column


SIZES = (0, 1, 2, 3, 15, 100, 255, 400, 5_000, 40_001, 300_000)


def test_example() -> None:
    assert doctest.testmod(rans) == (0, 7)


@pytest.mark.parametrize("n", SIZES)
def test_round_trip(n: int) -> None:
    for x in samples(n).values():
        round_trip(x)


@given(st.data())
def test_round_trip_of_anything(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 40), max_size=3)))
    n = int(np.prod(shape))
    alphabet = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=20))
    seed = data.draw(st.integers(0, 1 << 32))
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array(alphabet, np.uint8), n).reshape(shape)
    given_arrays = []
    for _ in range(data.draw(st.integers(0, 2))):
        part = [1 if data.draw(st.booleans()) else side for side in shape[data.draw(st.integers(0, len(shape))) :]]
        dtype = data.draw(st.sampled_from(["u1", "i1", "i8", ">i2"]))
        given_arrays.append(rng.integers(0, data.draw(st.integers(1, 100)), part).astype(dtype))
    round_trip(x, *given_arrays, stage=Rans(data.draw(st.integers(1, 64))))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (40, 3), (100, 70), (600, 700)])
def test_round_trip_under_classes(rows: int, columns: int) -> None:
    x, row, column = classed(rows, columns)
    for classes in ((row,), (column,), (row, column), (row + column,), ((row + column).astype(np.uint8),)):
        for tables in (1, 2, 16, 64):
            round_trip(x, *classes, stage=Rans(tables))


def test_near_the_entropy() -> None:
    for name, x in samples(1 << 19).items():
        size = 8 * round_trip(x)
        if name == "constant":
            assert size == 16
        else:
            assert size <= 1.005 * entropy(x) + 24 * 16 + 8 * 256, name


def test_near_the_conditional_entropy() -> None:
    x, row, column = classed(1 << 10, 1 << 9)
    whole, by_row = 8 * round_trip(x), 8 * round_trip(x, row)
    by_both = 8 * round_trip(x, row, column, stage=Rans(64))
    classes = row + column
    assert by_both <= 1.005 * entropy(x, classes) + 24 * 128 + 160 * 16
    assert by_both < by_row < whole


def test_useless_classes_cost_nothing() -> None:
    rng = np.random.default_rng(2)
    x = rng.geometric(0.4, (64, 64)).astype(np.uint8)
    assert round_trip(x, rng.integers(0, 256, (64, 64))) <= round_trip(x) + 1


def test_small_arrays_stay_small() -> None:
    x = samples(400)["geometric"]
    assert 8 * round_trip(x) < entropy(x) + 8 * 16
    assert round_trip(x[:1]) <= 2


def test_arguments() -> None:
    x = np.zeros((4, 4), np.uint8)
    with pytest.raises(ArgumentError, match="broadcast"):
        Rans().encode(x, np.zeros((3, 1), np.uint8))
    with pytest.raises(ArgumentError):
        Rans(0)
    with pytest.raises(ArgumentError):
        Rans(65)


# However the loops run, the bytes are the same.
def everything() -> str:
    """Encode and decode a set of arrays; return a digest of the payloads, and of what damaged ones decode to."""
    import hashlib
    import warnings

    warnings.simplefilter("error")
    digest = hashlib.sha256()
    x, row, column = classed(30, 70)
    cases = [(each, ()) for each in samples(2100).values()]
    cases += [(x, (row,)), (x, (row, column))]
    work = [(Rans(), each, classes) for each, classes in cases]
    work += [(Ggd(), each.view(np.int8), classes) for each, classes in cases]
    many = rans._lanes, ggd._lane_bits  # would choose few lanes for so few symbols, and the vector loops would not run
    for lanes in (0, 5, 7):
        rans._lanes = ggd._lane_bits = lambda n, bits, lanes=lanes: lanes
        for stage, symbols, classes in work:
            wire, (payload, *rest) = stage.encode(symbols, *classes)
            digest.update(f"{wire}".encode() + payload.tobytes())
            out = np.zeros_like(symbols)
            stage.codec.decode(wire, (payload, *rest), classes, out)
            if not np.array_equal(out, symbols):
                return f"{wire} does not come back"
            for seed in range(2):
                damaged = payload.copy()
                damaged[np.random.default_rng(seed).integers(0, payload.size)] ^= 1 << seed
                out = np.zeros_like(symbols)
                try:
                    stage.codec.decode(wire, (damaged, *rest), classes, out)
                except FrameError as error:
                    digest.update(str(error).encode())
                else:
                    digest.update(out.tobytes())
    rans._lanes, ggd._lane_bits = many
    return digest.hexdigest()


@pytest.fixture(scope="module")
def expected() -> str:
    return everything()


@pytest.mark.parametrize("processor", [PYTHON, GENERIC], ids=["python", "generic"])
def test_same_bytes_on_any_processor(processor: dict[str, str], expected: str) -> None:
    assert elsewhere(__file__, "everything", **processor) == expected


@pytest.mark.skipif(not features() >= _vector.AVX2, reason="needs vectors of 256 bits")
def test_same_bytes_by_vectors_of_256_bits(expected: str) -> None:
    assert elsewhere(__file__, "everything", **NARROW) == expected


def test_no_access_out_of_bounds(expected: str, tmp_path: Path) -> None:
    assert elsewhere(__file__, "everything", NUMBA_BOUNDSCHECK="1", FEATHERWEIGHT_CACHE_DIR=str(tmp_path)) == expected


@pytest.mark.parametrize(
    "instructions",
    [_vector.PERMUTES | _vector.AVX2, _vector.AVX2, frozenset()],
    ids=["permutes", "gathers", "baseline"],
)
def test_vector_loops_uncompiled(instructions: frozenset[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector loops are Python as well: run them so, whatever the processor."""
    for module in (kernels, rans_baseline, rans_permute, rans_simd, rans_tables):
        for name, loop in vars(module).items():
            if isinstance(loop, Kernel):
                monkeypatch.setattr(module, name, quiet(loop.python))
    monkeypatch.setattr(_interleaved, "features", lambda: instructions)
    monkeypatch.setattr(_interleaved, "compilable", lambda: True)
    assert everything() == expected


@pytest.mark.skipif(not features() >= _vector.AVX2, reason="needs vectors of 256 bits")
def test_the_gathering_loop_gives_the_same_bytes(expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interleaved, "features", lambda: _vector.AVX2)
    assert everything() == expected


@pytest.mark.skipif(not compiled(), reason="needs compiled kernels")
def test_the_baseline_loops_give_the_same_bytes(expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interleaved, "features", frozenset)
    assert everything() == expected


def quiet(function: Any) -> Any:
    def run(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*args)

    return run


# Payloads that no encoder wrote.
def outcome(wire: RansWire, payload: Array, classes: tuple[Array, ...], shape: tuple[int, ...]) -> bool:
    """Return whether it decodes; anything but FrameError fails the test."""
    try:
        CODEC.decode(wire, (payload,), classes, np.empty(shape, np.uint8))
    except FrameError:
        return False
    return True


def test_every_prefix_and_suffix_is_refused() -> None:
    x, row, column = classed(30, 30)
    for classes in ((), (row, column)):
        wire, (payload,) = Rans().encode(x, *classes)
        for end in range(payload.size):
            assert not outcome(wire, payload[:end], classes, x.shape)
        assert not outcome(wire, np.append(payload, np.uint8(0)), classes, x.shape)


def test_other_shapes_and_wires_are_refused() -> None:
    x, row, column = classed(64, 64)
    wire, (payload,) = Rans().encode(x, row, column)
    assert wire.tables > 1
    assert not outcome(wire, payload, (), x.shape)
    assert not outcome(wire, payload, (row[1:],), x.shape)
    assert not outcome(wire, payload, (row, column), (64, 65))
    assert not outcome(wire, payload, (row, column), (0,))
    for bits in range(8, 13):
        for lanes in range(8):
            for tables in (1, 2, wire.tables, 64):
                other = RansWire(bits, lanes, tables)
                assert other == wire or not outcome(other, payload, (row, column), x.shape)


@settings(max_examples=300)
@given(st.data())
def test_random_payloads(data: st.DataObject) -> None:
    wire = RansWire(
        data.draw(st.integers(8, 12)), data.draw(st.integers(0, 7)), data.draw(st.sampled_from([1, 2, 3, 64]))
    )
    payload = np.frombuffer(data.draw(st.binary(max_size=2000)), np.uint8)
    n = data.draw(st.integers(0, 3000))
    classes = np.random.default_rng(n).integers(0, 256, n).astype(np.uint8)
    outcome(wire, payload, (classes,), (n,))


@settings(max_examples=300)
@given(st.data())
def test_damaged_payloads(data: st.DataObject) -> None:
    x, row, column = classed(40, 100)
    classes = data.draw(st.sampled_from([(), (row,), (row, column)]))
    wire, (payload,) = Rans().encode(x, *classes)
    damaged = payload.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, payload.size - 1))] = data.draw(st.integers(0, 255))
    outcome(wire, damaged[: data.draw(st.integers(0, damaged.size))], classes, x.shape)
