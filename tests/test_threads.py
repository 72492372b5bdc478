"""The map that threads share: its order, its bounds, its errors."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from featherweight.errors import ArgumentError
from featherweight.threads import ordered_map, thread_pool, workers


def numbers(count: int, taken: list[int]) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def after_a_while(number: int) -> int:
    time.sleep(0.001 * (number % 3))
    if number in (20, 21):
        raise ArgumentError(f"number {number}")
    return number


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_results_and_errors_keep_their_order(threads: int) -> None:
    with thread_pool(threads) as pool:
        mapped = ordered_map(pool, light=lambda number: number % 4 == 1)
        assert list(mapped(after_a_while, range(20))) == list(range(20))
        done: list[int] = []
        with pytest.raises(ArgumentError, match="number 20"):  # 21 is light, and fails sooner
            done.extend(mapped(after_a_while, range(40)))
        assert done == list(range(20))
        assert list(mapped(after_a_while, iter(range(5)))) == list(range(5))  # the pool is as it was
        assert list(mapped(after_a_while, ())) == []


@pytest.mark.parametrize("threads", [2, 5])
def test_no_more_is_taken_than_a_few_items_for_each_thread(threads: int) -> None:
    taken: list[int] = []
    with thread_pool(threads) as pool:
        results = ordered_map(pool, ahead=2)(lambda number: number, numbers(1000, taken))
        for number in results:
            assert len(taken) <= number + 1 + 2 * (threads - 1)
            time.sleep(0.0001)
    assert taken == list(range(1000))


def test_what_the_items_raise_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(7)
        raise OSError("the disk is gone")

    done: list[int] = []
    with thread_pool(3) as pool, pytest.raises(OSError, match="disk"):
        done.extend(ordered_map(pool)(after_a_while, items()))
    assert done == list(range(7))


def test_who_stops_asking_waits_for_what_is_under_way() -> None:
    under_way, seen = [0], []
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            under_way[0] += 1
        time.sleep(0.002)
        with lock:
            under_way[0] -= 1
        return number

    with thread_pool(4) as pool:
        for number in ordered_map(pool)(work, range(100)):
            seen.append(number)
            if number == 9:
                break
        assert under_way == [0]
        assert seen == list(range(10))


def test_two_callers_share_a_pool() -> None:
    found: dict[int, list[int]] = {}

    def call(offset: int) -> None:
        with thread_pool(2) as pool:
            found[offset] = list(ordered_map(pool, ahead=1)(after_a_while, range(offset, offset + 15)))

    callers = [threading.Thread(target=call, args=(offset,)) for offset in (30, 50, 70)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == {offset: list(range(offset, offset + 15)) for offset in (30, 50, 70)}


def test_a_pool_that_takes_nothing_more_leaves_it_to_the_caller() -> None:
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    assert list(ordered_map(pool)(after_a_while, range(10))) == list(range(10))


def test_any_executor_will_do() -> None:
    class AtOnce(Executor):
        def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(*args, **named))
            return future

    taken: list[int] = []
    results = ordered_map(AtOnce(), ahead=1)(after_a_while, numbers(15, taken))
    assert next(results) == 0
    assert len(taken) <= 1 + workers(None)
    assert list(results) == list(range(1, 15))
    with pytest.raises(ArgumentError, match="at least 1"):
        workers(0)


@pytest.mark.parametrize("waits", [False, True])
def test_all_threads_work_at_once(waits: bool) -> None:
    together = threading.Barrier(8, timeout=60)

    def work(number: int) -> int:
        together.wait()
        return number

    with thread_pool(8) as pool:
        assert list(ordered_map(pool, waits=waits)(work, range(8))) == list(range(8))


def test_threads_that_keep_each_other_waiting_leave_the_work_to_few_but_not_where_calls_wait() -> None:
    def work(number: int) -> int:
        time.sleep(0.001)
        return threading.get_ident()

    with thread_pool(8) as pool:
        assert len(set(list(ordered_map(pool)(work, range(200)))[100:])) < 8
        assert len(set(ordered_map(pool, waits=True)(work, range(400)))) == 8


def test_a_call_maps_in_the_pool_that_it_runs_in() -> None:
    with thread_pool(3) as pool:
        mapped = ordered_map(pool)

        def inner(number: int) -> int:
            return sum(mapped(after_a_while, range(number)))

        assert list(mapped(inner, range(12))) == [sum(range(number)) for number in range(12)]


def test_who_is_done_does_not_wait_for_helpers_that_are_at_other_work() -> None:
    release, begun = threading.Event(), threading.Barrier(4, timeout=60)

    def long(number: int) -> int:
        begun.wait()
        assert release.wait(60)
        return number

    with thread_pool(3) as pool:
        other = threading.Thread(target=lambda: list(ordered_map(pool)(long, range(3))))
        other.start()
        begun.wait()  # all threads of the pool are in it
        assert list(ordered_map(pool)(after_a_while, range(9))) == list(range(9))
        release.set()
        other.join(60)
    assert not other.is_alive()


def test_helpers_that_are_called_off_are_not_waited_for() -> None:
    pool = ThreadPoolExecutor(1)
    hold = threading.Event()
    pool.submit(hold.wait)  # nobody is free to help
    results = ordered_map(pool)(after_a_while, range(10))
    assert next(results) == 0
    pool.shutdown(wait=False, cancel_futures=True)
    assert list(results) == list(range(1, 10))
    hold.set()


def test_where_no_thread_can_be_started_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(ordered_map(ThreadPoolExecutor(3))(after_a_while, range(10))) == list(range(10))


def test_an_error_about_what_is_light_is_an_error_of_that_item() -> None:
    def light(number: int) -> bool:
        if number == 5:
            raise ArgumentError("heavy")
        return False

    done: list[int] = []
    with thread_pool(3) as pool, pytest.raises(ArgumentError, match="heavy"):
        done.extend(ordered_map(pool, light=light)(after_a_while, range(9)))
    assert done == list(range(5))
