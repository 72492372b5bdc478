"""Train over slow links: a communication hook for PyTorch's DistributedDataParallel that sends coded gradients.

Three lines change in a training script::

    from featherweight.pytorch import CompressionState, compress_hook

    model = torch.nn.parallel.DistributedDataParallel(network)
    state = CompressionState(recipe="3lc-small")
    model.register_comm_hook(state, compress_hook)

Gradients may lie on any device; they are coded on the processor and travel by gloo. `featherweight` itself does not
import PyTorch, only this package does.
"""

from __future__ import annotations

from importlib.util import find_spec

from featherweight.errors import MissingDependencyError

if find_spec("torch") is None:
    raise MissingDependencyError("PyTorch is not installed: pip install 'featherweight[torch]'")

from featherweight.pytorch._peers import PeerError
from featherweight.pytorch.hook import CompressionState, Stats, compress_hook

__all__ = ["CompressionState", "PeerError", "Stats", "compress_hook"]
