"""The recipes that have names: what each is for, its knobs, and the text that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["NAMED", "Named"]


@dataclass(frozen=True)
class Named:
    """A recipe with a name.

    `text` makes it from its knobs. `knob` is the one that goals turn: a step, the larger the coarser, of which `unit`
    is that of a uniform quantizer about as fine as a knob of 1; or one of `choices`. `exact` says that nothing is lost,
    `keeps` that arrays of any kind may come and those that must not be spoilt stay as they are.
    """

    doc: str
    text: Callable[..., str]
    knob: str | None = None
    choices: tuple[Any, ...] = ()
    unit: float = 1.0
    exact: bool = False
    keeps: bool = True


def _scaled(quantizer: str) -> str:
    """Put a quantizer of whole tensors under the levels of their rows and columns, and into pieces."""
    return f"weights(split(levels(row=auto(small), column=auto(small), values={quantizer})))"


def _tcq(step: float = 0.0, nmse: float = 1e-3, states: int = 8, rate: float = 0.25) -> str:
    index = f"ggd(states={states}, given=[row, column])"
    knobs = f"step={step!r}, states={states}, rate={rate!r}, nmse={nmse!r}"
    return _scaled(f"trellis({knobs}, given=[row, column], index={index})")


def _ecsq(step: float = 0.0, nmse: float = 1e-3, rounding: float = 0.45) -> str:
    knobs = f"step={step!r}, nmse={nmse!r}, rounding={rounding!r}"
    return _scaled(f"uniform({knobs}, index=ggd(given=[row, column]))")


def _near_lossless(max_error: float = 1e-3) -> str:
    return _scaled(f"uniform(max_error={max_error!r}, index=ggd(given=[row, column]))")


def _deep_compression(sparsity: float = 0.92, bits: int = 5, gap: int = 5) -> str:
    values = f"kmeans({2**bits}, init=linear, zero=true, index=huffman)"
    return f"weights(prune({sparsity!r}, values=gaps({gap}, gaps=huffman, values={values})))"


def _universal(step: float = 0.01, lattice: str = "z", dither: bool = True, seed: int = 0, coder: str = "bzip2") -> str:
    shown = str(dither).lower()
    knobs = f"{lattice}, step={step!r}, dither={shown}, seed={seed}"
    return f"weights(lattice({knobs}, index={coder}, coset={coder}, rest={coder}))"


def _integers(bits: int, granularity: str, group: int, scale: str) -> str:
    return f"weights(affine({bits}, {granularity}, {group}, scale={scale}, index=auto(small)))"


NAMED: Mapping[str, Named] = {
    "lossless": Named("The default: small and fast.", lambda: "split(auto)", exact=True),
    "lossless-small": Named(
        "The smallest lossless coding: scale classes, mantissas under exponents, rANS; a good deal slower.",
        lambda: "split(auto(small))",
        exact=True,
    ),
    "lossless-delta": Named(
        "Against a base of the same shape (--base, or refs={'base': …}): costs what the changes cost.",
        lambda: "split(delta(given=@base, difference=auto(small)))",
        exact=True,
    ),
    "tcq": Named(
        "The smallest lossy coding at any error: trellis-coded quantization under scale classes.",
        _tcq,
        knob="step",
        unit=1.7,
    ),
    "ecsq": Named(
        "Entropy-coded scalar quantization: one step, scale classes; larger than tcq and faster.", _ecsq, knob="step"
    ),
    "near-lossless": Named("No error above `max_error`.", _near_lossless, knob="max_error", unit=2.0),
    "deep-compression": Named(
        "Han, Mao and Dally 2016: pruning, k-means sharing, relative index, Huffman.",
        _deep_compression,
        knob="bits",
        choices=(2, 3, 4, 5, 6, 7, 8),
    ),
    "universal": Named(
        "Choi, El-Khamy and Lee 2020: randomized lattice quantization, then a universal source code.",
        _universal,
        knob="step",
    ),
    "int8": Named(
        "Integers of 8 bits with a scale for each row, as Jacob et al. 2018 for weights.",
        lambda granularity="channel", group=128, scale="f32": _integers(8, granularity, group, scale),
    ),
    "int4": Named(
        "Integers of 4 bits with a scale for each group of 64.",
        lambda granularity="group", group=64, scale="f16": _integers(4, granularity, group, scale),
    ),
}
