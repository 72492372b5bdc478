"""Send arrays again and again, smaller than they are, and make up later for what coding lost: gradients, model deltas.

A `Channel` codes the arrays of one sender; what a message lacks is kept and added to the next array (error feedback:
Seide et al., 2014; the push of 3LC, arXiv:1802.07389). A `Reducer` adds up the messages of many senders and codes the
sum for all of them, with an error buffer of its own (3LC's pull). Neither knows how messages travel.

An array is one row of numbers that consists of *parts*, the tensors: recipes whose stages can be given parts (ternary,
lloydmax) have scales for each. Small parts travel together in bf16. A part that holds a NaN or an infinity travels as
it is, so that everybody learns of it, and its errors wait.

>>> import numpy as np
>>> channel = Channel("ternary(1.5, values=base3(bytes=zero_run))", parts=[5000, 1000, 10])
>>> x = np.random.default_rng(0).standard_normal(6010).astype(np.float32)
>>> received, total = np.empty_like(x), np.zeros_like(x)
>>> for step in range(100):
...     message = channel.send(x)
...     _ = channel.receive(message, received)
...     total += received
>>> len(message) < x.nbytes // 8, bool(np.abs(total / 100 - x).max() < 0.2)
(True, True)
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from featherweight import dtypes, engine
from featherweight.codecs._kernels import threelc
from featherweight.codecs._kernels._random import word
from featherweight.codecs.base3 import Base3
from featherweight.codecs.raw import Raw
from featherweight.codecs.ternary import Ternary, scales_of
from featherweight.codecs.zero_run import ZeroRun
from featherweight.decoder import digest
from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import (
    ArgumentError,
    BaseMismatchError,
    FrameError,
    TruncatedError,
    UnsupportedError,
    within,
)
from featherweight.frame import Frame, checksum, join, pack_head, parse, parse_head, sizes_and_digests
from featherweight.recipes import parse as parse_recipe
from featherweight.recipes import text
from featherweight.stage import AnyRecipe, Recipe, Rewrite, Smallest, Split, Stage, chain, params

__all__ = ["Channel", "Head", "Reducer", "head_of", "shards"]

MAGIC = b"\xfem\x01"
_PARTS = "parts"
_BEGIN = len(MAGIC) + 8
_F32 = np.dtype(np.float32)
_INFINITE = np.uint32(0x7F800000)
_ZERO_RUN = Recipe(ZeroRun())


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a message says of itself: who sent it, at which step, for which parts."""

    sender: int
    step: int
    layout: int
    sizes: tuple[int, int, int]
    plain: tuple[int, ...] = ()


class _Group:
    """Parts that one frame holds: numbers of the parts, and where these begin in the whole array."""

    def __init__(self, numbers: Array, parts: Array, starts: Array, recipe: AnyRecipe) -> None:
        self.numbers = numbers
        self.lengths, self.starts = parts[numbers], starts[numbers]
        self.size = int(self.lengths.sum(dtype=np.uint64))
        self.recipe = recipe
        self.s = _three(recipe)
        self.refs = {_PARTS: self.lengths}
        self.own_starts = np.cumsum(self.lengths, dtype=np.uint64) - self.lengths
        self.runs = _runs(self.lengths, self.starts, self.own_starts)
        self._template: Frame | None = None

    def template(self) -> Frame:
        """Return the head of 3LC for these parts; of it only the record differs from message to message."""
        if self._template is None:
            recipe = _with_parts(chain(Ternary(), values=chain(Base3(), bytes=_ZERO_RUN)))
            zeros = np.zeros(self.size, np.float32)
            made = encode_into(lambda _: None, zeros, recipe, refs=self.refs).frame
            self._template = parse_head(pack_head(made))  # what is read is compared with it
        return self._template


class _Room:
    """Memory that one direction of a channel works in, made when it is first needed and kept."""

    def __init__(self) -> None:
        self._made: dict[str, Array] = {}
        self.lock = threading.Lock()

    def __call__(self, name: str, size: int, dtype: Any = np.float32) -> Array:
        found = self._made.get(name)
        if found is None or found.size < size:
            found = self._made[name] = np.empty(size, dtype)
        return found[:size]


class Channel:
    """One sender of arrays of the same parts; any channel of the same parts can receive what it sends.

    `recipe` codes the parts of `least` values or more, as one array; `small` codes the others. `parts` are their
    sizes, in order; without, what is sent first is one part (or as many as there are arrays). `sender` is told in
    messages and errors, and makes the seeds of recipes differ, as does the step; `seed` makes all of them others.
    Without `feedback` what coding loses is lost. Sending and receiving may go on at once, in threads of their own.
    """

    def __init__(
        self,
        recipe: AnyRecipe | str,
        parts: Iterable[int] | None = None,
        *,
        sender: int = 0,
        small: AnyRecipe | str = "cast(bf16, values=planes(exponent=rans))",
        least: int = 256,
        feedback: bool = True,
        seed: int = 0,
    ) -> None:
        if type(sender) is not int or not 0 <= sender < 1 << 32:
            raise ArgumentError(f"sender={sender!r}: expected a number from 0 to 2^32 - 1")
        self.sender, self.least, self.feedback, self.seed = sender, least, feedback, seed
        self.step = 0
        self._recipes = [_with_parts(_plain(parse_recipe(r) if isinstance(r, str) else r)) for r in (recipe, small)]
        self._name = recipe if isinstance(recipe, str) else text(recipe)
        self._out, self._in = _Room(), _Room()
        self._groups: list[_Group] = []
        self.parts: tuple[int, ...] | None = None
        if parts is not None:
            self._lay_out(parts)

    @property
    def recipe(self) -> str:
        """The recipe as text."""
        return self._name

    def send(self, x: Array | Sequence[Array], /) -> bytes:
        """Code an array, or one for each part, errors of former ones added, into a message.

        Raises ArgumentError for an array that does not fit the parts. Numbers are floats; they are coded as f32.
        """
        with self._out.lock:
            flat = self._flat(x, self._out)
            plain: list[Array] = []
            frames = []
            for group, error in zip(self._groups, self._errors, strict=True):
                frame, odd = self._code(group, error, flat)
                frames.append(frame)
                plain.append(group.numbers[odd])
            numbers = np.sort(np.concatenate(plain))
            frames.append(self._as_they_are(numbers, flat))
            sizes = (len(frames[0]), len(frames[1]), len(frames[2]))
            head = Head(self.sender, self.step, self._layout, sizes, tuple(numbers.tolist()))
            self.step += 1
            return _seal(head, frames)

    def receive(
        self, message: Any, out: Array | Sequence[Array], /, *, add: bool = False, sender: int | None = None
    ) -> Head:
        """Fill `out`, of the size of all parts, or an array for each, or add to it; return the head of the message.

        `sender` is who must have sent it. Raises FrameError (and its like) with ``rank N`` in its path for what is
        damaged, BaseMismatchError for a message for other parts, ArgumentError for `out`.
        """
        with self._in.lock, within("message" if sender is None else f"rank {sender}"):
            if self.parts is None:
                self._lay_out([out.size] if isinstance(out, np.ndarray) else [each.size for each in out])
            head, frames = _open(message)
        with self._in.lock, within(f"rank {head.sender if sender is None else sender}"):
            self._check(head, sender)
            target: Any = out
            direct = isinstance(out, np.ndarray) and out.dtype == _F32 and out.flags.c_contiguous and out.flags.aligned
            if not direct or not isinstance(out, np.ndarray) or not out.flags.writeable or out.size != self._total:
                target = self._in("flat", self._total)
            whole = target.reshape(-1)
            for group, frame in zip(self._groups, frames, strict=False):
                odd = np.flatnonzero(np.isin(group.numbers, head.plain)) if head.plain else ()
                self._decode(group, frame, whole, odd, add=add and target is out)
            self._put_plain(head.plain, frames[2], whole, add=add and target is out)
            if target is not out:
                self._hand_out(whole, out, add=add)
        return head

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved so that another channel goes on where this one is."""
        with self._out.lock:
            error = np.zeros(self._total if self.parts is not None else 0, np.float32)
            for group, kept in zip(self._groups, self._errors if self.parts is not None else (), strict=True):
                for start, own, count in group.runs:
                    error[start : start + count] = kept[own : own + count]
            return {"recipe": self._name, "parts": list(self.parts or ()), "step": self.step, "error": error}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises ArgumentError where it is one of other parts."""
        parts = tuple(int(n) for n in state["parts"])
        error = np.asarray(state["error"], np.float32).reshape(-1)
        with self._out.lock:
            if self.parts is None and parts:
                self._lay_out(parts)
            if (self.parts or ()) != parts or error.size != sum(parts):
                raise ArgumentError(f"a state of {len(parts)} parts of {sum(parts)} values, for {self._told()}")
            if not np.isfinite(error).all():
                raise ArgumentError("an error in this state is not finite")
            for group, kept in zip(self._groups, self._errors if self.parts is not None else (), strict=True):
                for start, own, count in group.runs:
                    kept[own : own + count] = error[start : start + count]
            self.step = int(state["step"])

    def reset(self) -> None:
        """Forget the errors."""
        with self._out.lock:
            for error in self._errors if self.parts is not None else ():
                error.fill(0)

    def _told(self) -> str:
        parts = self.parts or ()
        return f"{len(parts)} parts of {sum(parts)} values"

    def _lay_out(self, sizes: Iterable[int]) -> None:
        parts = tuple(int(n) for n in sizes)
        if any(n < 0 for n in parts):
            raise ArgumentError(f"parts={list(parts)}: a size is negative")
        lengths = np.array(parts, np.uint64)
        starts = np.cumsum(lengths, dtype=np.uint64) - lengths
        self._total = sum(parts)
        self._layout = digest(lengths)
        large = lengths >= np.uint64(self.least)
        self._groups = [
            _Group(np.flatnonzero(which), lengths, starts, recipe)
            for which, recipe in zip((large, ~large & (lengths > 0)), self._recipes, strict=True)
        ]
        self._errors = [np.zeros(group.size, np.float32) for group in self._groups]
        self._lengths, self._starts = lengths, starts
        self.parts = parts

    def _flat(self, x: Array | Sequence[Array], room: _Room) -> Array:
        arrays = [x] if isinstance(x, np.ndarray) else list(x)
        if any(dtypes.of(each.dtype).kind != "f" for each in arrays):
            raise ArgumentError(f"a channel takes floats, not {', '.join(str(each.dtype) for each in arrays)}")
        if self.parts is None:
            self._lay_out(each.size for each in arrays)
        if sum(each.size for each in arrays) != self._total:
            raise ArgumentError(f"{sum(each.size for each in arrays)} values for {self._told()}")
        if len(arrays) == 1 and arrays[0].dtype == _F32:
            return dtypes.native(arrays[0]).reshape(-1)
        flat, start = room("flat", self._total), 0
        for each in arrays:
            with np.errstate(over="ignore", invalid="ignore"):
                flat[start : start + each.size].reshape(each.shape)[...] = each
            start += each.size
        return flat

    def _code(self, group: _Group, error: Array, x: Array) -> tuple[bytes, Array]:
        """Return the frame of a group, nothing where it is empty, and which of its parts are not finite."""
        odd = np.zeros(group.lengths.size, bool)
        if not group.size:
            return b"", odd
        maxima = np.empty(group.lengths.size, np.uint32)
        threelc.maxima(x, group.starts, group.lengths, error, self._out("floats", 1024), maxima)
        odd = maxima >= _INFINITE
        if group.s is not None and self.feedback:
            return self._three(group, error, x, maxima, odd), odd
        values = self._out("values", group.size)
        for start, own, count in group.runs:
            np.add(x[start : start + count], error[own : own + count], out=values[own : own + count])
        for k in np.flatnonzero(odd):
            values[_slice(group.own_starts[k], group.lengths[k])] = 0
        body: list[Array] = []
        recipe = _seeded(group.recipe, self.seed, self.sender, self.step)
        coded = encode_into(body.append, values, recipe, refs=group.refs)
        frame = join(coded.frame, body)
        if self.feedback:
            self._keep(group, error, values, frame if not coded.exact else None, odd)
        return frame, odd

    def _keep(self, group: _Group, error: Array, values: Array, frame: bytes | None, odd: Array) -> None:
        """Keep what the frame (None where nothing is lost) lacks; the errors of odd parts stay."""
        kept = [(k, error[_slice(group.own_starts[k], group.lengths[k])].copy()) for k in np.flatnonzero(odd)]
        if frame is None:
            error.fill(0)
        else:
            decoded = self._out("decoded", group.size)
            engine.decode(frame, out=decoded, refs=group.refs, threads=1)
            np.subtract(values, decoded, out=error)
        for k, old in kept:
            error[_slice(group.own_starts[k], group.lengths[k])] = old

    def _three(self, group: _Group, error: Array, x: Array, maxima: Array, odd: Array) -> bytes:
        """Do in one walk what 3LC's three stages would, and the errors."""
        frame = group.template()
        maxima[odd] = 0
        scales = scales_of(maxima.view(np.float32), float(group.s or 1))
        scales[odd] = -1
        coded = self._out("coded", -(-group.size // 5) + threelc.SPARE, np.uint8)
        tile, cursor = self._out("tile", 2 * threelc.TILE + threelc.SPARE, np.uint8), self._out("cursor", 10, np.int64)
        size = threelc.send(x, group.starts, group.lengths, scales, error, tile, cursor, coded)
        scales[odd] = 0
        parts = (scales.view(np.uint8), coded[:size])
        _, digests = sizes_and_digests(frame.root, frame.record)
        record = (checksum(*parts), parts[0].size, parts[1].size, *digests)
        return join(msgspec.structs.replace(frame, record=record), parts)

    def _as_they_are(self, numbers: Array, x: Array) -> bytes:
        if not numbers.size:
            return b""
        values = np.concatenate([x[_slice(self._starts[k], self._lengths[k])] for k in numbers])
        return engine.encode(values, Raw(), threads=1)

    def _check(self, head: Head, sender: int | None) -> None:
        if sender is not None and head.sender != sender:
            raise FrameError(f"a message of rank {head.sender}")
        if head.layout != self._layout:
            raise BaseMismatchError(f"a message for other parts than {self._told()}")
        if any((size > 0) != (group.size > 0) for size, group in zip(head.sizes, self._groups, strict=False)):
            raise FrameError("a frame is missing, or one too many")
        if sorted(set(head.plain)) != list(head.plain) or (head.plain and not 0 <= head.plain[0] <= head.plain[-1]):
            raise FrameError("the parts that were sent as they are do not ascend")
        if bool(head.plain) != (head.sizes[2] > 0) or (head.plain and head.plain[-1] >= self._lengths.size):
            raise FrameError("parts were sent as they are that are not there")

    def _decode(self, group: _Group, data: Any, out: Array, odd: Iterable[Any], *, add: bool) -> None:
        """Decode a group, its odd parts as zeros."""
        if not group.size:
            return
        frame, body = parse(data)
        if frame.spec != (_F32, (group.size,)):
            raise FrameError(f"{frame.spec.dtype}{list(frame.spec.shape)} for {group.size} values")
        if len(frame.root.nodes) == 3 and frame.refs == (_PARTS,):
            template = group.template()
            if frame.root == template.root and not frame.splits and not frame.branches:
                self._decode_three(group, frame, body, out, odd, add=add)
                return
        values, limit = self._in("values", group.size), 16 * group.size + (1 << 20)
        engine.decode(data, out=values, refs=group.refs, max_bytes=limit, threads=1)
        for k in odd:
            values[_slice(group.own_starts[k], group.lengths[k])] = 0
        for start, own, count in group.runs:
            part, target = values[own : own + count], out[start : start + count]
            with np.errstate(over="ignore", invalid="ignore"):
                np.add(target, part, out=target) if add else np.copyto(target, part)

    def _decode_three(
        self, group: _Group, frame: Frame, body: Any, out: Array, odd: Iterable[Any], *, add: bool
    ) -> None:
        data = np.frombuffer(body, np.uint8)
        if checksum(data) != frame.record[0]:
            raise FrameError("stored bytes do not match their checksum: the data is damaged")
        sizes, digests = sizes_and_digests(frame.root, frame.record)
        if tuple(digests) != tuple(sizes_and_digests(frame.root, group.template().record)[1]):
            raise BaseMismatchError("a frame for other parts")
        if sizes[0] != 4 * group.lengths.size:
            raise FrameError(f"{sizes[0]} bytes of scales for {group.lengths.size} parts")
        scales = data[: sizes[0]].view("<f4").astype(np.float32)
        if scales.view(np.uint32).max() >= _INFINITE:
            raise FrameError("a scale is negative or not finite")
        for k in odd:
            scales[k] = 0
        tile, cursor = self._in("tile", 2 * threelc.TILE + threelc.SPARE, np.uint8), self._in("cursor", 10, np.int64)
        coded = data[sizes[0] :]
        if threelc.receive(coded, group.starts, group.lengths, scales, int(add), tile, cursor, out) < 0:
            raise FrameError(f"the runs do not make {group.size} values")

    def _put_plain(self, numbers: tuple[int, ...], data: Any, out: Array, *, add: bool) -> None:
        if not numbers:
            return
        size = sum(int(self._lengths[k]) for k in numbers)
        if parse(data).frame.spec != (_F32, (size,)):
            raise FrameError(f"the parts that were sent as they are do not have {size} values")
        values, at = engine.decode(data, max_bytes=16 * size + (1 << 20), threads=1), 0
        for k in numbers:
            part = out[_slice(self._starts[k], self._lengths[k])]
            with np.errstate(over="ignore", invalid="ignore"):
                part[...] = (part if add else 0) + values[at : at + part.size]
            at += part.size

    def _hand_out(self, values: Array, out: Array | Sequence[Array], *, add: bool) -> None:
        arrays = [out] if isinstance(out, np.ndarray) else list(out)
        if sum(each.size for each in arrays) != self._total or not all(each.flags.writeable for each in arrays):
            raise ArgumentError(f"out must be writable and have {self._total} values", path="out")
        start = 0
        for each in arrays:
            if dtypes.of(each.dtype).kind != "f":
                raise ArgumentError(f"out must be floats, not {each.dtype}", path="out")
            part = values[start : start + each.size].reshape(each.shape)
            with np.errstate(over="ignore", invalid="ignore"):
                each[...] = (each.astype(np.float32) + part if add else part).astype(each.dtype)
            start += each.size


class Reducer:
    """Add up what many senders sent and code the sum, or the mean, once for all of them.

    What coding the sum loses is added to the next sum. The arguments are those of `Channel`.
    """

    def __init__(self, recipe: AnyRecipe | str, parts: Iterable[int], *, mean: bool = False, **options: Any) -> None:
        self.channel = Channel(recipe, parts, **options)
        self.mean = mean
        self.total = np.zeros(sum(self.channel.parts or ()), np.float32)
        """The sum, or the mean, as it was before it was coded."""

    def reduce(self, messages: Mapping[int, Any] | Sequence[Any], /) -> bytes:
        """Return the message for all; `messages` are by sender, or that of sender 0, 1, ….

        Raises FrameError with ``rank N`` in its path for a message that is damaged, from another sender, or of another
        step than the first one; nothing is sent then and no error kept.
        """
        found = messages if isinstance(messages, Mapping) else dict(enumerate(messages))
        if not found:
            raise ArgumentError("there is no message to reduce")
        step = None
        for rank in sorted(found):  # sums depend on the order, which is therefore always the same
            head = self.channel.receive(found[rank], self.total, add=step is not None, sender=rank)
            step = head.step if step is None else step
            if head.step != step:
                raise FrameError(f"a message of step {head.step} among those of step {step}", path=f"rank {rank}")
        if self.mean:
            self.total /= np.float32(len(found))
        return self.channel.send(self.total)

    def receive(self, message: Any, out: Array | Sequence[Array], /, *, sender: int | None = None) -> Head:
        """Decode what a reducer of the same parts has sent."""
        return self.channel.receive(message, out, sender=sender)

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved; see `Channel.state_dict`."""
        return self.channel.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.channel.load_state_dict(state)


class Shard(NamedTuple):
    """Elements of the whole array, from `start` to `stop`, and the sizes of the parts that these consist of."""

    start: int
    stop: int
    parts: tuple[int, ...]


def shards(parts: Iterable[int], count: int, *, least: int = 256) -> tuple[Shard, ...]:
    """Cut an array of these parts into `count` shards of nearly equal length, some perhaps empty.

    A cut less than `least` elements from the end of a part is moved there, so that no slivers arise.

    >>> shards([1000, 30, 500], 2)
    (Shard(start=0, stop=1000, parts=(1000,)), Shard(start=1000, stop=1530, parts=(30, 500)))
    """
    sizes = tuple(int(n) for n in parts)
    if count < 1 or any(n < 0 for n in sizes):
        raise ArgumentError(f"{count} shards of parts {list(sizes)}")
    ends = [0, *itertools.accumulate(sizes)]
    cuts = [0]
    for k in range(1, count):
        cut = ends[-1] * k // count
        near = min(ends, key=lambda end: (abs(end - cut), end))
        cuts.append(max(cuts[-1], near if abs(near - cut) < least else cut))
    cuts.append(ends[-1])
    found = []
    for start, stop in itertools.pairwise(cuts):
        inside = (min(stop, end) - max(start, end - size) for end, size in zip(ends[1:], sizes, strict=True))
        found.append(Shard(start, stop, tuple(n for n in inside if n > 0)))
    return tuple(found)


def head_of(message: Any) -> Head:
    """Return what a message says of itself; raises FrameError, TruncatedError or UnsupportedError."""
    return _open(message)[0]


def _seal(head: Head, frames: Sequence[bytes]) -> bytes:
    packed = msgspec.msgpack.encode(head)
    start = MAGIC + len(packed).to_bytes(4, "little")
    return b"".join((start, checksum(start, packed).to_bytes(4, "little"), packed, *frames))


def _open(message: Any) -> tuple[Head, list[memoryview]]:
    view = memoryview(message).cast("B")
    begin = bytes(view[:3])
    if begin[:2] != MAGIC[:2][: len(begin)]:
        raise FrameError("not a message: it begins otherwise")
    if len(begin) == 3 and begin[2] != MAGIC[2]:
        raise UnsupportedError(f"message version {begin[2]} is not known here: upgrade featherweight")
    begins = _BEGIN
    size = int.from_bytes(view[3:7], "little")
    if len(view) < begins or len(view) - begins < size:
        raise TruncatedError(f"{len(view)} bytes end in the head of the message")
    packed = view[begins : begins + size]
    if checksum(view[:7], packed) != int.from_bytes(view[7:begins], "little"):
        raise FrameError("the head of the message does not match its checksum")
    try:
        head = msgspec.msgpack.decode(packed, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the head of the message is not well-formed: {error}") from None
    if min(head.sender, head.step, head.layout, *head.sizes) < 0:
        raise FrameError("a number in the head of the message is negative")
    frames, place = [], begins + size
    for length in head.sizes:
        frames.append(view[place : place + length])
        place += length
    if len(view) != place:
        error_kind = TruncatedError if len(view) < place else FrameError
        raise error_kind(f"the message has {len(view)} of {place} bytes")
    return head, frames


def _slice(start: Any, length: Any) -> slice:
    return slice(int(start), int(start) + int(length))


def _runs(lengths: Array, starts: Array, own: Array) -> tuple[tuple[int, int, int], ...]:
    """Return (where, where in the group, how many) of elements that lie side by side in both."""
    runs: list[tuple[int, int, int]] = []
    for start, mine, count in zip(starts.tolist(), own.tolist(), lengths.tolist(), strict=True):
        if runs and runs[-1][0] + runs[-1][2] == start:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + count)
        else:
            runs.append((start, mine, count))
    return tuple(runs)


def _plain(recipe: AnyRecipe) -> AnyRecipe:
    """Take off what spares tensors from a lossy recipe: a channel spares what must be spared by itself."""
    while not isinstance(recipe, (Recipe, Split, Smallest)):
        inner = [getattr(recipe, f.name) for f in params(recipe) if f.metadata["recipe"] and f.name == "recipe"]
        if not inner:
            break
        recipe = inner[0]
    return recipe


def _with_parts(recipe: AnyRecipe) -> AnyRecipe:
    """Give the parts to the outermost stages that can be given them and are not given anything."""
    return _visited(recipe, _given_parts, deep=False)


def _given_parts(recipe: Recipe) -> Recipe:
    ports = getattr(getattr(recipe.stage, "codec", None), "given", ())
    if ports and ports[0].name == _PARTS and not recipe.given:
        return dataclasses.replace(recipe, given=(f"@{_PARTS}",))
    return recipe


def _seeded(recipe: AnyRecipe, *numbers: int) -> AnyRecipe:
    """Return the recipe with other seeds, which depend on these numbers and on what they were."""

    def reseed(found: Recipe) -> Recipe:
        stage: Any = found.stage
        if not any(f.name == "seed" for f in params(stage)):
            return found
        seed = np.uint64(stage.seed)
        with np.errstate(over="ignore"):
            for number in numbers:
                seed = word(seed, np.uint64(number))
        return dataclasses.replace(found, stage=dataclasses.replace(stage, seed=int(seed)))

    return _visited(recipe, reseed)


def _visited(recipe: AnyRecipe, change: Any, *, deep: bool = True) -> AnyRecipe:
    """Return the recipe with `change` made to every stage of it, or without `deep` to those for the array itself."""
    if isinstance(recipe, Split):
        inner: Any = _visited(recipe.recipe, change, deep=deep)
        return Split(inner, recipe.size)
    if isinstance(recipe, Smallest):
        return Smallest(tuple(_visited(each, change, deep=deep) for each in recipe.recipes))
    if not isinstance(recipe, Recipe):
        if not isinstance(recipe, Stage | Rewrite):
            return recipe
        recipe = Recipe(recipe)
    then = recipe.then
    if deep or isinstance(recipe.stage, Rewrite):
        then = tuple((name, _visited(each, change, deep=deep)) for name, each in then)
    found: AnyRecipe = change(dataclasses.replace(recipe, then=then))
    return found


def _three(recipe: AnyRecipe) -> float | None:
    """Return the sparsity multiplier if the recipe is 3LC's."""
    if isinstance(recipe, Recipe) and isinstance(recipe.stage, Ternary):
        expected = chain(recipe.stage, given=(f"@{_PARTS}",), values=chain(Base3(), bytes=_ZERO_RUN))
        if recipe == expected and not recipe.stage.block:
            return recipe.stage.s
    return None
