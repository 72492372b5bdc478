"""Huffman: against bitarray, against itself uncompiled, and against bytes that nobody would write."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from bitarray import bitarray
from bitarray.util import canonical_decode, canonical_huffman
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.codecs._kernels import huffman as kernels
from featherweight.codecs._kernels import huffman_encode
from featherweight.codecs.huffman import CODEC, Huffman, HuffmanWire
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import compiled

PATIENCE = 40 if compiled() else 1  # what runs uncompiled is so much slower

pytestmark = pytest.mark.filterwarnings("error")


def skewed(n: int, seed: int = 0, symbols: int = 12, power: float = 0.5) -> Array:
    """Draw bytes whose frequencies fall by `power` from one to the next."""
    ranks = np.minimum(np.random.default_rng(seed).geometric(1 - power, n) - 1, symbols - 1)
    return ((ranks * 7 + 90) & 255).astype(np.uint8)


def uniform(n: int, symbols: int = 256, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, symbols, n).astype(np.uint8)


def fibonacci(n: int = 30) -> Array:
    """Return bytes whose best codes would be `n` bits long if they might."""
    counts = [1, 1]
    while len(counts) < n:
        counts.append(counts[-1] + counts[-2])
    return np.repeat(np.arange(n, dtype=np.uint8), np.minimum(counts, 5000))


def payload_of(x: Array, block: int = 16) -> Array:
    return Huffman(block).encode(x).streams[0]


def back(payload: Array, n: int, block: int = 16) -> Array:
    out = np.empty(n, np.uint8)
    CODEC.decode(HuffmanWire(block), (payload,), (), out)
    return out


ARRAYS = {
    "empty": uniform(0),
    "one": uniform(1),
    "two": np.array([3, 200], np.uint8),
    "run": np.full(20_000, 7, np.uint8),
    "nearly a run": np.where(np.arange(20_000) % 999, 7, 8).astype(np.uint8),
    "alternating": (np.arange(1 << 18) & 1).astype(np.uint8),
    "small": skewed(300),
    "below six streams": skewed(8191),
    "six streams": skewed(8192),
    "odd": skewed(8195, power=0.7),
    "wide": uniform(20_001, 200),
    "all symbols": np.concatenate([np.repeat(uniform(256), 3), np.arange(256, dtype=np.uint8), skewed(20_000)]),
    "incompressible": uniform(10_000),
    "limited": fibonacci(),
    "limited, short": fibonacci(18)[::-1].copy(),
    "blocks": np.concatenate([skewed(3 << 10), skewed(2 << 10, 1), uniform(1 << 10), skewed(9999, 2)]),
}


@pytest.fixture(params=ARRAYS.items(), ids=lambda item: item[0])
def x(request: pytest.FixtureRequest) -> Array:
    return request.param[1]


@pytest.mark.parametrize("block", [10, 13, 16, 18])
def test_round_trip(x: Array, block: int) -> None:
    payload = payload_of(x, block)
    assert payload.size <= x.size + -(-x.size >> block)
    np.testing.assert_array_equal(back(payload, x.size, block), x)


@given(
    st.one_of(
        st.binary(max_size=3000),
        st.builds(
            lambda *told: skewed(*told).tobytes(),
            st.integers(0, 750 * PATIENCE), st.integers(0, 99), st.integers(1, 256), st.floats(0.05, 0.999),
        ),
        st.builds(lambda *told: uniform(*told).tobytes(), st.integers(0, 750 * PATIENCE), st.integers(1, 256)),
    ),
    st.integers(10, 18),
)  # fmt: skip
def test_round_trip_of_anything(data: bytes, block: int) -> None:
    x = np.frombuffer(data, np.uint8)
    np.testing.assert_array_equal(back(payload_of(x, block), x.size, block), x)


# What bitarray says -----------------------------------------------------------------------------


def lengths_of(payload: Array) -> tuple[list[int], int]:
    """Read the code lengths of the first block; return them and where the sizes begin."""
    lengths = np.zeros(525, np.uint8)
    with np.errstate(over="ignore"):
        at = int(kernels._read_lengths(payload, 1, lengths))
    return lengths[:256].tolist(), at


def sizes_of(payload: Array, at: int, number: int) -> tuple[list[int], int]:
    sizes = []
    for _ in range(number):
        size = shift = 0
        while True:
            byte = int(payload[at])
            at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        sizes.append(size)
    return sizes, at


@pytest.mark.parametrize("name", ["small", "below six streams", "six streams", "odd", "wide", "nearly a run"])
def test_the_code_is_as_short_and_as_canonical_as_that_of_bitarray(name: str) -> None:
    x = ARRAYS[name]
    payload = payload_of(x, 18)
    frequencies = {symbol: int(count) for symbol, count in enumerate(np.bincount(x)) if count}
    code, _, _ = canonical_huffman(frequencies)
    assert max(map(len, code.values())) <= 12
    lengths, at = lengths_of(payload)
    cost = sum(lengths[symbol] * count for symbol, count in frequencies.items())
    assert cost == sum(len(code[symbol]) * count for symbol, count in frequencies.items())

    number = 6 if payload[0] & 8 else 1
    assert number == (6 if x.size >= 1 << 13 else 1)
    sizes, at = sizes_of(payload, at, number)
    symbols = [symbol for length in range(1, 13) for symbol in range(256) if lengths[symbol] == length]
    count = [lengths.count(length) if length else 0 for length in range(13)]
    for s, size in enumerate(sizes):
        bits = bitarray(endian="big")
        bits.frombytes(payload[at : at + size].tobytes())
        begin, end = x.size * s // number, x.size * (s + 1) // number
        exact = sum(lengths[symbol] for symbol in x[begin:end].tolist())
        assert (exact + 7) // 8 == size
        assert list(canonical_decode(bits[:exact], count, symbols)) == x[begin:end].tolist()
        at += size
    assert at == payload.size


def test_a_limited_code_is_complete_and_nearly_as_short() -> None:
    x = ARRAYS["limited"]
    frequencies = {symbol: int(count) for symbol, count in enumerate(np.bincount(x))}
    code, _, _ = canonical_huffman(frequencies)
    assert max(map(len, code.values())) > 12
    lengths, _ = lengths_of(payload_of(x, 18))
    assert max(lengths) == 12
    assert sum(1 << (12 - length) for length in lengths if length) == 1 << 12
    best = sum(len(code[symbol]) * count for symbol, count in frequencies.items())
    assert best <= sum(lengths[symbol] * count for symbol, count in frequencies.items()) <= 1.003 * best


def test_a_small_table_is_small() -> None:
    x = np.clip(np.random.default_rng(1).normal(118, 2.5, 400), 100, 130).astype(np.uint8)
    _, at = lengths_of(payload_of(x))
    assert np.unique(x).size >= 12
    assert at <= 13


def test_blocks_share_a_table_where_that_is_cheaper() -> None:
    payload = payload_of(np.tile(skewed(1 << 13), 2), 13)
    _, at = lengths_of(payload)
    sizes, at = sizes_of(payload, at, 6)
    assert payload[0] == 10
    assert payload[at + sum(sizes)] == 11


@pytest.mark.parametrize("number", [1, 4])
def test_blocks_of_fewer_streams_than_are_written_are_read(number: int) -> None:
    x = skewed(1 << 13)
    payload = payload_of(x, 13)
    lengths, at = lengths_of(payload)
    code, total = {}, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code[symbol] = bitarray(f"{total >> (12 - length):0{length}b}")
        total += 1 << (12 - length)
    sizes, streams = b"", b""
    for s in range(number):
        bits = bitarray(endian="big")
        bits.encode(code, x[x.size * s // number : x.size * (s + 1) // number].tolist())
        size = len(bits.tobytes())
        sizes += bytes([size & 127 | 128, size >> 7])
        streams += bits.tobytes()
    block = [bytes([kind | (number & 4)]) for kind in (kernels.TABLE, kernels.REPEAT)]
    both = block[0] + payload[1:at].tobytes() + sizes + streams + block[1] + sizes + streams
    assert np.array_equal(back(np.frombuffer(both, np.uint8), 2 * x.size, 13), np.tile(x, 2))


# Uncompiled, and hostile ------------------------------------------------------------------------


def scratch_for_decoding() -> tuple[Array, ...]:
    return np.empty(8192, np.uint64), np.empty(525, np.uint8), np.empty(24, np.int64)


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let uncompiled kernels fail where compiled ones would touch what is not theirs."""
    some = ARRAYS["one"]  # what is compiled later would be compiled with the guards
    kernels.decode(payload_of(some, 13), 13, np.empty(some.size, np.uint8), *scratch_for_decoding())

    def guard(function: object, width: int) -> object:
        def checked(array: Array, at: int, *word: object) -> object:
            assert 0 <= at <= len(array) - width
            return function(array, at, *word)  # type: ignore[operator]

        return checked

    for module, name, width in (
        (kernels, "load64be", 8), (kernels, "store64le", 8),
        (huffman_encode, "load16le", 2), (huffman_encode, "load64le", 8), (huffman_encode, "store64be", 8),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, guard(getattr(module, name), width))
    with np.errstate(over="ignore"):
        yield


def encode_uncompiled(x: Array, block: int) -> Array:
    payload = np.full(x.size + (x.size >> block) + 513, 0xAA, np.uint8)
    scratch = (
        np.full(huffman_encode.COUNTERS, 7, np.uint32), np.full(65792, 7, np.uint32), np.full(525, 7, np.uint8),
        np.full(525, 7, np.uint8), np.full(6144, 7, np.uint8), np.full(2816, 7, np.uint64), np.full(24, 7, np.int64),
    )  # fmt: skip
    return payload[: huffman_encode.encode.python(x, block, payload, *scratch)]


@pytest.mark.usefixtures("careful")
def test_uncompiled_kernels_do_the_same(x: Array) -> None:
    x = x[:24_000]
    block = 13 if x.size > 1 << 13 else 10
    payload = encode_uncompiled(x, block)
    np.testing.assert_array_equal(payload, payload_of(x, block))
    out = np.empty(x.size, np.uint8)
    assert kernels.decode.python(payload, block, out, *scratch_for_decoding()) == payload.size
    np.testing.assert_array_equal(out, x)


def hostile(x: Array, tries: int, seed: int = 0) -> Iterator[Array]:
    """Yield damaged payloads: flips, cuts, insertions, other sizes and heads, and plain noise."""
    good, random = payload_of(x, 13), np.random.default_rng(seed)
    for _ in range(tries):
        bad = good.copy()
        kind = random.integers(0, 5)
        near = int(random.integers(0, min(bad.size, 40 if random.integers(0, 2) else bad.size)))
        if kind == 0:
            bad[near] ^= 1 << random.integers(0, 8)
        elif kind == 1:
            bad = bad[:near]
        elif kind == 2:
            bad = np.insert(bad, near, random.integers(0, 256))
        elif kind == 3:
            bad[near : near + 8] = random.integers(0, 256, bad[near : near + 8].size)
        else:
            bad = random.integers(0, 256, 60).astype(np.uint8)
            bad[0] = random.integers(0, 8)
        yield np.ascontiguousarray(bad)


@pytest.mark.usefixtures("careful")
@pytest.mark.parametrize("name", ["small", "odd", "all symbols", "limited, short"])
def test_hostile_payloads_touch_nothing_else(name: str) -> None:
    x = ARRAYS[name][:9000]
    for bad in hostile(x, 12):
        one, two = np.zeros(x.size, np.uint8), np.zeros(x.size, np.uint8)
        told = kernels.decode.python(bad, 13, one, *scratch_for_decoding())
        assert told == kernels.decode(bad, 13, two, *scratch_for_decoding())
        if told >= 0:
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["two", "small", "odd", "all symbols", "limited", "blocks"])
def test_hostile_payloads_are_refused_or_decoded(name: str) -> None:
    x = ARRAYS[name]
    guarded = np.full(x.size + 128, 0x5A, np.uint8)
    for bad in hostile(x, 10 * PATIENCE, seed=1):
        with contextlib.suppress(FrameError):
            CODEC.decode(HuffmanWire(13), (bad,), (), guarded[64:-64])
        assert (guarded[:64] == 0x5A).all()
        assert (guarded[-64:] == 0x5A).all()


@pytest.mark.parametrize("name", ["one", "run", "small", "incompressible", "blocks"])
def test_every_prefix_is_refused(name: str) -> None:
    x = ARRAYS[name][:12_000]
    payload = payload_of(x, 10)
    for end in range(0, payload.size, 1 if compiled() else 40):
        with pytest.raises(FrameError):
            back(payload[:end], x.size, 10)
    with pytest.raises(FrameError, match="follow"):
        back(np.append(payload, np.uint8(0)), x.size, 10)


@given(st.binary(max_size=200), st.integers(0, 500 * PATIENCE), st.integers(10, 18))
@settings(max_examples=8 * PATIENCE)
def test_noise_is_refused_or_decoded(data: bytes, n: int, block: int) -> None:
    with contextlib.suppress(FrameError):
        back(np.frombuffer(data, np.uint8), n, block)


@pytest.mark.parametrize(
    "payload",
    [
        "", "00", "01", "04 00", "05 00", "08", "ff",  # no block, no symbols, no such kind
        "03 01 00", "07 00 00 00 00",  # a table before there is one
        "02 07 00 c2 01 00",  # one symbol
        "02 07 02 c5 00 06 26 84 d0 9a 13 40",  # lengths 2 3 3: too few
        "02 07 02 c2 00 06 26 84 d0 9a 13 40",  # lengths 1 1 1: too many
        "02 ff 01 c3 00 06 26 84 d0 9a 13 40",  # symbols beyond 255
        "02 07 02 c0 00 06 26 84 d0 9a 13 40",  # length 0
        "02 07 02 80 00 06 26 84 d0 9a 13 40",  # length 13
        "02 07 02 c3 00 07 26 84 d0 9a 13 40",  # a stream beyond the end
        "02 07 02 c3 00 05 26 84 d0 9a 13",  # a stream too short
        "02 07 02 c3 00 ff ff ff ff ff ff 26 84",  # an endless size
    ],
)  # fmt: skip
def test_malformed(payload: str) -> None:
    with pytest.raises(FrameError, match="payload"):
        back(np.frombuffer(bytes.fromhex(payload), np.uint8), 32)


def test_no_symbols_take_no_bytes() -> None:
    assert payload_of(uniform(0)).size == 0
    with pytest.raises(FrameError, match="1 bytes follow"):
        back(np.zeros(1, np.uint8), 0)


@pytest.mark.parametrize("block", [9, 19, 1.5, "16"])
def test_parameters_are_checked(block: object) -> None:
    with pytest.raises(ArgumentError, match="block"):
        Huffman(block)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_CPU_NAME": "generic"}])
def test_other_ways_to_compile(setting: dict[str, str], tmp_path: object) -> None:
    environment = {**os.environ, **setting, "FEATHERWEIGHT_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-p", "no:cacheprovider"], env=environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
