"""3LC over plain sockets, without any framework: workers push gradients, the server pulls their sum back to all.

Run it with ``python examples/parameter_server.py``: three processes fit a linear model, each on a third of the data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
from collections.abc import Sequence

import numpy as np

from featherweight import Channel, Reducer

RECIPE = "ternary(1.25, values=base3(bytes=zero_run))"
TIMEOUT = 30.0  # seconds after which a silent peer is an error


def send(peer: socket.socket, message: bytes) -> int:
    peer.sendall(len(message).to_bytes(4, "little") + message)
    return len(message)


def receive(peer: socket.socket, most: int = 1 << 28) -> bytes:
    """Return the next message; raises ConnectionError where the peer goes, TimeoutError where it is silent."""
    size = int.from_bytes(_exactly(peer, 4), "little")
    if size > most:
        raise ConnectionError(f"a message of {size} bytes is announced")
    return _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = peer.recv(min(size - len(data), 1 << 20))
        if not part:
            raise ConnectionError("the peer has gone")
        data += part
    return bytes(data)


def serve(listener: socket.socket, workers: int, parts: Sequence[int], steps: int, timeout: float = TIMEOUT) -> int:
    """Reduce the messages of all workers, step by step; return the bytes that came and went."""
    listener.settimeout(timeout)
    peers: dict[int, socket.socket] = {}
    traffic = 0
    try:
        while len(peers) < workers:
            peer, _ = listener.accept()
            peer.settimeout(timeout)
            peers[int.from_bytes(_exactly(peer, 4), "little")] = peer
        reducer = Reducer(RECIPE, parts, mean=True, sender=workers)
        for _ in range(steps):
            messages = {rank: receive(peer) for rank, peer in sorted(peers.items())}
            answer = reducer.reduce(messages)
            traffic += sum(map(len, messages.values())) + sum(send(peer, answer) for peer in peers.values())
        return traffic
    finally:
        for peer in peers.values():
            peer.close()


class Worker:
    """A worker's end: what it pushes is reduced with what the others push."""

    def __init__(self, address: tuple[str, int], rank: int, parts: Sequence[int], timeout: float = TIMEOUT) -> None:
        self.channel = Channel(RECIPE, parts, sender=rank)
        self.peer = socket.create_connection(address, timeout)
        self.peer.sendall(rank.to_bytes(4, "little"))

    def reduce(self, gradient: np.ndarray) -> np.ndarray:
        """Return the mean of the gradients of all workers, or what 3LC makes of it."""
        send(self.peer, self.channel.send(gradient))
        mean = np.empty_like(gradient)
        self.channel.receive(receive(self.peer), mean)
        return mean

    def close(self) -> None:
        self.peer.close()


def fit(address: tuple[str, int], rank: int, workers: int, steps: int, results: object) -> None:
    """Fit x → x · model by gradient descent, on this worker's share of the data."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((300, 20)).astype(np.float32)
    x = rng.standard_normal((3000, 300)).astype(np.float32)
    y = x @ truth
    x, y = x[rank::workers], y[rank::workers]
    model = np.zeros_like(truth)
    worker = Worker(address, rank, [model.size])
    try:
        for _ in range(steps):
            gradient = x.T @ (x @ model - y) / len(x)
            model -= np.float32(0.03) * worker.reduce(gradient)
    finally:
        worker.close()
    if rank == 0:
        results.put(float(np.abs(model - truth).max()))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
        arguments = [(address, rank, chosen.workers, chosen.steps, results) for rank in range(chosen.workers)]
        processes = [context.Process(target=fit, args=each) for each in arguments]
        for process in processes:
            process.start()
        traffic = serve(listener, chosen.workers, [6000], chosen.steps)
    error = results.get(timeout=TIMEOUT)
    for process in processes:
        process.join(TIMEOUT)
    plain = 2 * 4 * 6000 * chosen.workers * chosen.steps
    print(f"largest error of the model {error:.2g}")
    print(f"{traffic:,} bytes instead of {plain:,}: {plain / traffic:.0f} times less")


if __name__ == "__main__":
    main()
