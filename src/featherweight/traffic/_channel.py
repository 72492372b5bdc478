"""One sender of arrays, and whoever receives what it sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from featherweight import dtypes, engine
from featherweight.codecs._kernels import threelc
from featherweight.codecs.raw import Raw
from featherweight.decoder import digest
from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError, BaseMismatchError, FrameError, within
from featherweight.frame import Frame, checksum, join, parse, sizes_and_digests
from featherweight.recipes import parse as parse_recipe
from featherweight.recipes import text
from featherweight.stage import AnyRecipe
from featherweight.traffic._groups import Group, Room
from featherweight.traffic._message import Head, pack, unpack
from featherweight.traffic._recipes import PARTS, plain, seeded, with_parts

_F32 = np.dtype(np.float32)
_INFINITE = np.uint32(0x7F800000)


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
        self._recipes = [with_parts(plain(parse_recipe(r) if isinstance(r, str) else r)) for r in (recipe, small)]
        self._name = recipe if isinstance(recipe, str) else text(recipe)
        self._out, self._in = Room(), Room()
        self._groups: list[Group] = []
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
            return pack(head, frames)

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
            head, frames = unpack(message)
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
            Group(np.flatnonzero(which), lengths, starts, recipe)
            for which, recipe in zip((large, ~large & (lengths > 0)), self._recipes, strict=True)
        ]
        self._errors = [np.zeros(group.size, np.float32) for group in self._groups]
        self._lengths, self._starts = lengths, starts
        self.parts = parts

    def _flat(self, x: Array | Sequence[Array], room: Room) -> Array:
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

    def _code(self, group: Group, error: Array, x: Array) -> tuple[bytes, Array]:
        """Return the frame of a group, nothing where it is empty, and which of its parts are not finite."""
        odd = np.zeros(group.lengths.size, bool)
        if not group.size:
            return b"", odd
        scales = np.empty(group.scaled.size, np.float32)
        three = group.three if self.feedback else None
        # Of blocks none may be quantized before it is known that all of their part are finite.
        near = threelc.NEAR if three is not None and not three.block else 0
        known = near, self._out("digits", group.size if near else 0, np.uint8)
        given, floats = (x, group.scaled_starts, group.scaled), self._out("floats", 1024)
        threelc.scales(*given, np.float32(three.s if three else 1.0), *known, error, floats, scales)
        odd[group.owners[scales < 0]] = True
        if three is not None:
            scales[odd[group.owners]] = -1
            return self._three(group, given, scales, known, error), odd
        values = self._out("values", group.size)
        for start, own, count in group.runs:
            np.add(x[start : start + count], error[own : own + count], out=values[own : own + count])
        for k in np.flatnonzero(odd):
            values[group.place(k)] = 0
        body: list[Array] = []
        recipe = seeded(group.recipe, self.seed, self.sender, self.step)
        coded = encode_into(body.append, values, recipe, refs=group.refs, keep=self.feedback)
        frame = join(coded.frame, body)
        if coded.value is not None:
            # What coding loses is owed from now on; the errors of odd parts stay.
            kept = [(place, error[place].copy()) for place in map(group.place, np.flatnonzero(odd))]
            np.subtract(values, coded.value(), out=error)
            for place, old in kept:
                error[place] = old
        return frame, odd

    def _three(
        self,
        group: Group,
        given: tuple[Array, Array, Array],
        scales: Array,
        known: tuple[int, Array],
        error: Array,
    ) -> bytes:
        """Do in one walk what 3LC's three stages would, and the errors."""
        frame = group.template()
        coded = self._out("coded", -(-group.size // 5) + threelc.SPARE, np.uint8)
        tile, cursor = self._out("tile", 2 * threelc.TILE + threelc.SPARE, np.uint8), self._out("cursor", 10, np.int64)
        size = threelc.send(*given, scales, *known, error, tile, cursor, coded)
        scales = np.maximum(scales, np.float32(0))  # those below are of what is not finite
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

    def _decode(self, group: Group, data: Any, out: Array, odd: Iterable[Any], *, add: bool) -> None:
        """Decode a group, its odd parts as zeros."""
        if not group.size:
            return
        frame, body = parse(data)
        if frame.spec != (_F32, (group.size,)):
            raise FrameError(f"{frame.spec.dtype}{list(frame.spec.shape)} for {group.size} values")
        if len(frame.root.nodes) == 3 and frame.refs == (PARTS,):
            template = group.template()
            if frame.root == template.root and not frame.splits and not frame.branches:
                self._decode_three(group, frame, body, out, odd, add=add)
                return
        values, limit = self._in("values", group.size), 16 * group.size + (1 << 20)
        engine.decode(data, out=values, refs=group.refs, max_bytes=limit, threads=1)
        for k in odd:
            values[group.place(k)] = 0
        for start, own, count in group.runs:
            part, target = values[own : own + count], out[start : start + count]
            with np.errstate(over="ignore", invalid="ignore"):
                np.add(target, part, out=target) if add else np.copyto(target, part)

    def _decode_three(
        self, group: Group, frame: Frame, body: Any, out: Array, odd: Iterable[Any], *, add: bool
    ) -> None:
        data = np.frombuffer(body, np.uint8)
        if checksum(data) != frame.record[0]:
            raise FrameError("stored bytes do not match their checksum: the data is damaged")
        sizes, digests = sizes_and_digests(frame.root, frame.record)
        if tuple(digests) != tuple(sizes_and_digests(frame.root, group.template().record)[1]):
            raise BaseMismatchError("a frame for other parts")
        if sizes[0] != 4 * group.scaled.size:
            raise FrameError(f"{sizes[0]} bytes for {group.scaled.size} scales")
        scales = data[: sizes[0]].view("<f4").astype(np.float32)
        if scales.view(np.uint32).max() >= _INFINITE:
            raise FrameError("a scale is negative or not finite")
        for k in odd:
            scales[group.owners == k] = 0
        tile, cursor = self._in("tile", 2 * threelc.TILE + threelc.SPARE, np.uint8), self._in("cursor", 10, np.int64)
        coded = data[sizes[0] :]
        if threelc.receive(coded, group.scaled_starts, group.scaled, scales, int(add), tile, cursor, out) < 0:
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


def _slice(start: Any, length: Any) -> slice:
    return slice(int(start), int(start) + int(length))
