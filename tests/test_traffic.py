"""Channels and reducers: errors come back, messages are small and checked, and nothing hangs."""

import importlib.util
import itertools
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import featherweight
from featherweight.codecs._kernels import threelc
from featherweight.dtypes import Array
from featherweight.errors import (
    ArgumentError,
    BaseMismatchError,
    FeatherweightError,
    FrameError,
    TruncatedError,
    UnsupportedError,
)
from featherweight.frame import parse, sizes_and_digests
from featherweight.traffic import Channel, Reducer, head_of, shards
from featherweight.traffic._message import pack, unpack

THREE = "ternary({}, values=base3(bytes=zero_run))"
SMALLER = "ternary({}, values=density(density=rans, values=rans(given=density)))"
EDEN = "hadamard(rotated=lloydmax({}, index=bitpack))"
RECIPES = [
    THREE.format(1.0),
    THREE.format(1.75),
    THREE.format("1.75, 300"),
    SMALLER.format(1.5),
    "ternary(1.5, 300, values=base3(bytes=rans))",
    EDEN.format(1),
    "hadamard(block=256, rotated=lloydmax(3, block=256, index=rans))",
    "prune(0.9, values=gaps(gaps=rans, values=cast(bf16)))",
    "cast(f8_e4m3)",
    "weightless(sparsity=0.5)",
    "raw",
]
PARTS = [4000, 16, 16, 900, 0, 7, 1000, 300]
TOTAL = sum(PARTS)


def gradients(seed: int, parts: list[int] = PARTS) -> Array:
    """Return numbers whose magnitude differs from part to part."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.standard_t(4, n) * 10.0 ** -(k % 4) for k, n in enumerate(parts)]).astype(np.float32)


def ends(parts: list[int] = PARTS) -> list[slice]:
    stops = np.cumsum([0, *parts])
    return [slice(a, b) for a, b in itertools.pairwise(stops)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_lost_comes_with_the_next_message(recipe: str) -> None:
    channel, other = Channel(recipe, PARTS), Channel(THREE.format(1.9), PARTS)
    received, total, true, steady = np.empty(TOTAL, "f4"), np.zeros(TOTAL), np.zeros(TOTAL), gradients(99)
    for step in range(60):
        x = gradients(step) * np.float32(0.2) + steady
        head = other.receive(channel.send(x), received)
        assert (0, step) == (head.sender, head.step)
        total += received
        true += x
    error = channel.state_dict()["error"]
    # Whatever has not come is in the buffer, but for rounding.
    assert np.abs(true - total - error).max() <= 1e-4 * np.abs(true).max()
    assert np.linalg.norm(true - total) <= 0.3 * np.linalg.norm(true)


@given(st.data())
def test_one_walk_gives_the_bytes_of_three_stages(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=6))
    least, s = data.draw(st.sampled_from([0, 1, 256])), data.draw(st.sampled_from([1.0, 1.3, 1.75, 1.99]))
    block = data.draw(st.sampled_from([0, 0, 1, 100, 1024]))
    seed = data.draw(st.integers(0, 1 << 20))
    channel, recipe = (
        Channel(THREE.format(f"{s}, {block}"), parts, least=least),
        THREE.format(f"{s}, {block}, given=@parts"),
    )
    for step in range(3):
        x = gradients(seed + step, parts)
        if x.size and data.draw(st.booleans()):
            x[x < np.quantile(x, 0.9)] = 0
        error = channel.state_dict()["error"] if step else np.zeros(x.size, "f4")
        large = [part for part, n in zip(ends(parts), parts, strict=True) if n >= least]
        message = channel.send(x)
        _, frames = unpack(message)
        if not sum(n for n in parts if n >= least):
            continue
        refs = {"parts": np.array([n for n in parts if n >= least], np.uint64)}
        added = np.concatenate([(x + error)[part] for part in large])
        assert bytes(frames[0]) == featherweight.encode(added, recipe, refs=refs)
        out = np.empty_like(x)
        Channel(THREE.format(f"{s}, {block}"), parts, least=least).receive(message, out)
        plainly = np.empty_like(x)
        Channel("raw", parts, least=least).receive(message, plainly)
        assert plainly.tobytes() == out.tobytes()
        expected = featherweight.decode(bytes(frames[0]), refs=refs)
        assert expected.tobytes() == np.concatenate([out[part] for part in large]).tobytes()
        kept = channel.state_dict()["error"]
        assert (added - expected).tobytes() == np.concatenate([kept[part] for part in large]).tobytes()


@given(st.data())
def test_parts_that_are_quantized_at_once_come_out_as_all_others(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    s = data.draw(st.sampled_from([1.0, 1.3, 1.75, 1.99]))
    steps = data.draw(arrays(np.float32, (3, sum(parts)), elements=st.floats(width=32), fill=st.floats(width=32)))
    found = []
    for near in (20, 0):  # some of the parts, none of them
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(threelc, "NEAR", near)
            channel = Channel(THREE.format(s), parts, least=0)
            found.append([(channel.send(x), channel.state_dict()["error"].tobytes()) for x in steps])
    assert found[0] == found[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_not_finite_reaches_everybody_and_never_an_error_buffer(recipe: str) -> None:
    channel, out = Channel(recipe, PARTS), np.empty(TOTAL, "f4")
    channel.send(gradients(0))
    before = channel.state_dict()["error"]
    x = gradients(1)
    x[[5, 4010, 4935]] = np.nan, -np.inf, np.inf  # parts 0, 1 and 5
    channel.receive(channel.send(x), out)
    after = channel.state_dict()["error"]
    for number, part in enumerate(ends()):
        if number in (0, 1, 5):
            assert x[part].tobytes() == out[part].tobytes()
            assert before[part].tobytes() == after[part].tobytes()
        else:
            assert np.isfinite(out[part]).all()
    assert np.isfinite(after).all()
    channel.receive(channel.send(gradients(2)), out)
    assert np.isfinite(out).all()
    channel.receive(channel.send(x), out := np.ones(TOTAL, "f4"), add=True)
    np.testing.assert_array_equal(x[:4000] + 1, out[:4000])


# Three parts of 300, 2 and 3 values; the last is not finite. M = 2; of 60 bytes the 8th is 121 + 81, the 41st 121 - 27.
MESSAGE = """
fe 6d 01 0e 00 00 00 24 4c d3 31 95 02 00 ce 80 76 d6 26 93 56 27 29 91 02
fe 77 01 42 8e 36 08 ab 96 92 0b cd 01 2c 93 93 92 03 00 92 00 0b 92 00 02 93 92 1e 91 02 92 1d 91 03 94 1c 92 01 04
91 00 91 00 92 92 02 3c 92 02 cd 01 2c 94 ce 19 df ed d0 04 08 ce 06 7f db 5a 90 90 91 a5 70 61 72 74 73
00 00 00 40 f8 ca ff ff f5 5e ff f6
fe 77 01 15 5e 31 3f 59 93 92 0b 05 92 91 92 00 0f 91 92 10 91 00 92 ce 39 2e 5e 70 0a
00 3f c0 bf 00 00 00 00 00 00
fe 77 01 15 22 c6 5c 31 93 92 0b 03 92 91 92 00 0b 91 92 01 91 00 92 ce 25 97 84 f7 0c
00 00 c0 7f 00 00 80 3f 00 00 80 7f
"""


def test_a_message_that_was_once_written_is_read_for_ever() -> None:
    x = np.zeros(305, "f4")
    x[[7, 100, 299]] = 2, -2, 1
    x[300:] = 0.5, -1.5, np.nan, 1, np.inf
    channel = Channel(THREE.format(1.0), [300, 2, 3], sender=2, small="cast(bf16)")
    assert bytes.fromhex(MESSAGE) == channel.send(x)
    out = np.empty(305, "f4")
    channel.receive(bytes.fromhex(MESSAGE), out)
    assert 1 == channel.state_dict()["error"][299]
    x[299] = 0
    assert x.tobytes() == out.tobytes()


def test_scales_belong_to_parts_and_tensors_cost_little() -> None:
    parts = [2000] * 40
    x = np.concatenate([gradients(k, [2000]) * np.float32(10.0 ** (k - 20)) for k in range(40)])
    channel, out = Channel(THREE.format(1.0), parts), np.empty_like(x)
    message = channel.send(x)
    channel.receive(message, out)
    for part in ends(parts):
        assert np.abs(out[part]).max() == np.abs(x[part]).max()
    _, frames = unpack(message)
    frame, _ = parse(frames[0])
    (scales, coded), _ = sizes_and_digests(frame.root, frame.record)
    assert 4 * 40 == scales
    assert len(message) - coded <= 8 * 40


def test_small_parts_go_as_bf16() -> None:
    parts = [10, 255, 1000, 3]
    x = gradients(3, parts)
    channel, out = Channel(THREE.format(1.5), parts), np.empty(sum(parts), "f4")
    channel.receive(channel.send(x), out)
    for number in (0, 1, 3):
        part = ends(parts)[number]
        assert x[part].astype(ml_dtypes.bfloat16).astype("f4").tobytes() == out[part].tobytes()
    assert 3 >= np.unique(out[ends(parts)[2]]).size


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_and_several_arrays(dtype: Any) -> None:
    x = [gradients(k, [n]).astype(dtype).reshape(2, -1) for k, n in enumerate((600, 20))]
    channel, single = Channel(THREE.format(1.0)), Channel(THREE.format(1.0), [600, 20])
    message = channel.send(x)
    assert message == single.send(np.concatenate([each.reshape(-1) for each in x]).astype("f4"))
    out = [np.ones_like(each) for each in x]
    channel.receive(message, out)
    flat = np.empty(620, "f4")
    single.receive(message, flat)
    assert flat.astype(dtype).tobytes() == b"".join(each.tobytes() for each in out)
    channel.receive(message, out, add=True)
    assert (2 * flat).astype(dtype).tobytes() == b"".join(each.tobytes() for each in out)


def test_seeds_differ_by_step_and_sender_and_errors_cancel() -> None:
    x = gradients(1, [5000])
    mean, count = np.zeros(5000), 0
    messages = set()
    for sender in range(8):
        channel = Channel(EDEN.format(1), [5000], sender=sender, feedback=False)
        for _ in range(8):
            message = channel.send(x)
            messages.add(bytes(unpack(message)[1][0]))
            channel.receive(message, out := np.empty(5000, "f4"))
            mean, count = mean + out, count + 1
    assert 64 == len(messages) == count
    error = np.square(mean / count - x).sum() / np.square(x).sum()
    assert error < 1.2 * 0.571 / 64
    assert not channel.state_dict()["error"].any()


@pytest.mark.parametrize("recipe", [THREE.format(1.75), EDEN.format(2)])
def test_a_saved_channel_goes_on_as_if_nothing_had_been(recipe: str) -> None:
    whole, before = Channel(recipe, PARTS, sender=3), Channel(recipe, PARTS, sender=3)
    expected = [whole.send(gradients(k)) for k in range(6)]
    got = [before.send(gradients(k)) for k in range(3)]
    after = Channel(recipe, sender=3)
    after.load_state_dict(before.state_dict())
    got += [after.send(gradients(k)) for k in range(3, 6)]
    assert expected == got
    with pytest.raises(ArgumentError, match="parts"):
        Channel(recipe, [TOTAL]).load_state_dict(before.state_dict())
    after.reset()
    assert not after.state_dict()["error"].any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_reducer_sums_and_keeps_what_its_own_coding_loses(recipe: str) -> None:
    workers = [Channel(recipe, PARTS, sender=k) for k in range(3)]
    reducer = Reducer(recipe, PARTS, mean=True, sender=3)
    total, true, out = np.zeros(TOTAL), np.zeros(TOTAL), np.empty(TOTAL, "f4")
    for step in range(20):
        x = [gradients(10 * step + k) for k in range(3)]
        answer = reducer.reduce([worker.send(each) for worker, each in zip(workers, x, strict=True)])
        assert 3 == workers[0].receive(answer, out).sender
        total += out
        true += np.mean(x, axis=0)
    errors = np.mean([worker.state_dict()["error"] for worker in workers], axis=0) + reducer.state_dict()["error"]
    assert np.abs(true - total - errors).max() <= 1e-4 * np.abs(true).max()
    x[1][17] = np.nan
    answer = reducer.reduce({k: worker.send(each) for (k, worker), each in zip(enumerate(workers), x, strict=True)})
    workers[2].receive(answer, out)
    assert np.isnan(out[17])
    assert np.isfinite(out[4000:]).all()
    assert np.isfinite(reducer.state_dict()["error"]).all()


def test_a_reducer_names_the_rank_at_fault() -> None:
    workers = [Channel(THREE.format(1.0), PARTS, sender=k) for k in range(3)]
    messages = [worker.send(gradients(k)) for k, worker in enumerate(workers)]
    reducer = Reducer(THREE.format(1.0), PARTS)
    for place in (2, 9, 14, len(messages[1]) - 1):
        bad = bytearray(messages[1])
        bad[place] ^= 4
        with pytest.raises(FeatherweightError) as caught:
            reducer.reduce([messages[0], bytes(bad), messages[2]])
        assert "rank 1" == caught.value.path.partition("/")[0]
    with pytest.raises(FrameError, match="rank 1: a message of rank 2"):
        reducer.reduce([messages[0], messages[2]])
    with pytest.raises(FrameError, match="rank 2: a message of step 1 among those of step 0"):
        reducer.reduce([*messages[:2], workers[2].send(gradients(0))])
    with pytest.raises(BaseMismatchError, match="other parts"):
        reducer.reduce([Channel(THREE.format(1.0), [TOTAL]).send(gradients(0))])
    with pytest.raises(ArgumentError, match="no message"):
        reducer.reduce([])
    assert not reducer.state_dict()["error"].any()


@pytest.mark.parametrize("recipe", [THREE.format(1.5), EDEN.format(1)])
def test_damage_and_hostility_raise_our_errors(recipe: str) -> None:
    x = gradients(0)
    x[:3] = np.nan
    good = Channel(recipe, PARTS, sender=7).send(x)
    channel, out = Channel(recipe, PARTS), np.empty(TOTAL, "f4")
    for size in range(0, len(good), 7):
        with pytest.raises(TruncatedError):
            channel.receive(good[:size], out)
    with pytest.raises(FrameError, match="bytes"):
        channel.receive(good + b"\0", out)
    with pytest.raises(UnsupportedError, match="upgrade"):
        channel.receive(good[:2] + b"\2" + good[3:], out)
    rng = np.random.default_rng(1)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        with pytest.raises(FeatherweightError):
            channel.receive(bytes(bad), out)
    # Heads that lie under a right checksum.
    head, frames = unpack(good)
    data = [bytes(frame) for frame in frames]
    lies = [
        {"plain": ()},
        {"plain": (0, 0)},
        {"plain": (-1,)},
        {"plain": (8,)},
        {"plain": (1,)},
        {"layout": 1},
        {"sizes": (0, *head.sizes[1:])},
        {"sizes": (head.sizes[0] + head.sizes[1], 0, head.sizes[2])},
        {"sizes": (-1, *head.sizes[1:])},
        {"step": -1},
    ]
    for lie in lies:
        with pytest.raises(FeatherweightError) as caught:
            channel.receive(pack(msgspec.structs.replace(head, **lie), data), out)
        assert not isinstance(caught.value, ArgumentError)
    for junk in (b"", b"\x93", msgspec.msgpack.encode([1]), msgspec.msgpack.encode([0, 0, 0, [0, 0, 0], [], 1])):
        start = good[:3] + len(junk).to_bytes(4, "little")
        sealed = start + featherweight.frame.checksum(start, junk).to_bytes(4, "little") + junk
        with pytest.raises(FrameError, match="not well-formed"):
            channel.receive(sealed, out)


def test_hostile_frames_in_a_message_raise_our_errors() -> None:
    channel, out = Channel(THREE.format(1.0), [400]), np.empty(400, "f4")
    head, _ = unpack(channel.send(gradients(0, [400])))
    refs = {"parts": np.array([400], np.uint64)}
    wrong = [
        featherweight.encode(np.zeros(401, "f4"), "raw"),
        featherweight.encode(np.zeros(400, "f8"), "raw"),
        featherweight.encode(np.zeros(400, "f4"), "delta(given=@base)", refs={"base": np.zeros(400, "f4")}),
        featherweight.encode(np.zeros(400, "f4"), THREE.format("given=@parts"), refs={"parts": np.array([200, 200])}),
    ]
    good = featherweight.encode(gradients(1, [400]), THREE.format("given=@parts"), refs=refs)
    frame, body = parse(good)
    for change in (b"\xff\xff\xff\xff", b"\0\0\x80\xbf", b"\0\0\x80\x7f"):  # scales: NaN, -1, infinity
        data = change + bytes(body[4:])
        record = (featherweight.frame.checksum(data), *frame.record[1:])
        wrong.append(featherweight.frame.join(msgspec.structs.replace(frame, record=record), [data]))
    for data in (bytes(body[:4]) + b"\xff" * (len(body) - 4), bytes(body[:-1]) + b"\xff", bytes(body[:-1]) + b"\0"):
        record = (featherweight.frame.checksum(data), *frame.record[1:])
        wrong.append(featherweight.frame.join(msgspec.structs.replace(frame, record=record), [data]))
    for bad in wrong[:-1]:
        with pytest.raises(FeatherweightError) as caught:
            channel.receive(pack(msgspec.structs.replace(head, sizes=(len(bad), 0, 0)), [bad]), out, sender=0)
        assert "rank 0" == caught.value.path.partition("/")[0]
        assert not isinstance(caught.value, ArgumentError)


def test_arguments_that_do_not_fit_are_refused() -> None:
    channel = Channel(THREE.format(1.0), [300])
    for bad in (np.zeros(299, "f4"), np.zeros(300, "i4"), [np.zeros(200, "f4")]):
        with pytest.raises(ArgumentError):
            channel.send(bad)
    message = channel.send(np.zeros(300, "f4"))
    readonly = np.zeros(300, "f4")
    readonly.flags.writeable = False
    for bad in (np.zeros(301, "f4"), np.zeros(300, "i4"), readonly):
        with pytest.raises(ArgumentError):
            channel.receive(message, bad)
    for options in ({"sender": -1}, {"sender": 1.5}):
        with pytest.raises(ArgumentError):
            Channel("raw", [1], **options)
    with pytest.raises(ArgumentError):
        Channel("raw", [-1])


def test_nothing_to_send_is_a_message_too() -> None:
    for parts in ([], [0, 0]):
        channel, out = Channel(THREE.format(1.0), parts), np.empty(0, "f4")
        head = channel.receive(channel.send(np.empty(0, "f4")), out)
        assert (0, 0, 0) == head.sizes


def test_once_warm_a_step_allocates_no_more_than_its_message() -> None:
    parts = [300_000, 100, 200_000]
    x = gradients(0, parts)
    channel, out = Channel(THREE.format(1.75), parts), np.empty(sum(parts), "f4")
    for _ in range(3):
        message = channel.send(x)
        channel.receive(message, out)
    tracemalloc.start()
    try:
        message = channel.send(x)
        channel.receive(message, out)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(message) + 40_000 < x.nbytes // 8
    finally:
        tracemalloc.stop()


def test_sending_and_receiving_go_on_in_threads() -> None:
    channel = Channel(THREE.format(1.5), PARTS)
    messages = [Channel(THREE.format(1.5), PARTS, sender=k).send(gradients(k)) for k in range(8)]
    expected = []
    for message in messages:
        Channel("raw", PARTS).receive(message, out := np.empty(TOTAL, "f4"))
        expected.append(out)
    outs = [np.empty(TOTAL, "f4") for _ in messages]

    def work(k: int) -> None:
        for _ in range(5):
            channel.receive(messages[k], outs[k])
            channel.send(gradients(k))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for out, right in zip(outs, expected, strict=True):
        assert right.tobytes() == out.tobytes()
    assert 40 == channel.state_dict()["step"]


@given(st.lists(st.integers(0, 5000), max_size=8), st.integers(1, 9), st.sampled_from([1, 256]))
def test_shards_are_the_whole_in_order_and_nearly_equal(parts: list[int], count: int, least: int) -> None:
    found = shards(parts, count, least=least)
    assert count == len(found)
    assert (0, sum(parts)) == (found[0].start, found[-1].stop)
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    assert all(sum(shard.parts) == shard.stop - shard.start for shard in found)
    assert all(shard.stop - shard.start <= sum(parts) / count + 2 * least for shard in found)
    ends = set(np.cumsum([0, *parts]).tolist())
    away = [min(abs(shard.stop - end) for end in ends) for shard in found]
    assert all(distance == 0 or distance >= least for distance in away)


def test_shards_sum_up_like_the_whole() -> None:
    x = [gradients(k) for k in range(3)]
    out = np.empty(TOTAL, "f4")
    for start, stop, parts in shards(PARTS, 3):
        workers = [Channel("raw", parts, sender=k, small="raw") for k in range(3)]
        reducer = Reducer("raw", parts, small="raw")
        answer = reducer.reduce([w.send(each[start:stop]) for w, each in zip(workers, x, strict=True)])
        reducer.receive(answer, out[start:stop])
    assert (x[0] + x[1] + x[2]).tobytes() == out.tobytes()


# The example, over sockets


def example() -> Any:
    path = Path(__file__).parent.parent / "examples" / "parameter_server.py"
    spec = importlib.util.spec_from_file_location("parameter_server", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_server(
    server: Any, workers: int, parts: list[int], steps: int, timeout: float
) -> tuple[Any, Callable[[], Any]]:
    listener = socket.create_server(("127.0.0.1", 0))
    result: list[Any] = []

    def serve() -> None:
        try:
            result.append(server.serve(listener, workers, parts, steps, timeout))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            result.append(error)
        finally:
            listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def outcome() -> Any:
        thread.join(30)
        assert result, "the server hangs"
        return result[0]

    return listener.getsockname()[:2], outcome


def test_workers_and_a_server_over_sockets() -> None:
    server = example()
    address, outcome = run_server(server, 2, PARTS, 40, 10.0)
    means: dict[int, list[Array]] = {0: [], 1: []}

    def work(rank: int) -> None:
        worker = server.Worker(address, rank, PARTS, 10.0)
        means[rank] = [worker.reduce(gradients(rank)) for _ in range(40)]
        worker.close()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 80 == len(means[0]) + len(means[1])
    assert outcome() < 40 * 4 * 4 * TOTAL // 8
    assert [m.tobytes() for m in means[0]] == [m.tobytes() for m in means[1]]
    true = 20 * (gradients(0) + gradients(1))
    assert np.square(np.sum(means[0], axis=0) - true).sum() < 0.5 * np.square(true).sum()


def test_a_worker_that_dies_is_silent_or_lies_is_an_error_for_the_server() -> None:
    server = example()
    for act, error in (
        (lambda worker: worker.peer.close(), OSError),
        (lambda worker: None, TimeoutError),
        (lambda worker: server.send(worker.peer, worker.channel.send(gradients(0))[:-1] + b"\0"), FrameError),
        (lambda worker: worker.peer.sendall(b"\xff" * 8), ConnectionError),
    ):
        address, outcome = run_server(server, 2, PARTS, 3, 0.5)
        workers = [server.Worker(address, rank, PARTS, 5.0) for rank in (0, 1)]
        server.send(workers[0].peer, workers[0].channel.send(gradients(0)))
        act(workers[1])
        raised = outcome()
        assert isinstance(raised, error)
        if isinstance(raised, FrameError):
            assert "rank 1" == raised.path.partition("/")[0]
        with pytest.raises(OSError):  # noqa: PT011 - how a peer that has gone shows differs from system to system
            workers[0].reduce(gradients(1))
        for worker in workers:
            worker.close()


def test_head_of_tells_sender_and_step() -> None:
    channel = Channel("raw", [3], sender=9)
    channel.send(np.zeros(3, "f4"))
    head = head_of(channel.send(np.zeros(3, "f4")))
    assert (9, 1) == (head.sender, head.step)
