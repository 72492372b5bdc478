"""Networks in training on several processes, and the ways in which these may exchange gradients.

A way is ``none`` (PyTorch's own all-reduce), ``fp16`` and ``powersgd(RANK)`` (its hooks), ``nothing`` (no exchange at
all), or a recipe of ours. With ``, late`` behind it, nothing travels before the backward pass has ended.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import _hosts, _networks
from benchmarks._common import AbsentError

try:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F  # noqa: N812
    from torch import nn
    from torch.distributed.algorithms.ddp_comm_hooks import debugging_hooks, default_hooks, powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel
except ImportError:
    raise AbsentError("torch is not installed: pip install -e '.[networks]'") from None

from featherweight.pytorch import CompressionState, compress_hook

LATE = ", late"
BUCKET = 0.25  # MiB: buckets of PyTorch's own size would hold either network whole, and nothing would overlap
WHOLE = 25
WARM_UP = 10  # steps that PowerSGD sends plain; its own default is 1,000
EVALUATIONS = 16
BUSY = ("encoding", "reducing", "decoding", "communicating")
CHECKED = 1000  # test images of the points of a curve; its end counts all


class Block(nn.Module):
    """Two convolutions and a shortcut of option A (arXiv:1512.03385)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.wider = outside - inside
        stride = 2 if self.wider else 1
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outside) for _ in range(2))

    def forward(self, x: Any) -> Any:
        y = F.relu(self.norms[0](self.first(x)), inplace=True)
        y = self.norms[1](self.second(y))
        half = self.wider // 2
        return F.relu(y + (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half)) if half else x), inplace=True)


def resnet20() -> nn.Module:
    widths = (16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = [Block(inside, outside) for inside, outside in zip((16, *widths), widths, strict=False)]
    first = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
    network = nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return network


def lenet5() -> nn.Module:
    """Return the LeNet-5 that Caffe trains: 431,080 parameters, most of them in one matrix."""
    convolutions = nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


@dataclass(frozen=True)
class Task:
    """How a network is trained: `batch` images a rank and step; `rate` is the peak of a one-cycle schedule."""

    build: Callable[[], nn.Module]
    data: Callable[[str, int], tuple[Any, Any]]
    images: int
    steps: int
    batch: int
    rate: float
    decay: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bf16: bool
    flips: bool


TASKS = {
    "LeNet-5": Task(lenet5, _networks.mnist, 60_000, 2000, 32, 0.01, 5e-4, (0.1307,), (0.3081,), False, False),
    "ResNet-20": Task(
        *(resnet20, _networks.cifar, 50_000, 800, 32, 0.05, 1e-4),
        *((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), True, True),
    ),
}


class Images:
    """Images of bytes, given out as standardized floats."""

    def __init__(self, task: Task, split: str, count: int) -> None:
        images, labels = task.data(split, count)
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        self.mean, self.std = (255 * torch.tensor(x).reshape(1, -1, 1, 1) for x in (task.mean, task.std))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Any) -> tuple[Any, Any]:
        images = (self.images[rows] - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last), self.labels[rows]


class Trainer:
    """One rank of a training run."""

    def __init__(self, task: Task, way: str, rank: int, world: int, images: Images, steps: int, seed: int = 0) -> None:
        torch.manual_seed(1000 + seed)
        self.task, self.images, self.network = task, images, task.build()
        # PowerSGD's hook sends from callbacks, in whatever order they come: over gloo, several buckets crash its ranks.
        bucket = WHOLE if way.startswith("powersgd") else BUCKET
        self.model = DistributedDataParallel(self.network, bucket_cap_mb=bucket, forward_sync_buffers=False)
        self.payload, self.hook = register(self.model, way, world)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=task.rate, momentum=0.9, nesterov=True, weight_decay=task.decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, task.rate, total_steps=steps, pct_start=0.15, cycle_momentum=False
        )
        self.draw = torch.Generator().manual_seed(100 * seed + rank)
        self.rank, self.world = rank, world

    def step(self) -> None:
        of_all = len(self.images) // self.world
        x, y = self.images.take(torch.randint(of_all, (self.task.batch,), generator=self.draw) * self.world + self.rank)
        if self.task.flips:
            flipped = torch.rand(len(y), 1, 1, 1, generator=self.draw) < 0.5
            x = torch.where(flipped, x.flip(3), x)
        self.optimizer.zero_grad()
        with self._precision():
            loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()

    def accuracy(self, images: Images, count: int) -> float:
        """Return percent correct of the first `count` images."""
        self.network.eval()
        right = 0
        with torch.inference_mode(), self._precision():
            for rows in torch.arange(min(count, len(images))).split(250):
                x, y = images.take(rows)
                right += int((self.network(x).argmax(1) == y).sum())
        self.network.train()
        return 100 * right / min(count, len(images))

    def busy(self) -> dict[str, float]:
        """Return the seconds that our hook has spent so far, by what it spent them on."""
        found = self.hook.stats() if isinstance(self.hook, CompressionState) else None
        return {name: getattr(found, name) for name in BUSY} if found else {}

    def _precision(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.task.bf16)


def register(model: Any, way: str, world: int) -> tuple[Callable[[int], dict[str, float]], Any]:
    """Have a model exchange gradients in this way; return what tells the bytes sent in so many steps, and the state.

    The bytes are a rank's, counted above the network: `bytes` in coded steps, `plain` what they would have been in f32,
    `warm_up` before. Of PyTorch's own they are computed: a ring sends twice the share of the others.
    """
    name, late = way.removesuffix(LATE), way.endswith(LATE)
    size = sum(parameter.numel() for parameter in model.parameters())
    ring = 4 * 2 * (world - 1) / world
    state: Any
    if name in ("none", "fp16", "nothing"):
        hook = {"none": default_hooks.allreduce_hook, "fp16": default_hooks.fp16_compress_hook}
        state, called = None, hook.get(name, debugging_hooks.noop_hook)
        share = {"none": 1.0, "fp16": 0.5, "nothing": 0.0}[name]

        def payload(steps: int) -> dict[str, float]:
            return {"bytes": share * ring * size * steps, "plain": ring * size * steps, "warm_up": 0.0}

    elif name.startswith("powersgd("):
        rank = int(name[9:-1])
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=WARM_UP)
        called = powerSGD_hook.powerSGD_hook

        def payload(steps: int) -> dict[str, float]:
            _, before, after = state.compression_stats()
            return {"bytes": ring * after, "plain": ring * before, "warm_up": ring * size * WARM_UP}

    else:
        state, called = CompressionState(name), compress_hook

        def payload(steps: int) -> dict[str, float]:
            found = state.stats()
            return {"bytes": found.push + found.pull, "plain": found.plain, "warm_up": found.warm_up}

    model.register_comm_hook(state, _after_backward(called) if late else called)
    return payload, state


def _after_backward(
    hook: Callable[[Any, Any], Any],
) -> Callable[[Any, dist.GradBucket], torch.futures.Future[torch.Tensor]]:
    """Return a hook that calls another for all buckets when the last of them is there."""
    held: list[tuple[Any, Any]] = []

    def late(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        promise: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        held.append((bucket, promise))
        if bucket.is_last():
            for each, waiting in held:
                hook(state, each).then(lambda done, waiting=waiting: waiting.set_result(done.value()))
            held.clear()
        return promise

    return late


def train(rank: int, world: int, meeting: str, task: str, way: str, seed: int, steps: int) -> dict[str, Any] | None:
    """Train to the end; return the accuracy along the way, at the end, the payload, and the seconds of all steps."""
    _meet(rank, world, meeting)
    chosen = TASKS[task]
    images, test = Images(chosen, "train", chosen.images), Images(chosen, "test", 10_000)
    trainer = Trainer(chosen, way, rank, world, images, steps, seed)
    curve, seconds = [], 0.0
    for number in range(1, steps + 1):
        begun = time.perf_counter()
        trainer.step()
        seconds += time.perf_counter() - begun
        if number * EVALUATIONS // steps != (number - 1) * EVALUATIONS // steps and number < steps:
            curve.append((number, trainer.accuracy(test, CHECKED) if rank == 0 else 0.0, seconds))
            dist.barrier()
    right = trainer.accuracy(test, len(test.labels)) if rank == 0 else 0.0
    curve.append((steps, right, seconds))
    flat = torch.cat([p.detach().reshape(-1) for p in trainer.network.parameters()])
    theirs = flat.clone()
    dist.broadcast(theirs, 0)
    if way != "nothing" and not torch.equal(flat.view(torch.int32), theirs.view(torch.int32)):  # NaNs are equal, too
        raise AssertionError(f"{way}: ranks ended with different weights")
    dist.destroy_process_group()
    return {"accuracy": right, "curve": curve, "seconds": seconds, "payload": trainer.payload(steps)}


def time_steps(
    rank: int, world: int, meeting: str, task: str, ways: Sequence[str], rounds: int, steps: int, interface: str
) -> dict[str, Any]:
    """Take steps in all ways by turns; return, for each, the seconds of a step by round, and its bytes on the wire.

    `busy` tells what of a step our hook's threads spent on what, on average; they work beside the backward pass.
    """
    _meet(rank, world, meeting)
    chosen = TASKS[task]
    images = Images(chosen, "train", 10_000)
    trainers = {way: Trainer(chosen, way, rank, world, images, 10_000) for way in ways}
    for trainer in trainers.values():
        for _ in range(WARM_UP + 2):
            trainer.step()
    times: dict[str, list[float]] = {way: [] for way in ways}
    wire, before_all = dict.fromkeys(ways, 0), {way: trainer.busy() for way, trainer in trainers.items()}
    for _ in range(rounds):
        for way, trainer in trainers.items():
            dist.barrier()
            before = _hosts.sent(interface)
            each = []
            for _ in range(steps):
                begun = time.perf_counter()
                trainer.step()
                each.append(time.perf_counter() - begun)
            wire[way] += _hosts.sent(interface) - before
            times[way].append(statistics.fmean(each))
    dist.destroy_process_group()
    all_steps = rounds * steps
    busy = {
        way: {name: (seconds - before_all[way][name]) / all_steps for name, seconds in trainer.busy().items()}
        for way, trainer in trainers.items()
    }
    return {way: {"seconds": times[way], "wire": wire[way] / all_steps, "busy": busy[way]} for way in ways}


def _meet(rank: int, world: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
