"""Encode one array into a frame and decode it again: what `featherweight.encode` and `featherweight.decode` are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from featherweight.threads import ordered_map, thread_pool, workers

__all__ = ["MAX_BYTES", "check_out", "decode", "encode", "inspect"]

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
