"""Encode one array into a frame and decode it again: what `featherweight.encode` and `featherweight.decode` are."""

from __future__ import annotations

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from featherweight import dtypes
from featherweight.decoder import prepare, run
from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError
from featherweight.frame import Frame, join, parse
from featherweight.recipes import parse as parse_recipe
from featherweight.stage import AnyRecipe, Codec

__all__ = ["MAX_BYTES", "decode", "encode", "inspect", "ordered_map", "thread_pool", "workers"]

MAX_BYTES = 1 << 34


def encode(
    x: Array,
    recipe: AnyRecipe | str = "lossless",
    /,
    *,
    refs: Mapping[str, Array] = {},
    codecs: Mapping[str, Any] = {},
    threads: int | None = None,
) -> bytes:
    """Encode an array into a frame.

    `recipe` is a recipe, a stage, a selector, or text (``"lossless"``, ``"planes(exponent=huffman)"``). `refs` are
    arrays that the decoder will have too, named in recipes as ``@name``. `codecs` are the caller's own stage classes,
    by the name that recipe text gives them. The bytes do not depend on `threads`.

    Raises ArgumentError for an array or a recipe that does not fit; the array is left as it was.

    >>> import numpy as np
    >>> frame = encode(np.zeros((512, 384), "f4"))
    >>> decode(frame).shape, len(frame) < 40
    ((512, 384), True)
    """
    node = parse_recipe(recipe, codecs) if isinstance(recipe, str) else recipe
    body: list[Array] = []
    array = dtypes.native(x)
    with thread_pool(threads if array.size > 1 << 17 else 1) as pool:
        frame = encode_into(body.append, array, node, refs=refs, mapper=ordered_map(pool)).frame
    return join(frame, body)


def decode(
    frame: Any,
    /,
    *,
    out: Array | None = None,
    refs: Mapping[str, Array] = {},
    codecs: Mapping[str, Codec] = {},
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
) -> Array:
    """Decode a frame.

    `out`, C-contiguous, native, writable, of the frame's dtype and shape, is filled and returned; it must overlap
    neither the frame nor a reference, and its contents are undefined after an error. `codecs` are the caller's own, by
    name. `max_bytes` bounds result and intermediates, and is checked before anything is allocated.

    Raises TruncatedError, FrameError, LimitError, UnsupportedError or BaseMismatchError for the bytes, ArgumentError
    for `out`.
    """
    head, body = parse(frame)
    count = workers(threads)
    plan = prepare(head, refs, codecs, max_bytes, count)
    if out is None:
        out = np.empty(plan.spec.shape, plan.spec.dtype)
    else:
        check_out(out, plan.spec.dtype, plan.spec.shape, [np.frombuffer(body, np.uint8), *(a for _, a in plan.refs)])
    many = any(len(split.pieces) > 1 for split in head.splits)
    with thread_pool(count if many else 1) as pool:
        run(plan, lambda offset, length: body[offset : offset + length], out, pool)
    return out


def inspect(frame: Any, /) -> Frame:
    """Parse a frame and check its head; runs no codec.

    Raises TruncatedError, FrameError or UnsupportedError.
    """
    return parse(frame).frame


def check_out(out: Any, dtype: np.dtype[Any], shape: tuple[int, ...], others: Iterable[Array]) -> None:
    """Raise ArgumentError unless `out` can be filled in place."""
    if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != shape:
        found = f"{out.dtype}{list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArgumentError(f"out must be {dtype}{list(shape)}, not {found}", path="out")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned and out.dtype.isnative):
        raise ArgumentError("out must be C-contiguous, writable, aligned and native", path="out")
    if any(np.may_share_memory(out, other) for other in others):
        raise ArgumentError("out overlaps the frame or a reference", path="out")


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
    Pools are kept: threads that live on keep their scratch memory. What runs in a pool must not wait for it.
    """
    count = workers(threads)
    return nullcontext(_pool(count) if count > 1 else None)


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count - 1, "featherweight")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def ordered_map(
    pool: Executor | None, ahead: int = 4, light: Callable[[Any], bool] = lambda item: False
) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
    """Return a `map` that keeps a few calls under way in `pool` and gives their results in order.

    Unlike ``Executor.map`` it takes no more from its input than it has under way, so that memory stays bounded. What
    is `light`, and would cost more to hand over than to do, the caller does itself.
    """
    if pool is None:
        return map
    window = ahead * (getattr(pool, "_max_workers", None) or os.cpu_count() or 1)
    near = isinstance(pool, ThreadPoolExecutor)

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        begun = ([_done(function, x) if light(x) else pool.submit(function, x), x] for x in items)
        waiting: collections.deque[list[Any]] = collections.deque()
        try:
            waiting.extend(itertools.islice(begun, window))
            while waiting:
                # While the oldest is under way, what nobody has begun is begun here, if the caller is a thread as any.
                for call in waiting if near else ():
                    if waiting[0][0].done():
                        break
                    if call[0].cancel():
                        call[0] = _done(function, call[1])
                result = waiting.popleft()[0].result()
                waiting.extend(itertools.islice(begun, 1))
                yield result
        finally:
            for future, _ in waiting:
                future.cancel()
            wait([future for future, _ in waiting])  # what is under way still reads and writes the caller's memory

    return mapped


def _done(function: Callable[[Any], Any], item: Any) -> Future[Any]:
    """Call a function now; what it raises is raised in its turn."""
    future: Future[Any] = Future()
    try:
        future.set_result(function(item))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the result is asked for)
        future.set_exception(error)
    return future
