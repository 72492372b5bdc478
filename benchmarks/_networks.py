"""The networks of MANIFEST.md at work: what decoded tensors are still good for.

`score(name, tensors)` is the accuracy in percent on the whole test set, of the character model minus its nats a
character, as MANIFEST.md has them to the last digit.

``split="train"`` is for choosing. Networks know their training images by heart: what is right of them moves in steps of
few images, and less than on others. What moves smoothly, and about as accuracy on other images does, is the mean
probability that is given to the right class, once the logits are scaled so that the largest leads the second by as
much as before: coarse weights shrink logits, which makes no difference to what is right (`Measured.sure`). Errors of
weights change it on few images, those that the network was least sure of; `telling` takes more of these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import featherweight
from benchmarks import _data
from benchmarks._common import AbsentError, all_cores

Array = _data.Array
Tensors = Mapping[str, Array]
BATCH = 100
TRAINING = 20_000  # images of a training set that are looked at


@dataclass(frozen=True)
class Network:
    """A network with something to measure: `build` makes a function of decoded tensors, from inputs to logits.

    `claimed` is its score, `point` what one point of accuracy is on the scale of its scores.
    """

    name: str
    file: str
    data: str
    build: Callable[[dict[str, Any]], Callable[[Any], Any]]
    claimed: float
    point: float = 1.0

    def load(self) -> dict[str, Array]:
        """Return its tensors; raises AbsentError where the file is not there."""
        return featherweight.load_file(self.path())

    def path(self) -> str:
        """Return where its file lies."""
        return weights(self.file)


class Measured(NamedTuple):
    """What a network made of a split: percent correct, nats of cross-entropy, the largest logit's lead over the second.

    `sure` is the mean probability of what is right, in percent, after the logits were scaled to the lead asked for.
    """

    accuracy: float
    loss: float
    lead: float
    sure: float


class Sample(NamedTuple):
    """Inputs with their labels, torch tensors, and how many inputs each stands for."""

    inputs: Any
    labels: Any
    counts: Any


def weights(file: str) -> str:
    """Return where a file of weights lies; raises AbsentError."""
    path = _data.folder() / "weights" / file
    if not path.exists():
        raise AbsentError(f"{path} is not there")
    return str(path)


def score(name: str, tensors: Tensors, split: str = "test", limit: int | None = None) -> float:
    """Return the accuracy in percent, of the character model minus its nats a character: more is better.

    `split` is "test" or "train", of which the first `limit` inputs are taken.
    """
    found = measure(name, tensors, first(name, split, limit))
    return -found.loss if NETWORKS[name].data == "text" else found.accuracy


def measure(name: str, tensors: Tensors, sample: Sample, lead: float | None = None) -> Measured:
    """Return what `score` is made of; the logits are scaled so that they lead by `lead`, where it is given."""
    torch = _torch()
    logits = _logits(name, tensors, sample.inputs)
    labels = sample.labels.flatten()
    counts = sample.counts.repeat_interleave(len(labels) // len(sample.counts))

    def mean(values: Any) -> float:
        return float((values.double() * counts).sum()) / float(counts.sum())

    best = logits.topk(2, 1).values
    found = mean(best[:, 0] - best[:, 1])
    scale = lead / found if lead is not None and found > 0 else 1.0
    losses, scaled = (
        torch.nn.functional.cross_entropy(x.double(), labels, reduction="none") for x in (logits, logits * scale)
    )
    correct = float(((logits.argmax(1) == labels) * counts).sum())
    return Measured(100 * correct / float(counts.sum()), mean(losses), found, 100 * mean(scaled.neg().exp()))


def first(name: str, split: str = "test", limit: int | None = None) -> Sample:
    """Return the first inputs of a split, "test" or "train"."""
    inputs, labels = (x[:limit] for x in _split(NETWORKS[name].data, split))
    return Sample(inputs, labels, _torch().ones(len(inputs), dtype=_torch().float64))


@functools.lru_cache(maxsize=1)
def telling(name: str, count: int) -> Sample:
    """Return training inputs that tell how a network falls: all it is unsure of, few others, which stand for many.

    Of the r-th least sure it takes K / r, where that is less than all; of text, and where there are no more, all.
    """
    every = first(name, "train")
    if NETWORKS[name].data == "text" or len(every.labels) <= count:
        return every
    torch = _torch()
    logits = _logits(name, NETWORKS[name].load(), every.inputs)
    losses = torch.nn.functional.cross_entropy(logits.double(), every.labels, reduction="none")
    ranks = torch.arange(1, len(losses) + 1, dtype=torch.float64)
    low, high = 0.0, float(count)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if (middle / ranks).clamp(max=1).sum() <= count else (low, middle)
    places = (low / ranks).clamp(max=1).cumsum(0).add(0.5).floor().diff(prepend=torch.zeros(1)) > 0
    order = losses.argsort(descending=True, stable=True)[places]
    return Sample(every.inputs[order], every.labels[order], (ranks[places] / low).clamp(min=1))


def _logits(name: str, tensors: Tensors, inputs: Any) -> Any:
    """Return the logits of every position, one after the other."""
    torch = _torch()
    with torch.inference_mode():
        run = NETWORKS[name].build(
            {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in tensors.items()}
        )
        return torch.cat([run(inputs[i : i + BATCH]).flatten(0, -2) for i in range(0, len(inputs), BATCH)])


def fisher(name: str, tensors: Tensors, inputs: int) -> dict[str, float]:
    """Return of every matrix and filter the diagonal of Fisher's information, averaged over its weights.

    That is the mean square of the gradient of the loss over training inputs, one by one, with labels drawn from what
    the network believes of them; over the geometric mean of all tensors.
    """
    torch = _torch()
    network = NETWORKS[name]
    images, _ = _split(network.data, "train")
    leaves = {key: torch.from_numpy(np.array(value, np.float32)) for key, value in tensors.items()}
    tried = [key for key, leaf in leaves.items() if leaf.ndim > 1]
    for key in tried:
        leaves[key].requires_grad_()
    squares, draw = dict.fromkeys(tried, 0.0), torch.Generator().manual_seed(0)
    for i in range(inputs):
        logits = network.build(leaves)(images[i : i + 1]).flatten(0, -2)
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=draw)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, drawn)
        for key, gradient in zip(tried, torch.autograd.grad(loss, [leaves[key] for key in tried]), strict=True):
            squares[key] += float(gradient.square().mean())
    least = max(squares.values()) * 1e-6
    logs = np.log([max(value, least) for value in squares.values()])
    return dict(zip(tried, np.exp(logs - logs.mean()).tolist(), strict=True))


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise AbsentError("torch is not installed: pip install -e '.[networks]'") from None
    torch.set_num_threads(len(all_cores()))
    return torch


@functools.lru_cache(maxsize=4)
def _split(data: str, split: str) -> tuple[Any, Any]:
    """Return inputs and labels as torch tensors."""
    torch = _torch()
    if split not in ("test", "train"):
        raise ValueError(f"split {split!r}: expected test or train")
    inputs, labels = DATA[data](split)
    return torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64))


def _dataset(name: str) -> str:
    path = _data.folder() / "datasets" / name
    if not path.exists():
        raise AbsentError(f"{path} is not there")
    return str(path)


def cifar(split: str, count: int = TRAINING) -> tuple[Array, Array]:
    """Return images (n, 3, 32, 32) of bytes, and labels: the test set, or the first `count` training images."""
    try:
        from PIL import Image
    except ImportError:
        raise AbsentError("Pillow is not installed: pip install -e '.[networks]'") from None
    files = ["cifar10_test.webp"]
    if split == "train":
        files = [f"cifar10_train_{number}.webp" for number in range(1, 1 + -(-count // 10_000))]
    with np.load(_dataset("cifar10_labels.npz")) as file:
        labels = file[f"y_{split}"][:count]
    parts = []
    for name in files:
        with Image.open(_dataset(name)) as image:
            montage = np.asarray(image.convert("RGB"))
        parts.append(montage.reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    return np.concatenate(parts)[:count], labels


def mnist(split: str, count: int = TRAINING) -> tuple[Array, Array]:
    """Return images (n, 1, 28, 28) of bytes, and labels: the test set, or the first `count` training images."""
    with np.load(_dataset("mnist.npz")) as file:
        return file[f"x_{split}"][:count, None], file[f"y_{split}"][:count]


def text(split: str) -> tuple[Array, Array]:
    """Return windows of 64 characters and the characters that follow each; every fourth window is for choosing.

    There is no other text: what is chosen on a quarter of it is reported on all of it.
    """
    with np.load(_dataset("tinyshakespeare_val_chars.npz")) as file:
        tokens = file["tokens"].astype(np.int64)
    count = (len(tokens) - 1) // 64
    inputs, following = tokens[: 64 * count].reshape(-1, 64), tokens[1 : 64 * count + 1].reshape(-1, 64)
    return (inputs[::4], following[::4]) if split == "train" else (inputs, following)


DATA = {"cifar": cifar, "mnist": mnist, "text": text}


def _folded(weight: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, bias: Any = None) -> tuple[Any, Any]:
    """Return the weight and bias of a convolution that does its batch normalisation, too."""
    import torch

    factor = gamma.double() / (var.double() + eps).sqrt()
    shift = beta.double() - (mean.double() - (0 if bias is None else bias.double())) * factor
    folded = (weight.double() * factor[:, None, None, None]).float()
    return folded.contiguous(memory_format=torch.channels_last), shift.float()


def _resnet(t: dict[str, Any]) -> Callable[[Any], Any]:
    """Build a CIFAR ResNet with shortcuts of option A, batch normalisation folded into the convolutions."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    def convolution(prefix: str, number: str) -> tuple[Any, Any]:
        norm = (t[f"{prefix}bn{number}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
        return _folded(t[f"{prefix}conv{number}.weight"], *norm, 1e-5)

    mean = torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1)
    first = convolution("", "1")
    prefixes = dict.fromkeys(key.rpartition("conv")[0] for key in t if key.startswith("layer"))
    blocks = [
        (convolution(prefix, "1"), convolution(prefix, "2"))
        for prefix in sorted(prefixes, key=lambda prefix: [int(part) for part in prefix[5:].split(".") if part])
        if prefix
    ]

    def run(images: Any) -> Any:
        x = ((images / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, *first, padding=1).relu_()
        for one, two in blocks:
            wider = one[0].shape[0] - x.shape[1]
            y = F.conv2d(x, *one, stride=2 if wider else 1, padding=1).relu_()
            y = F.conv2d(y, *two, padding=1)
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, wider // 2, wider // 2)) if wider else x
            x = y.add_(shortcut).relu_()
        return F.linear(x.mean((2, 3)), t["linear.weight"], t["linear.bias"])

    return run


def _resnet8(t: dict[str, Any]) -> Callable[[Any], Any]:
    """Build the ResNet of MLPerf Tiny: kernels are HWIO, "same" padding is TensorFlow's."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    def name(kind: str, number: int) -> str:
        return f"{kind}_{number}" if number else kind

    def convolution(number: int, norm: int | None) -> tuple[Any, Any]:
        kernel = t[f"{name('conv2d', number)}/kernel"].permute(3, 2, 0, 1)
        bias = t[f"{name('conv2d', number)}/bias"]
        if norm is None:
            return kernel.contiguous(memory_format=torch.channels_last), bias
        keys = ("gamma", "beta", "moving_mean", "moving_variance")
        return _folded(kernel, *(t[f"{name('batch_normalization', norm)}/{key}"] for key in keys), 1e-3, bias)

    norms = (0, 1, 2, 3, 4, None, 5, 6, None)
    layers = [convolution(number, norm) for number, norm in enumerate(norms)]

    def same(x: Any, number: int, stride: int = 1) -> Any:
        size = layers[number][0].shape[-1]
        if stride == 1:
            return F.conv2d(x, *layers[number], padding=size // 2)
        # TensorFlow pads an even side by k - 2 in all, the odd one behind.
        before = (size - 2) // 2 if size > 1 else 0
        after = size - 2 - before if size > 1 else 0
        return F.conv2d(F.pad(x, (before, after, before, after)), *layers[number], stride=stride)

    def run(images: Any) -> Any:
        x = same(images.float().contiguous(memory_format=torch.channels_last), 0).relu_()
        x = same(same(x, 1).relu_(), 2).add_(x).relu_()
        x = same(same(x, 3, 2).relu_(), 4).add_(same(x, 5, 2)).relu_()
        x = same(same(x, 6, 2).relu_(), 7).add_(same(x, 8, 2)).relu_()
        return x.mean((2, 3)) @ t["dense/kernel"] + t["dense/bias"]

    return run


def _lenet_300_100(t: dict[str, Any]) -> Callable[[Any], Any]:
    def run(images: Any) -> Any:
        x = images.flatten(1) / 256.0
        for layer in ("ip1", "ip2"):
            x = (x @ t[f"{layer}.weight"].T + t[f"{layer}.bias"]).relu_()
        return x @ t["ip3.weight"].T + t["ip3.bias"]

    return run


def _lenet5(t: dict[str, Any]) -> Callable[[Any], Any]:
    import torch.nn.functional as F  # noqa: N812

    def run(images: Any) -> Any:
        x = images / 256.0
        for layer in ("conv1", "conv2"):
            x = F.max_pool2d(F.conv2d(x, t[f"{layer}.weight"], t[f"{layer}.bias"]), 2)
        x = F.linear(x.flatten(1), t["ip1.weight"], t["ip1.bias"]).relu_()
        return F.linear(x, t["ip2.weight"], t["ip2.bias"])

    return run


def _charlm(t: dict[str, Any]) -> Callable[[Any], Any]:
    import torch.nn.functional as F  # noqa: N812

    layers = sum(key.endswith(".ln_1.weight") for key in t)

    def norm(x: Any, key: str) -> Any:
        return F.layer_norm(x, x.shape[-1:], t[f"{key}.weight"])

    def run(tokens: Any) -> Any:
        x = t["wte.weight"][tokens] + t["wpe.weight"][: tokens.shape[1]]
        for layer in (f"h.{number}." for number in range(layers)):
            qkv = F.linear(norm(x, f"{layer}ln_1"), t[f"{layer}c_attn.weight"])
            heads = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
            y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
            x = x + F.linear(y, t[f"{layer}c_proj.weight"])
            y = F.gelu(F.linear(norm(x, f"{layer}ln_2"), t[f"{layer}c_fc.weight"]))
            x = x + F.linear(y, t[f"{layer}m_proj.weight"])
        return F.linear(norm(x, "ln_f"), t["lm_head.weight"])

    return run


NETWORKS = {
    network.name: network
    for network in (
        Network("LeNet-300-100", "mnist_lenet_300_100.safetensors", "mnist", _lenet_300_100, 98.47),
        Network("LeNet-5", "mnist_lenet5_bvlc.safetensors", "mnist", _lenet5, 99.14),
        Network("ResNet-8", "cifar10_resnet8_mlperftiny.safetensors", "cifar", _resnet8, 87.21),
        Network("ResNet-20", "cifar10_resnet20.safetensors", "cifar", _resnet, 91.73),
        Network("ResNet-32", "cifar10_resnet32.safetensors", "cifar", _resnet, 92.63),
        Network("ResNet-56", "cifar10_resnet56.safetensors", "cifar", _resnet, 93.39),
        Network("char LM", "charlm_shakespeare_bf16.safetensors", "text", _charlm, -1.5286, 0.01),
    )
}
SILENT = {  # no function is measured of these
    "LoRA": "sd15_lora_analog_svd_rank4_fp16.safetensors",
    "autoencoder": "toyadmos_autoencoder_mlperftiny.safetensors",
    "MobileNet": "vww96_mobilenetv1_025_mlperftiny.safetensors",
}
