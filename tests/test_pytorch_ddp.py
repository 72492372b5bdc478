"""Several ranks train together: what they see, what they owe each other, and how they fail."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featherweight
from featherweight.errors import ArgumentError
from featherweight.traffic import Channel

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'featherweight[torch]'")

from featherweight.pytorch import CompressionState  # noqa: E402  # where there is PyTorch

WORKERS = Path(__file__).with_name("ddp_workers.py")
MNIST = Path(featherweight.__file__).parents[3] / "shared" / "data" / "datasets" / "mnist.npz"


@pytest.fixture(autouse=True, scope="module")
def _kernels_are_compiled() -> None:
    """Compile once what all ranks would compile at once."""
    for recipe in ("3lc", "3lc(1.75)", "3lc-small(1.5)", "eden(1)", "eden(2)", "eden(3)", "raw"):
        channel, values = Channel(recipe, [5000, 16]), np.linspace(-1, 1, 5016, dtype=np.float32)
        for add in (False, True):
            channel.receive(channel.send(values), np.empty_like(values), add=add)


def together(
    tasks: str, world: int, folder: Path, timeout: float = 100, codes: Any = (0,), **environ: str
) -> list[Any]:
    """Run tasks on so many ranks; return what each of them found."""
    for old in (*folder.glob("*.json"), *folder.glob("meeting*")):
        old.unlink()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **environ}
    ranks = []
    for rank in range(world):
        command = [sys.executable, str(WORKERS), tasks, str(rank), str(world), str(folder)]
        ranks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        deadline = time.monotonic() + timeout
        said = [each.communicate(timeout=max(deadline - time.monotonic(), 0.1))[1] for each in ranks]
    finally:
        for each in ranks:
            each.kill()
            each.communicate()
    for rank, each in enumerate(ranks):
        assert each.returncode in codes, f"rank {rank} ended with {each.returncode}:\n{said[rank][-3000:]}"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def test_two_ranks(tmp_path: Path) -> None:
    tasks = "raw_is_what_plain_training_does,nothing_is_lost,what_is_not_finite,half_precision"
    for found in together(tasks, 2, tmp_path):
        assert all(found["raw_is_what_plain_training_does"])
        assert len(found["raw_is_what_plain_training_does"]) == 4 * (4 * 3 + 2)
        for recipe, each in found["nothing_is_lost"].items():
            assert each["same"], recipe
            assert each["missing"] < 1e-4, recipe
            assert 1e-3 < each["lacks"], recipe
            assert 4 <= each["layouts"], recipe
            assert 2 <= each["buckets"], recipe
        assert found["what_is_not_finite"] == {"nan": ["middle.weight"], "finite": True, "kept": True, "next": True}
        assert found["half_precision"] == [True] * (2 * 11)


def test_three_ranks(tmp_path: Path) -> None:
    for found in together("messages_of_any_length,nothing_is_lost,odd_buckets", 3, tmp_path):
        assert found["messages_of_any_length"] == [True] * (8 * 3 + 2)
        assert all(each["same"] and each["missing"] < 1e-4 for each in found["nothing_is_lost"].values())
        assert found["odd_buckets"] == [True] * 12


def test_a_restart_goes_on_as_if_nothing_had_been_and_on_more_ranks_with_all_that_was_owed(tmp_path: Path) -> None:
    for found in together("restart", 2, tmp_path):
        for recipe, (whole, again, without) in found["restart"].items():
            assert whole[4:] == again, recipe
            assert whole[4:] != without, recipe
    for found in together("another_world", 3, tmp_path):
        each = found["another_world"]
        assert each["same"]
        assert each["missing"] < 1e-5 * each["owed"] + 1e-6
        assert each["owed"] > 0
        assert (each["step"], each["pull"]) == (4 + 3, 0)
        assert "checkpoint" in each["wrong"]


def test_faults_name_the_rank_and_nothing_hangs(tmp_path: Path) -> None:
    found = [each["faults"] for each in together("faults", 3, tmp_path, codes=(0, 9, -6, 1))]
    for each in found:
        assert "3lc(1.5)" in each["recipes"][0] and "eden(3)" in each["recipes"][0]  # noqa: PT018
        assert "step=7" in each["steps"][0] and "step=0" in each["steps"][0]  # noqa: PT018
        for phase in ("push", "pull"):
            assert each[phase][0].partition("\n")[0] == each[f"{phase} again"][0].partition("\n")[0]
    for phase in ("push", "pull"):
        assert "FrameError: rank 1" in found[0][phase][0]
        for each in found[1:]:
            assert "PeerError: rank 0: has failed: FrameError: rank 1" in each[phase][0]
    for each in found[:2]:
        assert "rank 2: has not answered within 1.5 s" in each["silent"][0]
        assert "rank 2: is gone" in each["killed"][0]
    for each in found:
        for name, result in each.items():
            assert result[1] < 20, name


def _noise(accuracy: float, count: int) -> float:
    """Three standard errors of the difference between two runs' accuracies on so many examples."""
    return 3 * float(np.sqrt(2 * accuracy * (1 - accuracy) / count))


def test_lenet_learns_as_well_from_thirty_times_fewer_bytes(tmp_path: Path) -> None:
    for result in together("lenet_on_strokes", 2, tmp_path):
        found = result["lenet_on_strokes"]
        assert found["same"]
        assert found["plain"] > 0.85
        assert found["3lc"] > found["plain"] - _noise(found["plain"], 2000)
        assert found["ratio"] >= 30


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not beside the repository (shared/data/datasets/mnist.npz)")
def test_lenet_learns_mnist_as_well_from_thirty_times_fewer_bytes(tmp_path: Path) -> None:
    for result in together("lenet_on_mnist", 2, tmp_path, timeout=500, MNIST=str(MNIST)):
        found = result["lenet_on_mnist"]
        assert found["same"]
        assert found["plain"] > 0.97
        assert found["3lc"] > found["plain"] - _noise(found["plain"], 10_000)
        assert found["ratio"] >= 30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_gradients_on_cuda_come_to_the_same(tmp_path: Path) -> None:
    for found in together("on_cuda", 2, tmp_path):
        assert found["on_cuda"] == [True] * 14


def test_the_example_learns() -> None:
    example = WORKERS.parent.parent / "examples" / "ddp.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, str(example)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = re.fullmatch(r"(\S+): ([\d.]+)% right; .* ([\d.]+) times fewer than f32\n", done.stdout)
    assert told is not None, done.stdout
    assert (told[1], float(told[2]) > 90, float(told[3]) > 30) == ("3lc", True, True)


def test_a_state_is_refused_what_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="init_process_group"):
        CompressionState("3lc")
    for options in ({"warm_up": -1}, {"least": 1.5}, {"seed": True}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            CompressionState("3lc", **options)
