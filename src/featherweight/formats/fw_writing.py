"""Write `.fw` files: bodies one after another as they are coded, then the index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

from featherweight.dtypes import Array
from featherweight.encoder import Coded, Loadable, Mapper, encode_into
from featherweight.errors import ArgumentError, within
from featherweight.formats._index import ALIGNED_FROM, ALIGNMENT, MAGIC, Index, Part, Row, pack, said
from featherweight.formats._io import Where, create_target
from featherweight.frame import Frame, body_size
from featherweight.losses import Error, joined
from featherweight.stage import AnyRecipe

__all__ = ["FwWriter", "Told", "create"]


class Told(NamedTuple):
    """A tensor of a body: what the index will say of it."""

    name: str
    shape: tuple[int, ...]
    error: Error | None = None


class _Written(NamedTuple):
    """A body of a file that is being written: where it lies, what is in it, and the error of all of that."""

    place: int
    size: int
    padding: int
    aligned: bool
    frame: Frame
    tensors: tuple[Told, ...]
    error: Error | None


class FwWriter:
    """Writes bodies one after another; see `create`."""

    def __init__(
        self, target: _Writable, metadata: Mapping[str, str], layout: bytes, origin: str, order: Iterable[str] = ()
    ) -> None:
        self._target, self._kept, self._order = target, (dict(metadata), layout, origin), tuple(order)
        self._written: dict[tuple[str, ...], _Written] = {}
        self._names: dict[str, int] = {}
        self._size = 0
        target.write(MAGIC)

    def encode(
        self,
        name: str,
        x: Array,
        recipe: AnyRecipe,
        *,
        refs: Mapping[str, Array] = {},
        mapper: Mapper = map,
        locate: Callable[[int, int], Loadable] | None = None,
    ) -> None:
        """Code a tensor and write its body as it is made."""
        # How long the body gets, and so whether it is worth aligning, is known only afterwards: ask the input.
        padding = self._begin((name,), aligned := x.nbytes >= ALIGNED_FROM)
        with within(name, ": "):
            coded = encode_into(self._target.write, x, recipe, refs=refs, mapper=mapper, locate=locate, measure=True)
        self._add((Told(name, x.shape, coded.error),), padding, aligned, coded.frame)

    def put(self, tensors: Sequence[Told], coded: Coded, body: Sequence[Array]) -> None:
        """Write what has been coded already: a tensor, or a bundle of several, in the order in which they lie there."""
        names = tuple([told.name for told in tensors])
        padding = self._begin(names, aligned := sum(map(len, body)) >= ALIGNED_FROM)
        for data in body:
            self._target.write(data)
        self._add(tuple(tensors), padding, aligned, coded.frame)

    def take(self, names: tuple[str, ...], other: FwWriter, file: BinaryIO) -> None:
        """Write a body as another writer has written it into a file."""
        found = other._written[names]
        padding, place = self._begin(names, found.aligned), self._target.tell()
        file.seek(found.place)
        for start in range(0, found.size, 1 << 20):
            self._target.write(file.read(min(found.size - start, 1 << 20)))
        self._written[names] = found._replace(place=place, padding=padding)

    @property
    def bodies(self) -> dict[tuple[str, ...], tuple[int, Error | None]]:
        """The bytes and the error of each, by the names of its tensors."""
        return {names: (each.padding + each.size, each.error) for names, each in self._written.items()}

    def told(self, names: tuple[str, ...]) -> tuple[Told, ...]:
        """Return what was told of the tensors of a body."""
        return self._written[names].tensors

    @property
    def error(self) -> Error:
        """That of the lossy tensors so far."""
        return joined((len(told.shape), told.error) for each in self._written.values() for told in each.tensors)

    @property
    def exact(self) -> bool:
        """Whether no tensor so far has lost anything."""
        return all(each.error is None for each in self._written.values())

    @property
    def size(self) -> int:
        """The bytes so far; when it is finished, those of the file."""
        last = next(reversed(self._written.values()), None)
        return self._size or (len(MAGIC) if last is None else last.place + last.size)

    def finish(self) -> None:
        """Write index and tail, unless they are written."""
        if self._size:
            return
        rows = tuple([_row(each) for each in self._written.values()])
        order = tuple([self._names[name] for name in self._order])
        index = Index(rows, *self._kept, () if list(order) == sorted(order) else order)
        for data in pack(index):
            self._target.write(data)
        self._size = self._target.tell()

    def _begin(self, names: tuple[str, ...], aligned: bool) -> int:
        for name in names:
            if name in self._names:
                raise ArgumentError("the name is given twice", path=name)
            self._names[name] = len(self._written)
        padding = -self._target.tell() % ALIGNMENT if aligned else 0
        self._target.write(bytes(padding))
        return padding

    def _add(self, tensors: tuple[Told, ...], padding: int, aligned: bool, frame: Frame) -> None:
        size = body_size(frame)
        place, names = self._target.tell() - size, tuple([told.name for told in tensors])
        errors = [told.error for told in tensors if told.error is not None]
        error = sum(errors, Error()) if errors else None
        self._written[names] = _Written(place, size, padding, aligned, frame, tensors, error)


def _row(written: _Written) -> Row:
    tensors = written.tensors
    if len(tensors) == 1:
        return Row(tensors[0].name, written.padding, written.frame, said(tensors[0].error))
    parts = tuple([Part(told.name, told.shape, said(told.error)) for told in tensors])
    return Row(parts, written.padding, written.frame)


class _Writable(Protocol):
    def write(self, data: Any, /) -> object: ...

    def tell(self) -> int: ...


@contextlib.contextmanager
def create(
    where: Where,
    *,
    metadata: Mapping[str, str] = {},
    layout: bytes = b"",
    origin: str = "",
    order: Iterable[str] = (),
) -> Iterator[FwWriter]:
    """Write a `.fw` file; it appears when the block ends, and nothing has changed when it raises.

    `order` has the names of all tensors as the source had them, if they may be written in another.
    """
    with create_target(where) as target:
        writer = FwWriter(target, metadata, layout, origin, order)
        yield writer
        writer.finish()
