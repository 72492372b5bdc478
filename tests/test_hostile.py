"""Damaged, hostile and foreign frames: each gets the right error with its place, and costs no more than it may."""

import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight import codecs
from featherweight.errors import (
    BaseMismatchError,
    FeatherweightError,
    FrameError,
    LimitError,
    TruncatedError,
    UnsupportedError,
)
from featherweight.frame import FLAT, GIVEN, MAX_NODES, REFERENCE, SHAPED, SPLIT, checksum, parse, seal
from featherweight.stage import Split, chain
from featherweight.testing import Sealed, arrays_for, frames, hostile_frames, mutated, only_our_errors, same, stages

U8, F32 = 2, 11


def sealed(head: object, body: bytes = b"") -> bytes:
    """Return a frame with a right checksum over whatever head."""
    return seal(msgspec.msgpack.encode(head), body)


def record(body: bytes, *sizes: int) -> list[int]:
    return [checksum(body), *sizes]


@contextmanager
def allocating_at_most(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= limit
    finally:
        tracemalloc.stop()


def samples() -> list[Sealed]:
    """One frame of each kind: a stored array, a graph, pieces, references."""
    rng = np.random.Generator(np.random.Philox(3))
    x = (rng.standard_normal((24, 16)) * 0.05).astype(np.float32)
    stage = codecs.stage_class
    raw, delta, planes, runs = (stage(name)() for name in ("raw", "delta", "planes", "runs"))
    sparse = np.where(x > 0.05, x, 0)
    base = x.copy()
    base[3] += 1
    return [
        Sealed(featherweight.encode(x, raw), {}, {}),
        Sealed(featherweight.encode(x, chain(planes, exponent=stage("huffman")(), mantissa=stage("rans")())), {}, {}),
        Sealed(featherweight.encode(sparse, Split(chain(runs, kept=planes), 64)), {}, {}),
        Sealed(featherweight.encode(x, chain(delta, given=("@base",)), refs={"base": base}), {"base": base}, {}),
        Sealed(featherweight.encode(x, "lossless"), {}, {}),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_every_prefix_of_a_frame_is_truncated(kind: int) -> None:
    frame = samples()[kind]
    for length in range(len(frame.data)):
        with pytest.raises(TruncatedError):
            featherweight.decode(frame.data[:length], refs=frame.refs)
        with pytest.raises(TruncatedError):
            featherweight.inspect(frame.data[:length])


@given(frames(), st.data())
def test_a_prefix_of_any_frame_is_truncated(frame: Sealed, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(frame.data) - 1))
    with pytest.raises(TruncatedError):
        featherweight.decode(frame.data[:length], refs=frame.refs)


@pytest.mark.parametrize("kind", range(5))
def test_bytes_that_follow_a_frame_are_refused(kind: int) -> None:
    frame = samples()[kind]
    with pytest.raises(FrameError, match="follow"):
        featherweight.decode(frame.data + b"\0", refs=frame.refs)


@pytest.mark.parametrize("kind", range(5))
def test_no_flipped_bit_goes_unnoticed(kind: int) -> None:
    frame = samples()[kind]
    for place in range(len(frame.data)):
        damaged = bytearray(frame.data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises((FrameError, UnsupportedError)):
            featherweight.decode(damaged, refs=frame.refs)


@given(frames(), st.data())
def test_no_flipped_bit_of_any_frame_goes_unnoticed(frame: Sealed, data: st.DataObject) -> None:
    damaged = bytearray(frame.data)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((FrameError, UnsupportedError)):
        featherweight.decode(damaged, refs=frame.refs)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    for foreign in (data, b"\xfew\x01" + data, seal(data), sealed(list(data))):
        with pytest.raises((FrameError, UnsupportedError)):
            featherweight.decode(foreign)


@given(frames(), st.integers(0, 1 << 32))
def test_a_frame_with_fields_replaced_behind_right_checksums_raises_only_our_errors(frame: Sealed, seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(10):
        only_our_errors(frame._replace(data=mutated(frame, choose)))


@given(hostile_frames(hostile_frames()))
def test_two_fields_replaced_raise_only_our_errors(frame: Sealed) -> None:
    only_our_errors(frame)


@pytest.mark.parametrize("name", codecs.names())
def test_the_streams_of_every_codec_may_hold_anything(name: str) -> None:
    @given(stages(name).flatmap(lambda stage: st.tuples(st.just(stage), arrays_for(stage))), st.integers(0, 1 << 32))
    def search(drawn: tuple[object, object], seed: int) -> None:
        stage, (x, inputs) = drawn
        refs = {f"r{i}": array for i, array in enumerate(inputs)}
        recipe = chain(stage, given=tuple(f"@{ref}" for ref in refs))
        good = Sealed(featherweight.encode(x, recipe, refs=refs), refs, {})
        choose = random.Random(seed)
        for _ in range(20):
            only_our_errors(good._replace(data=mutated(good, choose)))

    search()


@pytest.mark.slow
def test_fifty_thousand_mutations_of_every_sample_raise_only_our_errors() -> None:
    choose = random.Random(2026)
    for good in samples():
        for _ in range(50_000):
            only_our_errors(good._replace(data=mutated(good, choose)))


@pytest.mark.parametrize(
    "head",
    [
        [[F32, 1 << 60], [[[FLAT, F32]]], [0, 0]],
        [[F32, 1 << 30, 1 << 30], [[[FLAT, F32]]], [0, 0]],
        [[F32, 1 << 63], [[[FLAT, F32]]], [0, 0]],
        [[F32, 1 << 40], [[[FLAT, F32]], [[6, [0]]]], [0, 0]],
        [[F32, 4], [[[FLAT, F32]], [[6, [0]], [1, [1]]], [[F32, 1 << 40]]], [0, 0]],
        [[F32, 1 << 40], [[[SPLIT, F32, 1 << 40]]], [0], [[1 << 40, [[0, 0, 0]]]], [[[[FLAT, F32]], [[6, [0]]]]]],
        [[F32, 0, 1 << 63], [[[FLAT, F32]]], [0, 0]],
        [[F32, 1 << 62, 0, 1 << 62], [[[FLAT, F32]]], [0, 0]],
        [[U8, 1 << 58], [[[FLAT, U8]]], [0, 1 << 58]],
        [[U8, 1 << 60], [[[FLAT, U8]]], [0, (1 << 64) - 1]],
    ],
)
def test_huge_claims_are_refused_before_anything_is_allocated(head: object) -> None:
    frame = sealed(head)
    with allocating_at_most(1 << 16), pytest.raises(FrameError):
        featherweight.decode(frame)


def test_max_bytes_bounds_the_result_and_what_lies_between() -> None:
    frame = featherweight.encode(np.zeros(1 << 20, np.float32), "constant")
    with allocating_at_most(1 << 16), pytest.raises(LimitError, match="max_bytes"):
        featherweight.decode(frame, max_bytes=(1 << 22) - 1)
    assert (1 << 20,) == featherweight.decode(frame, max_bytes=1 << 23).shape


def test_decoding_allocates_no_more_than_max_bytes() -> None:
    x = np.zeros((256, 1024), np.float32)
    x[::7, ::5] = 0.5
    for recipe in ("runs", "planes(exponent=runs, mantissa=runs, low=runs, low2=runs)", "constant"):
        array = np.zeros_like(x) if recipe == "constant" else x
        frame = featherweight.encode(array, recipe)
        featherweight.decode(frame)
        low, high = x.nbytes, 8 * x.nbytes
        while low < high:  # the least limit that is enough
            middle = (low + high) // 2
            try:
                featherweight.decode(frame, max_bytes=middle)
                high = middle
            except LimitError:
                low = middle + 1
        with allocating_at_most(low + (1 << 17)):
            featherweight.decode(frame, max_bytes=low)


def test_too_many_nodes_are_refused_and_as_many_as_allowed_are_run() -> None:
    body = bytes(range(4))

    def program(count: int) -> list[object]:
        return [[[FLAT, U8]], [[1, [i]] for i in range(count)], [[U8, 4]] * (count - 1)]

    allowed = sealed([[U8, 4], program(MAX_NODES), record(body, 4)], body)
    assert same(np.arange(4, dtype=np.uint8), featherweight.decode(allowed))
    with pytest.raises(FrameError, match="1025 nodes"):
        featherweight.decode(sealed([[U8, 4], program(MAX_NODES + 1), record(body, 4)], body))


@pytest.mark.parametrize("edge", [1, 2, 99, -1, 1 << 63])
def test_edges_out_of_order_are_refused(edge: int) -> None:
    body = bytes(4)
    head = [[U8, 4], [[[FLAT, U8]], [[1, [edge]]]], record(body, 4)]
    with pytest.raises(FrameError):
        featherweight.decode(sealed(head, body))


@pytest.mark.parametrize("edge", [0, 1])
def test_a_piece_given_what_is_made_of_it_is_refused(edge: int) -> None:
    branch = [[[FLAT, U8], [GIVEN, edge]], [[1, [1]]]]
    body = bytes(4)
    pieces = [[4, [[0, *record(body, 4)]]]]
    head = [[U8, 4], [[[SPLIT, U8, 4]], [[1, [0]]]], [0], pieces, [branch]]
    with pytest.raises(FrameError):
        featherweight.decode(sealed(head, body))


def test_two_split_edges_given_to_each_other_are_refused() -> None:
    body = bytes(4)
    branches = [[[[GIVEN, 1]], [[1, [0]]]], [[[GIVEN, 0]], [[1, [0]]]]]
    cuts = [[4, [[0, 0]]], [4, [[1, 0]]]]
    head = [[U8, 4], [[[SPLIT, U8, 4], [SPLIT, U8, 4]], [[1, [0]]]], [0], cuts, branches]
    with pytest.raises(FrameError):
        featherweight.decode(sealed(head, body[:0]))


def test_a_piece_cannot_be_split_again() -> None:
    branch = [[[SPLIT, U8, 4]]]
    head = [[U8, 4], [[[SPLIT, U8, 4]]], [0], [[4, [[0, 0]]]], [branch]]
    with pytest.raises(FrameError):
        featherweight.decode(sealed(head))


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("where", ["head", "wire", "unknown codec"])
def test_nesting_without_end_is_refused(depth: int, where: str) -> None:
    nest = b"\x91" * depth + b"\x90"
    codec = b"\xa1x" if where == "unknown codec" else b"\x01"
    program = b"\x92\x91\x92\x00\x02\x91\x93" + codec + b"\x91\x00" + nest
    head = nest if where == "head" else b"\x93\x92\x02\x00" + program + b"\x92\x00\x00"
    with pytest.raises((FrameError, UnsupportedError)):
        featherweight.decode(seal(head))


def test_a_head_of_many_pieces_is_parsed_in_time_and_bounded() -> None:
    count = 100_000
    head = [[U8, count], [[[SPLIT, U8, count]]], [0], [[1, [[0, 0, 0]] * count]], [[[[FLAT, U8]]]]]
    started = time.process_time()
    with pytest.raises(FrameError):
        featherweight.decode(sealed(head))
    assert time.process_time() - started < 20


def test_a_length_of_head_beyond_the_bytes_is_truncated_and_beyond_reason_refused() -> None:
    with pytest.raises(TruncatedError):
        featherweight.decode(b"\xfew\x01\xff\xff\x03")
    with allocating_at_most(1 << 16), pytest.raises(FrameError, match="announced"):
        featherweight.decode(b"\xfew\x01\xff\xff\xff\xff\x07" + bytes(100))
    with pytest.raises(FrameError, match="not well-formed"):
        featherweight.decode(b"\xfew\x01" + b"\xff" * 20)


def test_a_newer_version_and_an_unknown_codec_say_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="upgrade"):
        featherweight.decode(b"\xfew\x02" + bytes(20))
    for codec in (250, "of somebody's own"):
        frame = sealed([[U8, 0], [[[FLAT, U8]], [[codec, [0]]]], [0, 0]])
        with pytest.raises(UnsupportedError, match="upgrade"):
            featherweight.decode(frame)


def test_an_unknown_element_type_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="element type 250"):
        featherweight.decode(sealed([[250, 0], [[[FLAT, 250]]], [0, 0]]))


def test_a_wire_record_that_is_too_long_is_newer_and_one_of_wrong_types_is_damaged() -> None:
    with pytest.raises(UnsupportedError, match="upgrade") as caught:
        featherweight.decode(sealed([[U8, 0], [[[FLAT, U8]], [[1, [0], [1]]]], [0, 0]]))
    assert "raw" == caught.value.path
    with pytest.raises(FrameError, match="not well-formed") as caught:
        featherweight.decode(sealed([[U8, 0], [[[FLAT, U8]], [[1, [0], "no"]]], [0, 0]]))
    assert "raw" == caught.value.path


def test_a_codec_without_its_streams_is_refused() -> None:
    for number in codecs.CODECS:
        with pytest.raises(FeatherweightError):
            featherweight.decode(sealed([[F32, 4], [[[FLAT, F32]], [[number, []]]], [0, 0]]))


def test_a_reference_with_a_wrong_digest_is_a_mismatch() -> None:
    head = [[U8, 4], [[[REFERENCE, 0]]], [0, 12345], [], [], ["base"]]
    with pytest.raises(BaseMismatchError, match="base"):
        featherweight.decode(sealed(head), refs={"base": np.zeros(4, np.uint8)})


def test_packed_elements_that_do_not_fill_their_shape_are_refused() -> None:
    body = bytes(3)
    for shape in ([4], [8], [7, 0], []):
        head = [[23, *shape], [[[SHAPED, 23, *shape]]], record(body, 3)]
        with pytest.raises(FrameError):
            featherweight.decode(sealed(head, body))


def test_repeated_names_of_references_do_no_harm() -> None:
    base = np.arange(4, dtype=np.uint8)
    digest = featherweight.inspect(featherweight.encode(base, "delta(given=@base)", refs={"base": base})).record[-1]
    head = [[U8, 4], [[[REFERENCE, 1]]], [0, digest], [], [], ["base", "base"]]
    assert same(base, featherweight.decode(sealed(head), refs={"base": base}))


def test_the_buffer_may_be_of_any_kind() -> None:
    x = np.arange(10, dtype=np.int16)
    frame = featherweight.encode(x)
    words = np.frombuffer(frame + bytes(-len(frame) % 4), np.uint8)[: len(frame)]
    for buffer in (frame, bytearray(frame), memoryview(frame), words):
        assert same(x, featherweight.decode(buffer))
    assert parse(frame).frame == featherweight.inspect(frame)
