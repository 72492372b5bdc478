"""Processors that are not this one: what numba is told to compile for, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import featherweight
from featherweight.codecs._kernels._emit import PERMUTES

GENERIC = {"NUMBA_CPU_NAME": "generic"}
# 256 bits: any processor that has 512 can be taken for it.
NARROW = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+cx16,+f16c,+fma,+lzcnt,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3",
}
WIDE = {
    "NUMBA_CPU_NAME": "icelake-server",
    "NUMBA_CPU_FEATURES": f"{NARROW['NUMBA_CPU_FEATURES']},+{',+'.join(sorted(PERMUTES | {'avx512vbmi2'}))}",
}
PYTHON = {"FEATHERWEIGHT_KERNELS": "python"}


def elsewhere(file: str, call: str, **environment: str) -> str:
    """Return what `call`, a function of a test file without parameters, returns in a fresh process, as text."""
    here, home = Path(file), Path(featherweight.__file__).parent.parent
    paths = (str(home), str(here.parent), os.environ.get("PYTHONPATH", ""))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {here.stem} as t; print(t.{call}())"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
