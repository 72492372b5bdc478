"""NNCodec behind a pipe: run by an interpreter of its own, which has nncodec, and nothing of ours.

Reads requests from standard input and writes answers to standard output, one JSON object a line. A request names an
archive of arrays (`tensors`, npz), a quantization parameter (`qp`), whether to search a trellis (`trellis`), a file for
the bitstream (`stream`), and how often to code and decode (`rounds`); perhaps where the decoded arrays go (`decoded`).
The first answer, to no request, holds the versions of the packages.
"""

import importlib.metadata
import json
import os
import sys
import time

# nncodec prints, and what it prints is no answer of ours.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nncodec import nnc  # noqa: E402


def main():
    torch.set_num_threads(1)
    answer({package: importlib.metadata.version(package) for package in ("nncodec", "numpy", "torch")})
    loaded = None, {}
    for line in sys.stdin:
        request = json.loads(line)
        if loaded[0] != request["tensors"]:
            with np.load(request["tensors"]) as file:
                loaded = request["tensors"], {name: file[name] for name in file.files}
        try:
            answer(coded(loaded[1], request))
        except (Exception, SystemExit) as error:  # noqa: BLE001  (its errors are of all kinds, exits among them)
            answer({"failed": f"{type(error).__name__}: {error}"[:500]})


def coded(tensors, request):
    """Code and decode as often as is asked; parameter optimisation is on."""
    stream, encode, decode = request["stream"], [], []
    for _ in range(request["rounds"]):
        copies = {name: tensor.copy() for name, tensor in tensors.items()}
        begin = time.perf_counter()
        nnc.compress(copies, bitstream_path=stream, qp=request["qp"], use_dq=request["trellis"], param_opt=True)
        middle = time.perf_counter()
        found = nnc.decompress(stream)
        decode.append(time.perf_counter() - middle)
        encode.append(middle - begin)
    if request.get("decoded"):
        np.savez(request["decoded"], **{name: found[name].reshape(tensor.shape) for name, tensor in tensors.items()})
    return {"coded": os.path.getsize(stream), "encode": encode, "decode": decode}  # noqa: PTH202


def answer(found):
    print(json.dumps(found), file=answers, flush=True)


main()
