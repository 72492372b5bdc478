"""Train on several processes that send each other a fiftieth of their gradients' bytes.

``python examples/ddp.py`` starts two of them on this machine; ``torchrun --nproc_per_node 4 examples/ddp.py``, or
torchrun on several machines, as many as one likes. Needs PyTorch: ``pip install 'featherweight[torch]'``.
"""

import argparse
import os
import socket

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from featherweight.pytorch import CompressionState, compress_hook

STEPS, BATCH, CLASSES = 300, 64, 10


def examples(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points about the centres of ten classes, in noise."""
    centres = torch.randn(CLASSES, 100, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return centres[labels] + 2.5 * torch.randn(count, 100, generator=draw), labels


def train(recipe: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, CLASSES))
    model = DistributedDataParallel(network)
    state = CompressionState(recipe)
    model.register_comm_hook(state, compress_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for step in range(STEPS):
        x, y = examples(1000 * dist.get_rank() + step, BATCH)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = examples(-1, 5000)
    right = (network(x).argmax(1) == y).float().mean().item()
    stats = state.stats()
    if dist.get_rank() == 0:
        sent = stats.push + stats.pull
        print(f"{recipe}: {right:.1%} right; {sent:,} bytes sent, {stats.ratio:.1f} times fewer than f32")


def run(rank: int, world: int, port: int, recipe: str) -> None:
    torch.set_num_threads(1)
    if port:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo")
    train(recipe)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="3lc")
    parser.add_argument("--processes", type=int, default=2, help="where torchrun does not say")
    chosen = parser.parse_args()
    if "RANK" in os.environ:
        run(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), 0, chosen.recipe)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run, (chosen.processes, port, chosen.recipe), nprocs=chosen.processes)


if __name__ == "__main__":
    main()
