"""Read checkpoints of any format: a lazy mapping from names to arrays, slices of them, and all of them at once."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np

from featherweight import dtypes
from featherweight.bundles import LARGE
from featherweight.dtypes import Array
from featherweight.engine import MAX_BYTES, check_out
from featherweight.errors import ArgumentError, BaseMismatchError, LimitError
from featherweight.formats import TensorInfo, open_checkpoint
from featherweight.formats._io import Where
from featherweight.formats.fw import FwFile
from featherweight.lookups import Lookup
from featherweight.stage import Codec
from featherweight.threads import ordered_map, thread_pool, workers
from featherweight.writing import Progress, light, local, no_base

__all__ = ["Base", "TensorFile", "TensorSlice", "base_of", "load_file", "open"]

WINDOW = 1 << 24  # elements of a large tensor decoded at a time where its bytes must be fetched first
_MOST = 1 << 23  # elements that one thread decodes alone, for which the others may wait in the end
_NOTHING = np.empty(0)

Base = Where | Mapping[str, Any]


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

    Small tensors of a kind may be parts of one larger array, of a mebibyte or two, which lives as long as one of them.
    Raises what `TensorFile` raises.
    """
    with open(path, base=base, codecs=codecs, max_bytes=max_bytes, threads=threads) as file:
        if executor is not None:
            load = functools.partial(_load_some, path, base, codecs, max_bytes)
            loaded = {name: x for some in executor.map(load, file.bodies()) for name, x in some.items()}
            return {name: loaded[name] for name in file}
        return file._load()  # noqa: SLF001  (the two are one)


def _load_some(
    path: Where, base: Any, codecs: Mapping[str, Codec], max_bytes: int, names: tuple[str, ...]
) -> dict[str, Array]:
    with open(path, base=base, codecs=codecs, max_bytes=max_bytes, threads=1) as file:
        return {name: file[name] for name in names}


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


def _parted(elements: Array, infos: Iterable[TensorInfo]) -> Iterator[tuple[TensorInfo, Array]]:
    """Return the elements of each tensor of a bundle."""
    start = 0
    for info in infos:
        yield info, elements[start : start + info.count]
        start += info.count


class TensorFile(Mapping[str, Array]):
    """An open checkpoint; decodes a tensor when it is asked for, and keeps none but small ones of a bundle.

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
            self._base, self._based = base_of(base, stack), base is not None
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
        for infos in self._each(functools.partial(self._decode_some, place)):
            for info in infos:
                if progress:
                    progress(info.name, info.packed)

    def _load(self) -> dict[str, Array]:
        """Decode all tensors into memory, those of a bundle into one array."""
        result: dict[str, Array] = {}
        for name, info in self.infos.items():
            if info.count * info.kind.dtype.itemsize > self._max_bytes:
                most = f"max_bytes allows {self._max_bytes} bytes"
                raise LimitError(f"{info.count} elements are announced, {most}", path=name)
            result[name] = _NOTHING  # in the order of the file

        def one(pool: Executor | None, infos: list[TensorInfo]) -> list[TensorInfo]:
            if self.fw is not None and len(infos) > 1:
                elements = self.fw.whole(infos[0].name, self._codecs, self._max_bytes)
                for info, part in _parted(elements, infos):
                    result[info.name] = part.reshape(info.shape)
                return infos
            (info,) = infos
            result[info.name] = np.empty(info.shape, info.kind.dtype)
            return self._decode_some(lambda name: contextlib.nullcontext(result[name].reshape(-1)), pool, infos)

        for _ in self._each(one):
            pass
        return result

    def _each(
        self, decode: Callable[[Executor | None, list[TensorInfo]], list[TensorInfo]]
    ) -> Iterator[list[TensorInfo]]:
        """Decode body by body, in threads where there are any."""
        with thread_pool(self._threads) as pool:
            bodies = ([self.infos[name] for name in names] for names in self.bodies())
            mapped = ordered_map(pool, light=light, waits=not local(self._checkpoint))
            most = self._share(pool)
            for large, some in itertools.groupby(bodies, lambda infos: infos[0].count >= most):
                run = map if large else mapped
                yield from run(functools.partial(decode, pool if large else None), some)

    def _share(self, pool: Executor | None) -> int:
        """Return the elements below which a tensor is decoded by one thread: its share of all, which spares waiting."""
        if pool is None or self.fw is None or not local(self._checkpoint):
            return LARGE
        total = sum(info.count for info in self.infos.values())
        return min(max(LARGE, total // workers(self._threads) + 1), _MOST)

    def bodies(self) -> Iterator[tuple[str, ...]]:
        """Name the tensors, together those that are decoded together."""
        return ((name,) for name in self.infos) if self.fw is None else self.fw.bodies()

    def _decode_some(
        self, place: Callable[[str], AbstractContextManager[Array]], pool: Executor | None, infos: list[TensorInfo]
    ) -> list[TensorInfo]:
        if self.fw is not None and len(infos) > 1:
            elements = self.fw.bundle(infos[0].name, self._codecs, self._max_bytes)
            for info, part in _parted(elements, infos):
                with place(info.name) as flat:
                    out = flat[: info.count]
                    check_out(out, part.dtype, part.shape, ())
                    out[:] = part
            return infos
        for info in infos:
            whole = local(self._checkpoint) or self.fw is None or not self.fw.sliceable(info.name)
            step = info.count if whole else WINDOW
            with place(info.name) as flat:
                for start in range(0, info.count, step or 1):
                    self._read(info, start, min(start + step, info.count), flat[start : start + step], pool)
        return infos

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


def base_of(
    base: Base | None, stack: contextlib.ExitStack, wanted: Iterable[TensorInfo] = ()
) -> Callable[[TensorInfo], Array | None]:
    """Return a lookup of what a base has under a tensor's name, if its dtype and shape are the same.

    Raises ArgumentError where it has that of none of those that are wanted.
    """
    if base is None:
        return no_base
    source: Mapping[str, Any] = base if isinstance(base, Mapping) else stack.enter_context(open(base))

    def has(info: TensorInfo) -> bool:
        if info.name not in source:
            return False
        if isinstance(source, TensorFile):  # without decoding it
            found = source.infos[info.name]
            return (found.kind, found.shape) == (info.kind, info.shape)
        array = np.asarray(source[info.name])
        return array.shape == info.shape and dtypes.of(array.dtype) == info.kind

    names = list(wanted)
    if names and not any(map(has, names)):
        raise ArgumentError("no tensor of the base has the name, dtype and shape of one here: it is another model's")
    return lambda info: np.asarray(source[info.name]) if has(info) else None
