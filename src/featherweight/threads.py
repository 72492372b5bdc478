"""Threads: pools that are kept, and a `map` that lets them work ahead and gives results in order."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from featherweight.errors import ArgumentError

__all__ = ["ordered_map", "thread_pool", "workers"]

_NONE: Any = object()
_FIRST = 8.0  # threads to begin with
_MARGIN = 1.4  # threads that there may be for each that would never wait
_AGAIN = 32  # items after which one that works alone tries to share


def workers(threads: int | None) -> int:
    """Return how many threads to use: `threads`, or the processors that this process may use."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ArgumentError(f"threads={threads}: expected at least 1")
    return threads


def thread_pool(threads: int | None) -> AbstractContextManager[Executor | None]:
    """Return a context whose value is a pool, or None where one thread is enough.

    The pool has one thread less, for the caller is one too: where three fight for the interpreter, two get less done.
    Pools are kept: threads that live on keep their scratch memory. What runs in a pool may wait for what others have
    begun, but not for what is still to begin.
    """
    count = workers(threads)
    return nullcontext(_pool(count) if count > 1 else None)


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count - 1, "featherweight")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def ordered_map(
    pool: Executor | None, ahead: int = 4, light: Callable[[Any], bool] = lambda item: False, waits: bool = False
) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
    """Return a `map` that works in `pool` and gives results, and what a call raised, in order.

    Unlike ``Executor.map`` it takes no more than `ahead` items for each worker before their results are wanted, so that
    memory stays bounded. Of a pool of threads the caller is one, and each takes the items as it comes to them; a call
    may map in the same pool. What is `light` is mostly the interpreter's work, for which threads would rather wait for
    each other. Calls that, as `waits` says, wait for something else than the interpreter, such as a network, are made
    by as many threads as there are.
    """
    if pool is None:
        return map
    most = getattr(pool, "_max_workers", None) or os.cpu_count() or 1
    if isinstance(pool, ThreadPoolExecutor):
        return lambda function, items: _Line(function, items, pool, most, ahead, light, waits=waits).results()
    return functools.partial(_elsewhere, pool, ahead * most)


class _Line:
    """Items that threads take one after another, and their results, which leave in the same order.

    Items are made, and light ones done, by any of the threads, under a lock. Threads share one interpreter: how much of
    the time of a call goes by without work, for whatever reason, tells how many are of use; more would keep each other
    from it. Who has been asked to help and has not begun is not waited for: the threads of the pool may all be at other
    work, or the caller be one of them.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        pool: Executor,
        most: int,
        ahead: int,
        light: Callable[[Any], bool],
        *,
        waits: bool,
    ) -> None:
        self._function, self._items, self._light = function, iter(items), light
        self._pool, self._most, self._window = pool, most, ahead * most
        self._changed = threading.Condition(threading.Lock())
        self._made: dict[int, tuple[Any, BaseException | None]] = {}
        self._taken = self._given = self._asked = self._busy = 0
        self._futures: list[Future[None]] = []
        self._waits, self._useful = waits, most + 1.0 if waits else _FIRST
        self._ended = False

    def results(self) -> Iterator[Any]:
        """Give the results, and work on what comes next while the first is not there."""
        try:
            while True:
                with self._changed:
                    made = self._made.pop(self._given, None)
                    if made is not None:
                        self._given += 1
                        if self._taken - self._given <= self._window // 2:
                            self._call_one()
                    elif self._ended and self._given == self._taken:
                        return
                if made is None:
                    if not self._step():
                        self._wait(lambda: self._given in self._made or self._given == self._taken)
                    continue
                result, error = made
                if error is not None:
                    raise error
                yield result
        finally:
            with self._changed:
                self._ended = True
            for future in self._futures:
                future.cancel()
            self._wait(lambda: self._busy == 0)  # what is under way still reads and writes the caller's memory

    def _wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(until)

    def _call_one(self) -> None:
        """Ask another thread to work, too; it will ask the next."""
        helpers = self._busy + self._asked
        if helpers < self._most and helpers + 2 <= self._useful and not self._ended:
            with contextlib.suppress(RuntimeError):  # where no thread can be started, those that there are do it
                future = self._pool.submit(self._work)
                self._futures = [future, *(each for each in self._futures if not each.done())]
                self._asked += 1

    def _work(self) -> None:
        with self._changed:
            self._asked = max(self._asked - 1, 0)
            if self._ended:
                return
            self._busy += 1
        try:
            while self._step() and self._busy + 1 <= self._useful:
                pass
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _next(self) -> tuple[Any, bool]:
        """Take an item, `_NONE` behind the last, and say whether it is to be done under the lock."""
        item = next(self._items, _NONE)
        return item, not self._waits and item is not _NONE and self._light(item)

    def _step(self) -> bool:
        """Do the next item, if there is one and its result may wait."""
        with self._changed:
            if self._ended or self._taken - self._given >= self._window:
                return False
            found, error = _attempt(self._next)
            item, light = found or (None, False)
            if item is _NONE:
                self._ended = True
                return False
            number = self._taken
            self._taken += 1
            if error is not None:
                self._ended, self._made[number] = True, (None, error)
                return True
            if light:  # nobody else goes on meanwhile
                self._made[number] = _attempt(self._function, item)
                return True
            self._call_one()
        began, worked = time.perf_counter(), time.thread_time()
        made = _attempt(self._function, item)
        worked, passed = time.thread_time() - worked, time.perf_counter() - began
        with self._changed:
            self._made[number] = made
            if not self._waits:
                useful = _MARGIN * (self._busy + 1) * min(worked / max(passed, 1e-9), 1.0)
                self._useful += (useful - self._useful) / 3
                if number % _AGAIN == 0:
                    self._useful = max(self._useful, 2)
            if number == self._given:
                self._changed.notify_all()
        return True


def _attempt(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """Call a function; what it raises is raised where the result is asked for, whatever it is."""
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001
        return None, error


def _elsewhere(pool: Executor, window: int, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Map in an executor of any kind, perhaps of other processes."""
    begun = (pool.submit(function, item) for item in items)
    waiting: collections.deque[Future[Any]] = collections.deque()
    try:
        waiting.extend(itertools.islice(begun, window))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(itertools.islice(begun, 1))
            yield result
    finally:
        wait([future for future in waiting if not future.cancel()])
