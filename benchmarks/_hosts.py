"""Several hosts on one machine: network namespaces around a switch, each behind a link of a given rate."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._common import AbsentError, Child, FailedError, all_cores

INTERFACE = "fw0"
_PATIENCE = 20.0


class Host(NamedTuple):
    """Where a process runs: `prefix` is the command that runs others there, `interface` its link's name."""

    prefix: tuple[str, ...]
    interface: str


HERE = Host((), "lo")


@contextlib.contextmanager
def joined(count: int, mbit: float) -> Iterator[list[Host]]:
    """Make hosts that a switch joins; every link carries `mbit` megabits a second each way. Raises AbsentError.

    A link may save up a millisecond of traffic, or two packets: what is sent at once beyond that waits (tbf).
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise AbsentError("limited links are network namespaces, which only root can make: run as root")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise AbsentError(f"{tool} is not installed: it comes with iproute2")
    stem = f"fw{os.getpid()}"
    switch, names = f"{stem}-switch", [f"{stem}-{number}" for number in range(count)]
    burst = max(3200, round(mbit * 1e6 / 8 / 1000))
    limit = ("root", "tbf", "rate", f"{mbit:g}mbit", "burst", f"{burst}", "latency", "1000ms")
    try:
        _do("ip", "netns", "add", switch)
        _in(switch, "ip", "link", "add", "bridge", "type", "bridge")
        _in(switch, "ip", "link", "set", "dev", "bridge", "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            _do("ip", "netns", "add", name)
            _in(switch, "ip", "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", name)
            _in(switch, "ip", "link", "set", "dev", port, "master", "bridge", "up")
            _in(name, "ip", "address", "add", f"10.77.0.{number + 1}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                _in(name, "ip", "link", "set", "dev", interface, "up")
            _in(name, "tc", "qdisc", "add", "dev", INTERFACE, *limit)
            _in(switch, "tc", "qdisc", "add", "dev", port, *limit)
        yield [Host(("ip", "netns", "exec", name), INTERFACE) for name in names]
    finally:
        for name in (*names, switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def together(target: str, hosts: Sequence[Host], /, **arguments: Any) -> Any:
    """Call ``module:function(rank, world, meeting, **arguments)`` on every host; return what rank 0 does.

    `meeting` is a file that is not there yet. Rank r has core r to itself, if there are so many. Where one rank fails
    the others are given a while to say so, too; raises FailedError.
    """
    cores = all_cores()
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank, host in enumerate(hosts):
            own = Path(folder) / str(rank)
            own.mkdir()
            more = {"rank": rank, "world": len(hosts), "meeting": f"{folder}/meeting", **arguments}
            environment = {"GLOO_SOCKET_IFNAME": host.interface}
            children.append(Child(target, [cores[rank % len(cores)]], own, more, environment, host.prefix))
        try:
            deadline = None
            while any(child.process.poll() is None for child in children):
                if deadline is None and any(child.process.poll() for child in children):
                    deadline = time.monotonic() + _PATIENCE
                if deadline is not None and time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        finally:
            for child in children:
                child.process.kill()
            for child in children:
                child.process.wait()
        first, *_ = [child.result() for child in children]
        return first


def sent(interface: str) -> int:
    """Return how many bytes, headers and all, an interface of this host has sent."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())


def _in(namespace: str, *command: str) -> None:
    _do("ip", "netns", "exec", namespace, *command)


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{' '.join(command)}: {done.stderr.strip()}")
