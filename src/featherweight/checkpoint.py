"""Whole checkpoints, as people know them from safetensors: `save_file`, `load_file`, `open`.

Tensors are coded one after another and in pieces, so that memory stays bounded whatever their size: what is under way
at once is a few pieces per thread. Small tensors go through the pool whole, large ones piece by piece; which is which
depends on their size alone, so that the bytes are the same for any pool.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.engine import MAX_BYTES, ordered_map, thread_pool
from featherweight.errors import ArgumentError, BaseMismatchError, LimitError
from featherweight.formats import Checkpoint, TensorInfo, open_checkpoint, write_checkpoint
from featherweight.formats._io import Where, file_name, is_stream
from featherweight.formats.fw import FwFile, FwWriter, create
from featherweight.formats.memory import from_arrays
from featherweight.goals import Goal, Outcome, reach
from featherweight.lookups import Lookup
from featherweight.losses import Error
from featherweight.plan import Plan
from featherweight.stage import AnyRecipe, Codec
from featherweight.writing import (
    LARGE,
    Draft,
    Drafts,
    Progress,
    Work,
    energies,
    kept,
    light,
    local,
    no_base,
    outcome,
    rms,
    sampled,
    write,
)

__all__ = ["Encoded", "TensorFile", "TensorSlice", "decode_file", "encode_file", "load_file", "open", "save_file"]

WINDOW = 1 << 24  # elements of a large tensor decoded at a time where its bytes must be fetched first

Base = Where | Mapping[str, Any]


class Encoded(NamedTuple):
    """What encoding came to: the plan with what a goal found, the file's bytes, and the error of lossy tensors."""

    plan: Plan
    size: int
    error: Error | None


def save_file(
    tensors: Mapping[str, Any],
    path: Where,
    plan: Plan | AnyRecipe | str | None = None,
    *,
    goal: Goal | None = None,
    base: Base | None = None,
    metadata: Mapping[str, str] | None = None,
    codecs: Mapping[str, Any] = {},
    executor: Executor | None = None,
    threads: int | None = None,
) -> Encoded:
    """Encode arrays into a `.fw` file, which appears when all has gone well.

    `tensors` map names to arrays (anything `numpy.asarray` takes without a copy is not copied). `plan` is a recipe for
    all or a `Plan`, by default ``"lossless"``; of a lossy one, by default ``"tcq"``, the step may be left to a `goal`:
    ``plan="ecsq", goal=Goal(bits=3)``. `base` is a
    checkpoint that the decoder will have: tensors with a namesake of the same dtype and shape in it are coded as
    changes where that is smaller. `codecs` are stage classes of the caller's own. `executor` is any
    ``concurrent.futures.Executor``; by default `threads` threads, as many as there are processors.

    Returns what was done. Raises ArgumentError for arrays, names, recipes and goals that do not fit and OSError for
    what the system refuses; the file is then as it was.
    """
    for name in tensors:
        if not isinstance(name, str):
            raise ArgumentError(f"tensor names are strings, not {type(name).__name__}")
    source = from_arrays({name: np.asarray(value) for name, value in tensors.items()}, metadata)
    return _encode(source, path, plan, goal, base, codecs, executor, threads, None)


def encode_file(
    source: Where,
    target: Where,
    plan: Plan | AnyRecipe | str | None = None,
    *,
    goal: Goal | None = None,
    base: Base | None = None,
    codecs: Mapping[str, Any] = {},
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Encode a checkpoint file (safetensors, its sharded index, npz, .fw) into a `.fw` file; see `save_file`.

    What is needed to write the same file again is kept: names, order, metadata, and the header's bytes where they
    are not those that anybody would write.
    """
    with open_checkpoint(source) as checkpoint:
        return _encode(checkpoint, target, plan, goal, base, codecs, executor, threads, progress)


def decode_file(
    source: Where,
    target: Where,
    *,
    format: str | None = None,
    base: Base | None = None,
    codecs: Mapping[str, Codec] = {},
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode a `.fw` file into a checkpoint of another format, by the end of the target's name or by `format`.

    Tensors are decoded straight into the mapped target, which appears when all has gone well.
    """
    with open(source, base=base, codecs=codecs, max_bytes=max_bytes, threads=threads) as file:
        _check_target(target, source, base)
        kind = format or file.origin or "safetensors"
        infos = list(file.infos.values())
        with write_checkpoint(target, infos, metadata=file.metadata(), layout=file.layout, format=kind) as out:
            file.decode_into(out.tensor, progress)


def load_file(
    path: Where,
    *,
    base: Base | None = None,
    codecs: Mapping[str, Codec] = {},
    executor: Executor | None = None,
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
) -> dict[str, Array]:
    """Decode all tensors of a file into memory; `executor` is asked for whole tensors.

    Raises what `TensorFile` raises.
    """
    with open(path, base=base, codecs=codecs, max_bytes=max_bytes, threads=threads) as file:
        if executor is not None:
            load = functools.partial(_load_one, path, base, codecs, max_bytes)
            return dict(zip(file, executor.map(load, file), strict=True))
        result: dict[str, Array] = {}
        for name, info in file.infos.items():
            if info.count * info.kind.dtype.itemsize > max_bytes:
                raise LimitError(f"{info.count} elements are announced, max_bytes allows {max_bytes} bytes", path=name)
            result[name] = np.empty(info.shape, info.kind.dtype)

        @contextlib.contextmanager
        def place(name: str) -> Iterator[Array]:
            yield result[name].reshape(-1)

        file.decode_into(place)
    return result


def _load_one(path: Where, base: Any, codecs: Mapping[str, Codec], max_bytes: int, name: str) -> Array:
    with open(path, base=base, codecs=codecs, max_bytes=max_bytes, threads=1) as file:
        return file[name]


def open(
    path: Where,
    *,
    base: Base | None = None,
    codecs: Mapping[str, Codec] = {},
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
) -> TensorFile:
    """Open a checkpoint of any format as a lazy mapping from names to arrays.

    `path` is a path, a binary file object or an fsspec URL. One tensor costs one tensor: an open `.fw` file fetches it
    in one request.
    """
    return TensorFile(path, base=base, codecs=codecs, max_bytes=max_bytes, threads=threads)


class TensorFile(Mapping[str, Array]):
    """An open checkpoint; decodes a tensor when it is asked for, and keeps none.

    `infos` describes the tensors in the order of the file, `size` is the bytes of it, `origin` names the format that
    they came from. Reading raises KeyError for a name that is not there; FrameError, TruncatedError, LimitError or
    UnsupportedError for what the bytes hold; BaseMismatchError where the base is missing or another one.
    """

    def __init__(
        self,
        path: Where,
        *,
        base: Base | None = None,
        codecs: Mapping[str, Codec] = {},
        max_bytes: int = MAX_BYTES,
        threads: int | None = None,
    ) -> None:
        self._codecs, self._max_bytes, self._threads = codecs, max_bytes, threads
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._checkpoint = stack.enter_context(open_checkpoint(path))
            self._base, self._based = _open_base(base, stack), base is not None
            self._stack = stack.pop_all()
        container = self._checkpoint.container
        self.fw = container if isinstance(container, FwFile) else None
        self.name, self.format, self.size = self._checkpoint.name, self._checkpoint.format, self._checkpoint.size
        self.infos: Mapping[str, TensorInfo] = self._checkpoint.tensors
        self.layout: bytes = self._checkpoint.layout
        self.canonical: bool = self._checkpoint.canonical
        self.origin: str = self.fw.origin if self.fw else self._checkpoint.format

    def __getitem__(self, name: str) -> Array:
        """Decode a tensor into memory."""
        info = self._info(name)
        with thread_pool(self._threads if info.count >= LARGE else 1) as pool:
            return self._read(info, 0, info.count, None, pool).reshape(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __contains__(self, name: object) -> bool:
        return name in self.infos

    def metadata(self) -> dict[str, str]:
        """Return the metadata that the source carried."""
        return dict(self._checkpoint.metadata)

    def get_tensor(self, name: str) -> Array:
        """Decode a tensor into memory, as ``file[name]`` does."""
        return self[name]

    def get_slice(self, name: str) -> TensorSlice:
        """Return a tensor to be indexed before it is decoded: ``file.get_slice(name)[a:b]`` decodes those rows."""
        return TensorSlice(self, self._info(name))

    def lookup(self, name: str) -> Lookup:
        """Return a tensor of a `.fw` file whose elements can be read one by one: ``file.lookup(name).at(positions)``.

        Coded with `bloomier` or `ribbon` it is not decoded for that. The file must stay open.
        """
        info = self._info(name)
        if self.fw is None:
            raise ArgumentError(f"look-ups are for .fw files: take {name!r} as an array")
        refs = self._refs(info)
        return self.fw.lookup(name, refs=refs, codecs=self._codecs, max_bytes=self._max_bytes)

    def blocks(self, name: str, size: int = WINDOW, *, pool: Executor | None = None) -> Iterator[Array]:
        """Decode a tensor in flat blocks of at most `size` elements, one after another.

        Memory holds one block, unless the tensor was coded as a whole.
        """
        info, fw = self._info(name), self.fw
        if fw is not None and not fw.sliceable(name):
            whole = self._read(info, 0, info.count, None, pool)
            yield from (whole[start : start + size] for start in range(0, info.count, size))
            return
        step = fw.entries[name].frame.splits[0].step if fw is not None else size
        size -= size % step if step < size else 0  # a piece that two blocks share would be decoded twice
        for start in range(0, info.count, size):
            yield self._read(info, start, min(start + size, info.count), None, pool)

    def decode_into(
        self, place: Callable[[str], AbstractContextManager[Array]], progress: Progress | None = None
    ) -> None:
        """Decode all tensors, each into the flat array that ``place(name)`` gives for it."""
        with thread_pool(self._threads) as pool:
            for large, infos in itertools.groupby(self.infos.values(), lambda info: info.count >= LARGE):
                one = functools.partial(self._decode_one, place, pool if large else None)
                for info in map(one, infos) if large else ordered_map(pool, light=light)(one, infos):
                    if progress:
                        progress(info.name, info.packed)

    def _decode_one(
        self, place: Callable[[str], AbstractContextManager[Array]], pool: Executor | None, info: TensorInfo
    ) -> TensorInfo:
        with place(info.name) as flat:
            step = (
                info.count if local(self._checkpoint) or self.fw is None or not self.fw.sliceable(info.name) else WINDOW
            )
            for start in range(0, info.count, step or 1):
                self._read(info, start, min(start + step, info.count), flat[start : start + step], pool)
        return info

    def _read(self, info: TensorInfo, start: int, stop: int, out: Array | None, pool: Executor | None) -> Array:
        if self.fw is not None:
            return self.fw.read(
                info.name,
                start,
                stop,
                out=out,
                refs=self._refs(info),
                codecs=self._codecs,
                max_bytes=self._max_bytes,
                pool=pool,
            )
        found = self._checkpoint.read(info.name, start, stop)
        if out is None:
            return found
        out[:] = found
        return out

    def _refs(self, info: TensorInfo) -> dict[str, Array]:
        """Return what a tensor's frame must be given."""
        assert self.fw is not None
        base = self._base(info) if "base" in self.fw.entries[info.name].frame.refs else None
        if base is None and self._based and self.fw.entries[info.name].frame.refs:
            raise BaseMismatchError(
                "the base has no tensor of this name, dtype and shape: it is another one", path=info.name
            )
        return {} if base is None else {"base": base}

    def _info(self, name: str) -> TensorInfo:
        if name not in self.infos:
            raise KeyError(f"there is no tensor {name!r} in {self._checkpoint.name}")
        return self.infos[name]

    def close(self) -> None:
        """Let go of the file; arrays that were read stay valid."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TensorFile {self._checkpoint.name!r}: {len(self)} tensors>"


class TensorSlice:
    """A tensor that has not been decoded; indexing decodes the pieces that the rows lie in."""

    def __init__(self, file: TensorFile, info: TensorInfo) -> None:
        self._file, self._info = file, info

    def get_shape(self) -> list[int]:
        """Return the shape of the whole tensor."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """Return the dtype as safetensors names it."""
        return self._info.kind.name

    def __getitem__(self, key: Any) -> Array:
        """Index as NumPy does; only the first index, if it is an integer or a slice, spares decoding."""
        info = self._info
        first, *rest = (key if isinstance(key, tuple) else (key,)) or (...,)
        if not info.shape or not isinstance(first, (slice, int, np.integer)) or isinstance(first, bool):
            return np.asarray(self._rows(0, info.shape[0] if info.shape else 1)[key])
        if isinstance(first, slice):
            rows = range(info.shape[0])[first]
            low, high = (min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1) if rows else (0, 0)
            array = self._rows(low, high)[:: rows.step]
            return array[(slice(None), *rest)]
        row = range(info.shape[0])[first]  # raises IndexError as arrays do
        part: Array = self._rows(row, row + 1)[(0, *rest)]
        return part

    def _rows(self, low: int, high: int) -> Array:
        row = math.prod(self._info.shape[1:])
        flat = self._file._read(self._info, low * row, high * row, None, None)  # noqa: SLF001  (the two are one)
        return flat.reshape((high - low, *self._info.shape[1:]) if self._info.shape else ())


def _encode(
    checkpoint: Checkpoint,
    target: Where,
    wanted: Plan | AnyRecipe | str | None,
    goal: Goal | None,
    base: Base | None,
    codecs: Mapping[str, Any],
    executor: Executor | None,
    threads: int | None,
    progress: Progress | None,
) -> Encoded:
    plan = Plan.of(("tcq" if goal else "lossless") if wanted is None else wanted, codecs=codecs)
    _check_target(target, checkpoint.source.where if checkpoint.source else None, base)
    if not is_stream(target) and file_name(target).lower().endswith((".safetensors", ".index.json", ".npz")):
        raise ArgumentError("what is encoded is a .fw file: let its name end in .fw", path=file_name(target))
    if goal is None and plan.open:
        raise ArgumentError("sensitivities say how a goal is met: name one, such as goal=Goal(bits=3)")
    with contextlib.ExitStack() as stack:
        lookup = _open_base(base, stack)
        infos = checkpoint.tensors.values()
        if base is not None and infos and all(lookup(info) is None for info in infos):
            raise ArgumentError(
                "no tensor of the base has the name, dtype and shape of one here: it is another model's"
            )
        pool = executor or stack.enter_context(thread_pool(threads))
        mapper, whole = ordered_map(pool), ordered_map(pool, light=light)
        work = Work(checkpoint, lookup, mapper, whole, codecs, executor is not None and local(checkpoint))
        tell = progress or (lambda name, size: None)
        if goal is None:
            with create(target, **kept(checkpoint)) as writer:
                write(work, writer, plan, tell)
        else:
            plan, writer = _reach(work, goal, plan, target)
            for info in checkpoint.tensors.values():
                tell(info.name, info.packed)
    return Encoded(plan, writer.size, writer.error if any(e for _, e in writer.tensors.values()) else None)


def _reach(work: Work, goal: Goal, plan: Plan, target: Where) -> tuple[Plan, FwWriter]:
    """Search for the goal, and make the draft that meets it the target."""
    with contextlib.ExitStack() as stack:
        drafts = stack.enter_context(contextlib.closing(Drafts(work, target)))

        def rehearse(plan: Plan) -> Outcome:
            draft = drafts.make(plan)
            score = None if goal.score is None else _score(work, goal.score, draft)
            return outcome(work, draft, score)

        powers = energies(work.checkpoint)
        plan, found = reach(goal, plan, rehearse, rms(work.checkpoint, powers), sampled(work, powers, stack, drafts))
        found.draft.publish(target)
        return plan, found.draft.writer


def _score(work: Work, score: Callable[[Mapping[str, Array]], float], draft: Draft) -> float:
    arrays = {info.name: work.lookup(info) for info in work.checkpoint.tensors.values()}
    base = {name: array for name, array in arrays.items() if array is not None}
    return float(score(load_file(draft.file, base=base or None, codecs=work.codecs)))


def _check_target(target: Where, *others: Any) -> None:
    """Raise ArgumentError where the target is a file that is being read, or will be needed again."""
    for other in others:
        if isinstance(target, str | os.PathLike) and isinstance(other, str | os.PathLike):
            with contextlib.suppress(OSError):
                if Path(target).samefile(other):
                    raise ArgumentError("the target is the source or the base itself: name another", path=str(target))


def _open_base(base: Base | None, stack: contextlib.ExitStack) -> Callable[[TensorInfo], Array | None]:
    """Return a lookup of what a base has under a tensor's name, if its dtype and shape are the same."""
    if base is None:
        return no_base
    source: Mapping[str, Any] = base if isinstance(base, Mapping) else stack.enter_context(open(base))

    def lookup(info: TensorInfo) -> Array | None:
        if info.name not in source:
            return None
        if isinstance(source, TensorFile) and (source.infos[info.name].kind, source.infos[info.name].shape) != (
            info.kind,
            info.shape,
        ):
            return None
        array = np.asarray(source[info.name])
        return array if array.shape == info.shape and dtypes.of(array.dtype) == info.kind else None

    return lookup
