"""Reduce the gradients of DistributedDataParallel in coded form: what to register, and what to register it with.

Each bucket of gradients is cut into one shard for each rank. All ranks code their share of each shard for its owner
(push), the owner decodes, averages and codes the mean once for all (pull), each with error feedback: the push and pull
of 3LC (arXiv:1802.07389), with the ranks as the parameter servers. Every rank decodes the same bytes, so gradients are
bit-identical on all of them, and a rank sends two coded buckets at most, but for heads.
"""

import contextlib
import dataclasses
import datetime as dt
import functools
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError, UnsupportedError
from featherweight.pytorch._buckets import Bucket, Ledger, Settings
from featherweight.pytorch._jobs import Job, Promise, on, thread
from featherweight.pytorch._peers import HEAD, Peers, own_group, seconds
from featherweight.pytorch._terms import PROTOCOL, Terms
from featherweight.recipes import parse, text
from featherweight.stage import AnyRecipe
from featherweight.traffic import Channel

__all__ = ["CompressionState", "Stats", "compress_hook"]

_SPARE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Stats:
    """What one rank has sent, in bytes, and where its time went, in seconds, since its state was made.

    `push` and `pull` are what coded steps sent, all headers included, and `plain` is what these would have sent in f32;
    `warm_up` is what the plain steps sent, `handshake` what the agreement on the recipe did.
    `encoding` is that of pushes, `reducing` decodes these, averages and encodes the mean, `decoding` is that of
    answers; they run in threads of their own. `communicating` counts from handing messages to the network until those
    of all ranks are there: it includes waiting for slower ranks.
    """

    steps: int = 0
    warm_up_steps: int = 0
    push: int = 0
    pull: int = 0
    plain: int = 0
    warm_up: int = 0
    handshake: int = 0
    encoding: float = 0.0
    reducing: float = 0.0
    decoding: float = 0.0
    communicating: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times fewer bytes the coded steps sent than f32 would have."""
        return self.plain / max(self.push + self.pull, 1)


class CompressionState:
    """What `compress_hook` needs to know and to remember; make one on every rank, in the same order as groups are made.

    Args:
        recipe: codes gradients, the same on all ranks: ``3lc(s)``, ``3lc-small(s)``, ``eden(bits)``, or any other.
        process_group: the ranks that train together (default: all). They get a group of gloo of their own.
        warm_up: how many steps at first are sent as they are, in f32.
        feedback: whether what coding loses is added to the next gradient.
        least: parameters of fewer values, and pieces of a parameter that shards cut off, go as bf16.
        seed: makes the random numbers of recipes others.
        timeout: seconds after which a silent rank is an error (default: that of the process group).
        parameters: gives parameters their numbers in checkpoints. Without it they are numbered as they first come,
            which is the same for the same model under the same settings of DistributedDataParallel.

    Gradients may be f32, bf16 or f16, on the processor or on CUDA devices; they are coded as f32. A gradient that is
    not finite reaches every rank, in the piece of the parameter where it is, and leaves the errors alone. Errors have
    the scale of gradients: a loss scaler that halves its scale leaves them twice as large for a step.

    A failure (a rank that is gone or silent, a damaged message, another recipe) ends the state: the backward pass
    raises RuntimeError with the class and the text of the error, which names the rank, and `error` holds it.

    Raises ArgumentError for a recipe or an argument that does not fit.
    """

    def __init__(
        self,
        recipe: AnyRecipe | str = "3lc",
        process_group: Any = None,
        *,
        warm_up: int = 0,
        feedback: bool = True,
        least: int = 256,
        seed: int = 0,
        timeout: float | dt.timedelta | None = None,
        parameters: Iterable[Any] | None = None,
    ) -> None:
        for name, value, most in (("warm_up", warm_up, 1 << 62), ("least", least, 1 << 62), ("seed", seed, 1 << 62)):
            if type(value) is not int or not 0 <= value <= most:
                raise ArgumentError(f"{name}={value!r}: expected a number from 0 to {most}")
        parsed = parse(recipe) if isinstance(recipe, str) else recipe
        self.recipe = recipe if isinstance(recipe, str) else text(recipe)
        group = process_group if process_group is not None else dist.group.WORLD
        if group is None:
            raise ArgumentError("there is no process group: call torch.distributed.init_process_group first")
        rank, world = dist.get_rank(group), dist.get_world_size(group)
        if rank < 0:
            raise ArgumentError("this process is not in the process group")
        patience = seconds(timeout, group)
        self.settings = Settings(parsed, rank, world, least, feedback, seed)
        self.warm_up = warm_up
        self.error: BaseException | None = None
        """What ended communication, if anything has."""
        self._peers = Peers(own_group(group, patience), rank, world, patience)
        self._ledger = Ledger(self.settings)
        _try(self.settings)
        self._begun = 0
        self._agreed = False
        self._layout: list[list[int]] = []
        self._plan: list[list[int]] | None = None
        self._held: list[tuple[Promise, tuple[int, ...], tuple[int, ...]]] | None = None
        self._flying: list[Promise] = []
        self._numbers: dict[int, tuple[Any, int]] = {}
        self._streams: dict[tuple[str, Any], Any] = {}
        self._lock = threading.Lock()
        self._stats = Stats()
        # Two threads, so that one bucket is coded while another travels.
        self._coder, self._sender = thread(self, "coder"), thread(self, "sender")
        for parameter in parameters or ():
            self._number(parameter)

    def reduce(self, bucket: Any) -> Any:
        """Return a future of the mean of a bucket over all ranks; what `compress_hook` does.

        The future fails with an ArgumentError for sparse gradients, and for such that are no floats.
        """
        buffer = bucket.buffer()
        numbers = tuple(self._number(parameter) for parameter in bucket.parameters())
        sizes = tuple(int(gradient.numel()) for gradient in bucket.gradients())
        if bucket.index() == 0:
            self._begin()
        promise = Promise(buffer)
        self._flying.append(promise)
        if self._held is None:
            self._go(numbers, sizes, [(buffer, 0)], [promise], last=bucket.is_last())
            return promise.future
        self._held.append((promise, numbers, sizes))
        if bucket.is_last():
            self._go_as_planned()
        return promise.future

    def stats(self) -> Stats:
        """Return the counters as they are now."""
        with self._lock:
            return self._stats

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank must save so that training goes on as if it had not stopped; call it between steps.

        The dict holds numbers, text and f32 tensors (what coding owes each parameter), and differs from rank to rank:
        save it for each of them, beside the model and the optimizer.
        """
        self._settled()
        push, pull = self._ledger.errors()
        return {
            "version": PROTOCOL,
            "recipe": self.recipe,
            "rank": self.settings.rank,
            "world": self.settings.world,
            "step": self._begun,
            "layout": self._layout if self._plan is None else self._plan,
            "push": {number: torch.from_numpy(error.copy()) for number, error in push.items()},
            "pull": {number: torch.from_numpy(error.copy()) for number, error in pull.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on from what was saved: the dict of this rank, or those of all ranks, in any order; call it on all ranks.

        With as many ranks as there were, each goes on with its own errors, and the first step travels in the buckets
        of the last one (DistributedDataParallel begins with others): losses are those of a run that did not stop, to
        the bit, if at least two steps had been made. With another number of ranks, pass the dicts of all: errors that
        answers still lack are added to what pushes lack, and the new ranks share them all, so that the sum which
        reaches the model is the same. The errors of ranks whose dict is not there are lost, as one step's feedback is.

        Raises ArgumentError for dicts that do not belong together, or whose parameters have other sizes (those when the
        first gradients come).
        """
        states = [state] if isinstance(state, Mapping) else list(state)
        steps = {int(each["step"]) for each in states}
        layouts = {msgspec.msgpack.encode(each["layout"]) for each in states}
        if any(each["version"] != PROTOCOL for each in states):
            raise UnsupportedError(
                f"a state of version {states[0]['version']} is not known here: upgrade featherweight"
            )
        if len(steps) != 1 or len(layouts) != 1:
            raise ArgumentError(f"states of steps {sorted(steps)} do not belong together")
        self._settled()
        self._ledger.load(states)
        same = int(states[0]["world"]) == self.settings.world
        self._plan = [[int(n) for n in numbers] for numbers in states[0]["layout"]] if same else None
        self._begun = steps.pop()
        self._agreed = False

    def _begin(self) -> None:
        self._settled()
        self._flying, self._layout = [], []
        self._begun += 1
        self._held = [] if self._plan is not None else None
        self._count(**{"warm_up_steps" if self._begun <= self.warm_up else "steps": 1})

    def _settled(self) -> None:
        for promise in self._flying:
            promise.done.wait()

    def _number(self, parameter: Any) -> int:
        found = self._numbers.get(id(parameter))
        if found is not None and found[0]() is parameter:
            return found[1]
        number = len(self._numbers) if found is None else 1 + max(n for _, n in self._numbers.values())
        self._numbers[id(parameter)] = (weakref.ref(parameter), number)
        return number

    def _go(
        self,
        numbers: tuple[int, ...],
        sizes: tuple[int, ...],
        pieces: Sequence[tuple[Any, int]],
        promises: list[Promise],
        *,
        last: bool,
    ) -> None:
        self._layout.append(list(numbers))
        job = Job(self._begun - 1, pieces, promises, last=last)
        try:
            for piece, _ in pieces:
                if piece.layout != torch.strided or not piece.is_floating_point():
                    raise ArgumentError(f"gradients are {piece.layout} of {piece.dtype}: expected dense floats")
            job.bucket = self._ledger.bucket(numbers, sizes)
        except Exception as error:  # noqa: BLE001  # told in its turn, lest other ranks wait for it
            job.error = error
        self._coder.put(functools.partial(self._encode, job))

    def _go_as_planned(self) -> None:
        """Send a step's gradients in the buckets of a checkpoint, or as they are if these do not fit."""
        held, plan = self._held or [], self._plan or []
        self._held = self._plan = None
        places: dict[int, Any] = {}
        for promise, numbers, sizes in held:
            start = 0
            for number, size in zip(numbers, sizes, strict=True):
                places[number] = promise.buffer.narrow(0, start, size)
                start += size
        promises = [promise for promise, _, _ in held]
        if sorted(n for numbers in plan for n in numbers) != sorted(places):
            for promise, numbers, sizes in held:
                self._go(numbers, sizes, [(promise.buffer, 0)], [promise], last=promise is promises[-1])
            return
        for together in plan:
            sizes = tuple(places[n].numel() for n in together)
            starts = np.cumsum([0, *sizes])[:-1].tolist()
            pieces = [(places[n], start) for n, start in zip(together, starts, strict=True)]
            last = together is plan[-1]
            self._go(tuple(together), sizes, pieces, promises if last else [], last=last)

    def _encode(self, job: Job) -> None:
        """Fetch gradients and code them, in the coder's thread; errors wait for their turn in the sender's."""
        try:
            if job.error is None and self.error is None:
                flat = self._fetch(job)
                if job.step < self.warm_up:
                    job.messages = [memoryview(flat[s.start : s.stop]).cast("B") for s in job.bucket.shards]
                else:
                    with self._timed("encoding"):
                        job.messages = job.bucket.encode(flat, job.step)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the future must hear of it
            job.error = error
        self._sender.put(functools.partial(self._send, job))

    def _send(self, job: Job) -> None:
        """Let a job travel, in the sender's thread."""
        stream = None
        try:
            if self.error is not None or job.error is not None:
                raise self.error or job.error or RuntimeError
            if not self._agreed:
                self._agree(job.step)
            if job.step < self.warm_up:
                self._send_plain(job)
            else:
                self._send_coded(job)
            if job.last:  # no rank takes a step that another could not take
                self._exchange([b""] * self.settings.world, 0, "warm_up" if job.step < self.warm_up else "pull")
            stream = self._store(job)
        except BaseException as error:  # noqa: BLE001  # likewise
            if self.error is None:
                self.error = error
                self._peers.fail(error)
        for promise in job.promises:
            promise.settle(self.error, stream)

    def _agree(self, step: int) -> None:
        settings = self.settings
        name = text(settings.recipe)
        numbers = (settings.least, settings.feedback, settings.seed, self.warm_up)
        mine = Terms(PROTOCOL, name, settings.world, step, *numbers, given=self.recipe)
        message = msgspec.msgpack.encode(mine)
        for rank, answer in enumerate(
            self._exchange([message] * settings.world, _SPARE + 8 * len(message), "handshake")
        ):
            mine.check(answer, settings.rank, rank)
        self._agreed = True

    def _send_coded(self, job: Job) -> None:
        bucket, most = job.bucket, _SPARE + 16 * 4 * job.bucket.size
        pushed = self._exchange(job.messages, most, "push")
        with self._timed("reducing"):
            answer = bucket.reduce(pushed, job.step)
        answers = self._exchange([answer] * self.settings.world, most, "pull")
        with self._timed("decoding"):
            bucket.decode(answers, _numbers(job.flat))
        self._count(plain=_plain(bucket))

    def _send_plain(self, job: Job) -> None:
        bucket, flat = job.bucket, _numbers(job.flat)
        total = np.zeros(bucket.own.stop - bucket.own.start, np.float32)
        for rank, message in enumerate(self._exchange(job.messages, 4 * bucket.size, "warm_up")):
            with np.errstate(over="ignore", invalid="ignore"):
                total += _floats(message, total.size, rank)
        total /= np.float32(self.settings.world)
        message = total.data.cast("B")
        for rank, answer in enumerate(self._exchange([message] * self.settings.world, 4 * bucket.size, "warm_up")):
            shard = bucket.shards[rank]
            flat[shard.start : shard.stop] = _floats(answer, shard.stop - shard.start, rank)

    def _exchange(self, messages: Sequence[Any], most: int, counter: str) -> list[Any]:
        with self._timed("communicating"):
            found = self._peers.exchange(messages, most)
        own = self.settings.rank
        self._count(**{counter: sum(HEAD + len(each) for peer, each in enumerate(messages) if peer != own)})
        return found

    def _fetch(self, job: Job) -> Any:
        """Return the gradients of a job as f32 on the processor: the very memory of the bucket, if that is such."""
        bucket = job.bucket
        if len(job.pieces) == 1:
            (only, _), *_ = job.pieces
            if only.device.type == "cpu" and only.dtype == torch.float32 and only.is_contiguous():
                job.flat = only.detach()
                return _numbers(job.flat)
        stream = self._stream("coder", job)
        if bucket.flat is None:
            bucket.flat = torch.empty(bucket.size, dtype=torch.float32, pin_memory=stream is not None)
        job.flat = bucket.flat
        with torch.no_grad(), on(stream):
            for promise in self._flying if stream is not None else ():
                stream.wait_event(promise.ready)
            for piece, start in job.pieces:
                target = job.flat[start : start + piece.numel()]
                target.copy_(piece.to(torch.float32), non_blocking=stream is not None)
            if stream is not None:
                stream.synchronize()
        return _numbers(job.flat)

    def _store(self, job: Job) -> Any:
        """Put the means where the gradients were; return the stream that does it, None on the processor."""
        stream = self._stream("sender", job)
        if len(job.pieces) == 1 and job.flat.data_ptr() == job.pieces[0][0].data_ptr():
            return stream
        with torch.no_grad(), on(stream):
            for piece, start in job.pieces:
                source = job.flat[start : start + piece.numel()]
                piece.copy_(source.to(piece.device, non_blocking=True) if stream is not None else source)
        return stream

    def _stream(self, name: str, job: Job) -> Any:
        device = job.pieces[0][0].device if job.pieces else None
        if device is None or device.type != "cuda":
            return None
        if (name, device) not in self._streams:
            self._streams[name, device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[name, device]

    @contextlib.contextmanager
    def _timed(self, counter: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self._count(**{counter: time.perf_counter() - begun})

    def _count(self, **more: float) -> None:
        with self._lock:
            found = {name: getattr(self._stats, name) + value for name, value in more.items()}
            self._stats = dataclasses.replace(self._stats, **found)


def compress_hook(
    state: CompressionState,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # PyTorch looks for this very annotation
) -> torch.futures.Future[torch.Tensor]:
    """Reduce a bucket of gradients in coded form: ``model.register_comm_hook(state, compress_hook)``."""
    future: torch.futures.Future[torch.Tensor] = state.reduce(bucket)
    return future


def _try(settings: Settings) -> None:
    """Refuse a recipe that does not code gradients now, not in mid-step; kernels are compiled on the way."""
    channel, values = Channel(settings.recipe, [1024, 16]), np.linspace(-1, 1, 1040, dtype=np.float32)
    channel.receive(channel.send(values), values)


def _plain(bucket: Bucket) -> int:
    own, others = bucket.own.stop - bucket.own.start, bucket.settings.world - 1
    return 4 * (bucket.size - own + own * others)


def _numbers(tensor: Any) -> Array:
    found: Array = tensor.numpy()
    return found


def _floats(message: Any, size: int, rank: int) -> Array:
    found = np.frombuffer(message, np.float32)
    if found.size != size:
        raise FrameError(f"{found.size} values for a shard of {size}", path=f"rank {rank}")
    return found
