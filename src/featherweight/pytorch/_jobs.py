"""Buckets on their way: what is to be done with them, by which thread, and whom to tell."""

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featherweight.pytorch._buckets import Bucket

__all__ = ["Job", "Promise", "on", "thread"]

_PATIENCE = 1.0


class Job:
    """Some gradients of one step on their way: `pieces` are tensors and where they begin in the bucket."""

    bucket: Bucket

    def __init__(self, step: int, pieces: Sequence[tuple[Any, int]], promises: "list[Promise]", *, last: bool) -> None:
        self.step, self.pieces, self.promises, self.last = step, pieces, promises, last
        self.flat: Any = None
        self.messages: list[Any] = []
        self.error: BaseException | None = None


class Promise:
    """The future of a bucket of PyTorch's, which is told here what has become of it."""

    def __init__(self, buffer: Any) -> None:
        self.buffer, self.error = buffer, None
        cuda = buffer.device.type == "cuda"
        self.done: Any = torch.futures.Future(devices=[buffer.device] if cuda else [])
        # An exception that is set on a future from Python does not reach C++; one that its callback raises does.
        self.future = self.done.then(self._outcome)
        self.ready: Any = None
        if cuda:
            self.ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.ready.record(torch.cuda.current_stream(buffer.device))

    def _outcome(self, _: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.buffer

    def settle(self, error: Any, stream: Any) -> None:
        """Tell PyTorch, which goes on as soon as `stream` has done what it was given."""
        self.error = error
        with on(stream):
            self.done.set_result(None if error is not None else self.buffer)


def thread(owner: object, name: str) -> queue.SimpleQueue[Callable[[], None] | None]:
    """Start a thread that does what is put into its queue, in order, until its owner is no more."""
    jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            job()
            del job

    worker = threading.Thread(target=work, name=f"featherweight-{name}", daemon=True)

    def end() -> None:
        jobs.put(None)
        if worker is not threading.current_thread():
            worker.join(_PATIENCE)  # a thread that outlives the interpreter may take the process down

    worker.start()
    weakref.finalize(owner, end)
    return jobs


def on(stream: Any) -> Any:
    """Return what makes a stream of CUDA the current one; without a stream, what does nothing."""
    return torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext()
