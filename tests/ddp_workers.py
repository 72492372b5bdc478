"""What the spawned ranks of test_pytorch_ddp.py do: ``python ddp_workers.py TASK RANK WORLD FOLDER``.

A task returns what the test looks at, as JSON; ranks meet through a file in the folder.
"""

import contextlib
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from featherweight.pytorch import CompressionState, compress_hook
from featherweight.pytorch._peers import TOGETHER, PeerError, Peers, own_group

TIMEOUT = 6.0
THREE = "3lc(1.75)"


class Net(nn.Module):
    """Layers that run in another order than they are declared in, so that buckets are rebuilt in another order."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        self.last = nn.Linear(width, 7)
        self.first = nn.Linear(40, width)
        self.middle = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.middle(torch.tanh(self.first(x))))
        return self.last(x) * self.scale


def network(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**options)


def data(rank: int, step: int, rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1000 * step + rank)
    x = torch.randn(rows, 40, generator=draw)
    return x, x[:, :7].argmax(1)


def wrapped(net: nn.Module, state: CompressionState | None = None, **options: Any) -> DistributedDataParallel:
    ddp = DistributedDataParallel(net, bucket_cap_mb=0.012, **options)
    if state is not None:
        ddp.register_comm_hook(state, compress_hook)
    return ddp


def backward(net: nn.Module, rank: int, step: int, dtype: torch.dtype = torch.float32) -> float:
    for parameter in net.parameters():
        parameter.grad = None
    x, y = data(rank, step)
    loss = nn.functional.cross_entropy(net(x.to(dtype)).float(), y)
    loss.backward()
    return loss.item()


def gradient(net: nn.Module) -> torch.Tensor:
    """Return all gradients in one row, zeros where there is none."""
    parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in net.parameters()]
    return torch.cat(parts).float()


def everywhere(values: torch.Tensor) -> bool:
    """Return whether all ranks have the same bits."""
    mine = values.contiguous().view(torch.uint8)
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    return all(torch.equal(each, mine) for each in found)


def mean(values: torch.Tensor) -> torch.Tensor:
    values = values.double().clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()


def owed(state: CompressionState, net: nn.Module) -> torch.Tensor:
    """Return what has not reached the model: the mean of what pushes lack and the sum of what answers lack."""
    saved = state.state_dict()
    rows = []
    for number, parameter in enumerate(net.parameters()):
        push = saved["push"].get(number, torch.zeros(parameter.numel())).double()
        pull = saved["pull"].get(number, torch.zeros(parameter.numel())).double()
        rows.append(push / dist.get_world_size() + pull)
    total = torch.cat(rows)
    dist.all_reduce(total)
    return total


def raw_is_what_plain_training_does(rank: int, world: int, folder: Path) -> Any:
    found = []
    for views in (False, True):
        for warm_up, recipe in ((0, "raw"), (9, THREE)):
            state = CompressionState(recipe, least=0, warm_up=warm_up)
            plain, coded = wrapped(network()), wrapped(network(), state, gradient_as_bucket_view=views)
            optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (plain, coded)]
            for step in range(4):
                for net in (plain, coded):
                    backward(net, rank, 2 * step)
                with plain.no_sync(), coded.no_sync():
                    for net in (plain, coded):
                        x, y = data(rank, 2 * step + 1)
                        nn.functional.cross_entropy(net(x), y).backward()
                    found.append(not everywhere(gradient(coded)))
                for net in (plain, coded):
                    x, y = data(rank, 50 + step)
                    nn.functional.cross_entropy(net(x), y).backward()
                found += [torch.equal(gradient(plain), gradient(coded)), everywhere(gradient(coded))]
                for optimizer in optimizers:
                    optimizer.step()
            stats = state.stats()
            found.append((8, 0) == ((stats.steps, stats.warm_up_steps)[:: 1 if not warm_up else -1]))
            values = sum(parameter.numel() for parameter in coded.parameters())
            sent = mean(torch.tensor([stats.warm_up if warm_up else stats.plain])).item()
            more = sent - 8 * 4 * 2 * values * (world - 1) / world
            # What plain steps really send has heads: two exchanges a bucket, and one more a step.
            found.append(0 < more <= 8 * 8 * (2 * 9 + 1) if warm_up else more == 0)
    return found


def messages_of_any_length(rank: int, world: int, folder: Path) -> Any:
    """Exchange messages whose lengths and bytes tell by whom, to whom and when they were sent."""
    peers, found = Peers(own_group(dist.group.WORLD, TIMEOUT), rank, world, TIMEOUT), []
    for turn, size in enumerate((0, 1, 100, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER, 1 << 20)):
        sent = [bytes([16 * sender + turn]) * (size + sender) for sender in range(world)]
        received = peers.exchange([sent[rank]] * world, size + world)
        found += [bytes(each) == other for each, other in zip(received, sent, strict=True)]
    for size in (5000, 3 * TOGETHER):  # more than was said to be the most
        try:
            peers.exchange([bytes(size)] * world, 100)
        except PeerError as error:
            found.append(f"announces a message of {size} bytes" in str(error) or str(error))
        dist.barrier()
    return found


def nothing_is_lost(rank: int, world: int, folder: Path) -> Any:
    """Compare what reached the model and what is owed to it with the true means, over rebuilds and frozen layers."""
    found: dict[str, Any] = {}
    for recipe in (THREE, "eden(1)", "3lc-small(1.5)"):
        net = network()
        state = CompressionState(recipe, parameters=net.parameters())
        total = torch.zeros(sum(p.numel() for p in net.parameters()), dtype=torch.float64)
        true, same, layouts, missing = torch.zeros_like(total), [], [], []
        reference = network()
        step = 0
        for frozen in ((), ("middle",), ("first", "scale"), ()):
            for name, parameter in net.named_parameters():
                parameter.requires_grad_(name.split(".")[0] not in frozen)
            ddp = wrapped(net, state)
            for _ in range(4):
                backward(ddp, rank, step)
                backward(reference, rank, step)
                for mine, others in zip(net.parameters(), reference.parameters(), strict=True):
                    if not mine.requires_grad:
                        others.grad = None
                same.append(everywhere(gradient(net)))
                total += gradient(net)
                true += mean(gradient(reference))
                layouts.append(state.state_dict()["layout"])
                missing.append(((true - total - owed(state, net)).abs().max() / true.abs().max()).item())
                step += 1
        lacks = (owed(state, net).norm() / true.norm()).item()
        found[recipe] = {
            "same": all(same),
            "missing": max(missing),
            "lacks": lacks,
            "layouts": len({json.dumps(each) for each in layouts}),
            "buckets": max(map(len, layouts)),
        }
    return found


def what_is_not_finite(rank: int, world: int, folder: Path) -> Any:
    net = network()
    state = CompressionState(THREE, parameters=net.parameters())
    ddp, found = wrapped(net, state), {}
    for step in range(3):
        backward(ddp, rank, step)
    before = state.state_dict()
    handle = net.middle.weight.register_hook(lambda grad: grad * float("nan") if rank == 1 else grad)
    backward(ddp, rank, 3)
    handle.remove()
    after = state.state_dict()
    found["nan"] = sorted(name for name, p in net.named_parameters() if not p.grad.isfinite().all())
    found["finite"] = all(e.isfinite().all().item() for kind in ("push", "pull") for e in after[kind].values())
    number = [name for name, _ in net.named_parameters()].index("middle.weight")
    at_nan = torch.equal(before["push"][number], after["push"][number])
    found["kept"] = at_nan if rank == 1 else not at_nan
    backward(ddp, rank, 4)
    found["next"] = gradient(net).isfinite().all().item() and everywhere(gradient(net))
    return found


def half_precision(rank: int, world: int, folder: Path) -> Any:
    found = []
    for dtype in (torch.bfloat16, torch.float16):
        net, reference = network().to(dtype), wrapped(network().to(dtype))
        state = CompressionState("raw", least=0)
        ddp = wrapped(net, state)
        for step in range(3):
            backward(ddp, rank, step, dtype)
            backward(reference, rank, step, dtype)
            close = torch.allclose(gradient(net), gradient(reference), rtol=2**-6, atol=2**-12)
            kinds = {parameter.grad.dtype for parameter in net.parameters()}
            found += [close, {dtype} == kinds, everywhere(gradient(net))]
        state = CompressionState(THREE)
        ddp = wrapped(net, state)
        backward(ddp, rank, 0, dtype)
        found += [everywhere(gradient(net)), 0 < gradient(net).norm().item()]
    return found


def on_cuda(rank: int, world: int, folder: Path) -> Any:
    """Compare what CUDA tensors come to with what the processor's do."""
    found = []
    device = torch.device("cuda", rank % torch.cuda.device_count())
    for recipe in ("raw", THREE):
        net, reference = network().to(device), network()
        states = [CompressionState(recipe, least=0) for _ in range(2)]
        ddp = DistributedDataParallel(net, device_ids=[device.index], bucket_cap_mb=0.012)
        ddp.register_comm_hook(states[0], compress_hook)
        plain = wrapped(reference, states[1])
        for step in range(3):
            x, y = data(rank, step)
            net.zero_grad()
            nn.functional.cross_entropy(ddp(x.to(device)), y.to(device)).backward()
            backward(plain, rank, step)
            torch.cuda.synchronize(device)
            mine, others = gradient(net).cpu(), gradient(reference)
            found += [everywhere(mine), torch.allclose(mine, others, rtol=1e-2, atol=1e-3) or recipe == THREE]
        found.append(states[0].stats().plain == states[1].stats().plain)
    return found


class Odd(nn.Module):
    """Parameters of a few values, of none, and one that is large: most shards of their buckets are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.none = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(0, 3))
        self.two, self.large = nn.Parameter(torch.ones(2)), nn.Parameter(torch.linspace(-1, 1, 5000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one * x + self.none.sum() + self.two.sum() * x + (self.large * x).sum()


def odd_buckets(rank: int, world: int, folder: Path) -> Any:
    found = []
    for cap in (1e-6, 25):
        net, reference = Odd(), Odd()
        ddp = DistributedDataParallel(net, bucket_cap_mb=cap)
        ddp.register_comm_hook(CompressionState("raw", least=0, parameters=net.parameters()), compress_hook)
        for step in range(3):
            for each in (ddp, reference):
                each.zero_grad()
                each(torch.tensor(float(rank + step))).sum().backward()
            true = mean(gradient(reference)).float()
            found += [torch.allclose(true, gradient(net), rtol=1e-6), everywhere(gradient(net))]
    return found


def restart(rank: int, world: int, folder: Path) -> Any:
    """Train 8 steps, and again from what was saved after 4; then once more without the state."""
    found: dict[str, Any] = {}
    for recipe in (THREE, "eden(2)"):
        losses = []

        def run(net: nn.Module, state: CompressionState, saved: Any, steps: range) -> list[float]:
            ddp = wrapped(net, state)
            optimizer = torch.optim.SGD(ddp.parameters(), lr=0.3, momentum=0.9)
            if saved is not None:
                optimizer.load_state_dict(saved["optimizer"])
            found = []
            for step in steps:
                if step == 4 and saved is None:
                    parts = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "state": state.state_dict()}
                    torch.save(parts, folder / f"{rank}.pt")
                found.append(backward(ddp, rank, step))
                optimizer.step()
            return [*found, gradient(net).double().norm().item()]

        losses.append(run(network(), CompressionState(recipe, seed=5), None, range(8)))
        for with_state in (True, False):
            saved = torch.load(folder / f"{rank}.pt", weights_only=True)
            net, state = network(seed=9), CompressionState(recipe, seed=5)
            net.load_state_dict(saved["net"])
            if with_state:
                state.load_state_dict(saved["state"])
            losses.append(run(net, state, saved, range(4, 8)))
        found[recipe] = losses
    return found


def another_world(rank: int, world: int, folder: Path) -> Any:
    """Go on from what `restart` saved on two ranks."""
    saved = [torch.load(folder / f"{old}.pt", weights_only=True)["state"] for old in (1, 0)]
    state = CompressionState("eden(2)", seed=5)
    state.load_state_dict(saved)
    net = network()
    total = sum(parameter.numel() for parameter in net.parameters())
    before = 0.0
    for each in saved:
        for number, error in each["push"].items():
            before = before + _spread(number, error, total) / 2
        for number, error in each["pull"].items():
            before = before + _spread(number, error, total)
    now, parts = state.state_dict(), torch.zeros(total, dtype=torch.float64)
    for number, error in now["push"].items():
        parts += _spread(number, error, total) / world
    dist.all_reduce(parts)
    ddp, same = wrapped(net, state), []
    for step in range(3):
        backward(ddp, rank, step)
        same.append(everywhere(gradient(net)))
    found = {"same": all(same), "step": state.state_dict()["step"], "pull": len(now["pull"])}
    found["missing"] = ((before - parts).abs().max() / before.abs().max()).item()
    found["owed"] = before.abs().max().item()
    wrong = CompressionState("eden(2)", seed=5)
    for each in saved:
        each["push"][0] = torch.zeros(3)
    wrong.load_state_dict(saved)
    try:
        backward(wrapped(network(), wrong), rank, 0)
    except (RuntimeError, ValueError) as error:
        found["wrong"] = str(error)
    return found


def _spread(number: int, error: torch.Tensor, total: int) -> torch.Tensor:
    """Put an error at a place of its own that depends on its parameter alone."""
    row = torch.zeros(total, dtype=torch.float64)
    row[(torch.arange(error.numel()) * 7919 + 31 * number) % total] = error.double()
    return row


def faults(rank: int, world: int, folder: Path) -> Any:
    found: dict[str, Any] = {}

    @contextlib.contextmanager
    def caught(name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        except (RuntimeError, ValueError) as error:
            found[name] = [str(error), time.monotonic() - begun]

    def trained(state: CompressionState, steps: int = 3, ddp: Any = None) -> Any:
        ddp = ddp if ddp is not None else wrapped(network(), state)
        for step in range(steps):
            backward(ddp, rank, step)
        return ddp

    with caught("recipes"):
        trained(CompressionState("3lc(1.5)" if rank == 1 else "eden(3)"))
    dist.barrier()
    with caught("steps"):
        state = CompressionState(THREE)
        if rank == 0:
            state.load_state_dict({**state.state_dict(), "step": 7})
        trained(state)
    dist.barrier()
    for phase in ("push", "pull"):
        state = CompressionState(THREE)
        ddp = trained(state, 3)
        if rank == 1:
            _spoil(state, 1 if phase == "push" else 2)
        with caught(phase):
            trained(state, 3, ddp)
        with caught(f"{phase} again"):
            trained(state, 1)
        dist.barrier()
    state = CompressionState(THREE, timeout=1.5)
    ddp = trained(state, 2)
    with caught("silent"):
        if rank == 2:
            time.sleep(3)
        else:
            trained(state, 1, ddp)
    dist.barrier()
    state = CompressionState(THREE)
    ddp = trained(state, 3)
    if rank == 2:
        go, calls = state._go, iter((0, 1))
        _write(folder, rank, {"faults": found})

        def dying(*args: Any, **options: Any) -> None:
            if next(calls):
                os._exit(9)
            go(*args, **options)

        state._go = dying  # type: ignore[method-assign]
    with caught("killed"):
        trained(state, 1, ddp)
    return found


def _spoil(state: CompressionState, which: int) -> None:
    """Spoil what rank 0 is sent in the next exchange, or in the one after it."""
    exchange, left = state._peers.exchange, [which]

    def spoiled(messages: Any, most: int) -> Any:
        left[0] -= 1
        if left[0] == 0:
            bad = bytearray(messages[0])
            bad[-1] ^= 4
            messages = [bytes(bad), *messages[1:]]
        return exchange(messages, most)

    state._peers.exchange = spoiled  # type: ignore[method-assign]


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def strokes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ten kinds of figures, each three strokes that are moved, bent and blurred, in noise."""
    kinds = np.random.default_rng(77).uniform(5, 23, (10, 3, 2, 2))
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)
    ends = kinds[labels] + rng.normal(0, 1.3, (count, 3, 2, 2)) + rng.normal(0, 1.5, (count, 1, 1, 2))
    along = np.linspace(0, 1, 12)[None, None, :, None]
    points = (ends[:, :, None, 0] * (1 - along) + ends[:, :, None, 1] * along).reshape(count, -1, 2).astype("f4")
    axis = np.arange(28, dtype="f4")
    near = np.exp(-((points[:, :, 0, None] - axis) ** 2) / 2), np.exp(-((points[:, :, 1, None] - axis) ** 2) / 2)
    images = np.minimum(np.einsum("npi,npj->nij", *near), 1) + rng.normal(0, 0.25, (count, 28, 28))
    return torch.from_numpy(images[:, None].astype("f4")), torch.from_numpy(labels)


def _lenet(rank: int, world: int, train: Any, test: Any, steps: int, recipe: str) -> Any:
    found, (x, y) = {}, train
    for name in (None, recipe):
        torch.manual_seed(3)
        net = lenet()
        state = CompressionState(name) if name else None
        ddp = DistributedDataParallel(net)
        if state is not None:
            ddp.register_comm_hook(state, compress_hook)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
        draw = torch.Generator().manual_seed(rank)
        for _ in range(steps):
            rows = torch.randint(len(x) // world, (32,), generator=draw) * world + rank
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            right = (net(test[0]).argmax(1) == test[1]).float().mean().item()
        found[name or "plain"] = right
        if state is not None:
            found["ratio"] = state.stats().ratio
            found["same"] = everywhere(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
            found["stats"] = str(state.stats())
    return found


def lenet_on_strokes(rank: int, world: int, folder: Path) -> Any:
    return _lenet(rank, world, strokes(6000, 1), strokes(2000, 2), 300, "3lc")


def lenet_on_mnist(rank: int, world: int, folder: Path) -> Any:
    with np.load(os.environ["MNIST"]) as found:
        sets = {name: found[name] for name in found.files}
    train, test = (
        (
            (torch.from_numpy(sets[f"x_{kind}"]).float()[:, None] / 255 - 0.13) / 0.31,
            torch.from_numpy(sets[f"y_{kind}"]).long(),
        )
        for kind in ("train", "test")
    )
    return _lenet(rank, world, train, test, 500, "3lc")


def _write(folder: Path, rank: int, found: Any) -> None:
    part = folder / f"{rank}.part"
    part.write_text(json.dumps(found))
    part.rename(folder / f"{rank}.json")


def main() -> None:
    name, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    timeout = dt.timedelta(seconds=TIMEOUT if name == "faults" else 60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=timeout)
    tasks: dict[str, Callable[[int, int, Path], Any]] = {n: f for n, f in globals().items() if callable(f)}
    found = {}
    for each in name.split(","):
        found[each] = tasks[each](rank, world, folder)
    _write(folder, rank, found)
    if name != "faults":
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
