"""NNCodec, reference software of ISO/IEC 15938-17, in a process of its own, for it wants NumPy and torch of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks import _data
from benchmarks._common import ROOT, AbsentError, FailedError

Array = _data.Array
Tensors = Mapping[str, Array]
NNCODEC = "NNCodec"
MADE = "python3 -m venv nncodec && nncodec/bin/pip install nncodec==2.1.3 'numpy<2' torch"


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nncodec",
        metavar="PYTHON",
        default=os.environ.get("FEATHERWEIGHT_NNCODEC"),
        help=f"NNCodec's own interpreter: {MADE} (default: FEATHERWEIGHT_NNCODEC)",
    )


def interpreter(python: str | None) -> str:
    if not python:
        raise AbsentError(f"NNCodec needs an interpreter of its own, named by --nncodec: {MADE}")
    if not Path(python).exists():
        raise AbsentError(f"--nncodec: {python} is not there")
    return python


class NNCodec:
    """NNCodec in a process of its own; a context."""

    def __init__(self, python: str, tensors: Tensors, folder: Path) -> None:
        """Write `tensors` where the process finds them: as f32, or i32, for it takes no others."""
        self.source, self.stream = folder / "tensors.npz", folder / "coded.nnc"
        as_known = {name: x.astype(np.int32 if x.dtype.kind in "iub" else np.float32) for name, x in tensors.items()}
        np.savez(self.source, **as_known)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "_nncodec.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        self.versions = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def code(self, setting: str, decoded: Path, rounds: int = 1) -> dict[str, Any]:
        """Code at a setting (``trellis, qp -24``), and put what is decoded there."""
        assert self.process.stdin is not None
        kind, _, qp = setting.partition(", qp ")
        request = {
            "tensors": str(self.source),
            "qp": int(qp),
            "trellis": kind == "trellis",
            "stream": str(self.stream),
            "decoded": str(decoded),
            "rounds": rounds,
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"failed": "it ended: is nncodec installed there?"}
        if "failed" in answer:
            raise FailedError(f"NNCodec: {answer['failed']}")
        return answer
