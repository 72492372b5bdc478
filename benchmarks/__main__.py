"""``python -m benchmarks NAME``: run one benchmark; without a name, list them."""

from __future__ import annotations

import importlib
import sys

from benchmarks import _common

NAMES = (
    "lossless",
    "coders",
    "delta",
    "cores",
    "memory",
    "start",
    "papers",
    "frontier",
    "transforms",
    "sensitivity",
    "sparse",
    "kmeans",
    "lattice",
    "weightless",
    "gradients",
    "traffic",
    "report",
)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["_child"]:
        _common.serve(*arguments[1:])
    if not arguments or arguments[0] not in NAMES:
        print("usage: python -m benchmarks NAME [--help]\n")
        for name in NAMES:
            print(f"  {name:11} {(importlib.import_module(f'benchmarks.{name}').__doc__ or '').splitlines()[0]}")
        return int(bool(arguments) and arguments[0] not in ("-h", "--help"))
    return int(importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
