"""Send arrays again and again, smaller than they are, and make up later for what coding lost: gradients, model deltas.

A `Channel` codes the arrays of one sender; what a message lacks is kept and added to the next array (error feedback:
Seide et al., 2014; the push of 3LC, arXiv:1802.07389). A `Reducer` adds up the messages of many senders and codes the
sum for all of them, with an error buffer of its own (3LC's pull). Neither knows how messages travel.

An array is one row of numbers that consists of *parts*, the tensors: recipes whose stages can be given parts (ternary,
lloydmax) have scales for each. Small parts travel together in bf16. A part that holds a NaN or an infinity travels as
it is, so that everybody learns of it, and its errors wait.

>>> import numpy as np
>>> channel = Channel("ternary(1.5, values=base3(bytes=zero_run))", parts=[5000, 1000, 10])
>>> x = np.random.default_rng(0).standard_normal(6010).astype(np.float32)
>>> received, total = np.empty_like(x), np.zeros_like(x)
>>> for step in range(100):
...     message = channel.send(x)
...     _ = channel.receive(message, received)
...     total += received
>>> len(message) < x.nbytes // 8, bool(np.abs(total / 100 - x).max() < 0.2)
(True, True)
"""

from featherweight.traffic._channel import Channel
from featherweight.traffic._message import Head, head_of
from featherweight.traffic._reducer import Reducer
from featherweight.traffic._shards import Shard, shards

__all__ = ["Channel", "Head", "Reducer", "Shard", "head_of", "shards"]
