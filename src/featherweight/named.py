"""The recipes that have names: what each is for, its knobs, and the text that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featherweight.errors import ArgumentError

__all__ = ["KNOBS", "NAMED", "Named"]


@dataclass(frozen=True)
class Named:
    """A recipe with a name.

    `text` makes it from its knobs. `knob` is the one that goals turn: a step, the larger the coarser, of which `unit`
    is that of a uniform quantizer about as fine as a knob of 1; or one of `choices`. `instead` is another that counts
    only where the knob is left alone. `exact` says that nothing is lost, `keeps` that arrays of any kind may come and
    those that must not be spoilt stay as they are.
    """

    doc: str
    text: Callable[..., str]
    knob: str | None = None
    choices: tuple[Any, ...] = ()
    instead: str = ""
    unit: float = 1.0
    exact: bool = False
    keeps: bool = True


_STATES = (4, 8, 16, 32, 64, 128)  # those of the kernels, which need not be imported to read a recipe
_VECTORS = {"exact": "", "bf16": ", vectors=smallest([cast(bf16, values=auto(small)), auto(small)])"}


def _scaled(quantizer: str) -> str:
    """Put a quantizer under the levels of rows and columns, behind a cosine transform of what is smooth."""
    scaled = f"levels(row=auto(small), column=auto(small), place=auto(small), values={quantizer})"
    return f"smooth({scaled}, transformed=dct(scaled=false, coefficients={scaled}))"


def _weights(coded: str, vectors: str) -> str:
    if vectors not in _VECTORS:
        raise ArgumentError(f"vectors={vectors!r}: expected one of {', '.join(_VECTORS)}")
    return f"weights(split(lossy({coded})){_VECTORS[vectors]})"


def _tcq(step: float = 0.0, nmse: float = 1e-3, states: int = 8, rate: float = 0.25, vectors: str = "exact") -> str:
    if states not in _STATES:
        raise ArgumentError(f"tcq(states={states!r}): expected one of {', '.join(map(str, _STATES))}")
    index = f"ggd(states={states}, given=[row, column, place])"
    knobs = f"step={step!r}, states={states}, rate={rate!r}, nmse={nmse!r}"
    return _weights(_scaled(f"trellis({knobs}, given=[row, column, place], index={index})"), vectors)


def _ecsq(
    step: float = 0.0, nmse: float = 1e-3, rounding: float = 0.45, plain: bool = False, vectors: str = "exact"
) -> str:
    knobs = f"step={step!r}, nmse={nmse!r}, rounding={rounding!r}"
    if not isinstance(plain, bool):
        raise ArgumentError(f"ecsq(plain={plain!r}): expected true or false")
    if plain:
        return _weights(f"uniform({knobs}, index=ggd)", vectors)
    return _weights(_scaled(f"uniform({knobs}, index=ggd(given=[row, column, place]))"), vectors)


def _near_lossless(max_error: float = 1e-3) -> str:
    quantizer = f"uniform(max_error={max_error!r}, index=ggd(given=[row, column, place]))"
    return f"weights(split(lossy(levels(row=auto(small), column=auto(small), place=auto(small), values={quantizer}))))"


def _deep_compression(sparsity: float = 0.92, bits: int = 5, gap: int = 5) -> str:
    values = f"kmeans({2**bits}, init=linear, zero=true, index=huffman)"
    return f"weights(lossy(prune({sparsity!r}, values=gaps({gap}, gaps=huffman, values={values}))))"


def _universal(step: float = 0.01, lattice: str = "z", dither: bool = True, seed: int = 0, coder: str = "bzip2") -> str:
    shown = str(dither).lower()
    knobs = f"{lattice}, step={step!r}, dither={shown}, seed={seed}"
    return f"weights(lossy(lattice({knobs}, index={coder}, coset={coder}, rest={coder})))"


def _transform_clustering(step: float = 0.0, bits: int = 8, clusters: int = 256) -> str:
    if step:
        quantizer = f"uniform({step!r}, index=bzip2)"
        coded = f"lossy(smallest([dct(scaled=false, coefficients={quantizer}), {quantizer}]))"
    else:
        coded = f"dct(coefficients=affine({bits}, tensor, index=bzip2))"
    return f"weights({coded}, vectors=kmeans({clusters}, index=bzip2))"


def _weightless(sparsity: float = 0.92, bits: int = 4, extra: int = 7, filter: str = "ribbon") -> str:
    table = ", table=rans, high=rans(given=table)" if filter == "bloomier" else ""
    values = f"kmeans({2**bits}, zero=true, index={filter}(extra={extra}{table}))"
    return f"weights(lossy(prune({sparsity!r}, values={values})))"


def _low_rank(error: float = 0.01, form: str = "auto") -> str:
    factors = "bf16" if error >= 1e-4 else "f32"  # rounded to bf16 they add some millionths
    product = f"lowrank(error={error!r}, form={form}, type={factors}, left=auto(small), right=auto(small))"
    return f"weights(smallest([{product}, auto(small)]))"


def _topk(fraction: float = 0.01) -> str:
    return f"prune({1 - fraction!r}, values=gaps(gaps=rans, values=smallest([cast(bf16), raw])))"


def _3lc(s: float = 1.0, block: int = 0) -> str:
    return f"ternary({s!r}, {block}, values=base3(bytes=zero_run))"


def _3lc_small(s: float = 1.0, block: int = 0) -> str:
    under = "density(288, density=rans, values=rans(given=density))"
    return f"ternary({s!r}, {block}, values=smallest([{under}, base3(bytes=rans)]))"


def _eden(bits: int = 4, seed: int = 0, block: int = 4096) -> str:
    return f"hadamard(seed={seed}, block={block}, rotated=lloydmax({bits}, block={block}, index=bitpack({bits})))"


def _integers(bits: int, granularity: str, group: int, scale: str) -> str:
    return f"weights(lossy(affine({bits}, {granularity}, {group}, scale={scale}, index=auto(small))))"


KNOBS: Mapping[str, str] = {
    "bits": "of an index, or of an integer",
    "block": "elements that share a scale; 0 for all",
    "clusters": "values that a vector keeps",
    "coder": "what codes the indices: bzip2, lzma, zstd, rans, huffman",
    "dither": "add a dither and take it off again",
    "error": "squared error, over the squares",
    "extra": "bits by which zeros are told from others",
    "filter": "ribbon or bloomier",
    "form": "auto, channel, spatial or depthwise",
    "fraction": "of the elements, which are kept",
    "gap": "bits of a distance to the next weight",
    "granularity": "what shares a scale: tensor, channel or group",
    "group": "elements of a group",
    "lattice": "z, a2, d4, e8 or leech",
    "max_error": "the largest error of a weight",
    "nmse": "squared error, over the squares, that the step is fitted to",
    "plain": "true leaves out scale classes and transform: faster, and larger",
    "rate": "λ, what a bit is worth in squared steps",
    "rounding": "what of a step is rounded up, from the top; 0.5 is to nearest",
    "s": "sparsity multiplier, 1 to below 2: the larger, the fewer elements are not zero",
    "scale": "type of the scales: f32, f16 or bf16",
    "seed": "of what is random",
    "sparsity": "share of the weights that become zero",
    "states": f"of the trellis: {', '.join(map(str, _STATES))}; more are smaller and slower",
    "step": "Δ, the distance of neighbouring values (of a trellis, half of it); 0 to fit it",
    "vectors": "what becomes of biases and norms: exact or bf16",
}
"""What the knobs of recipes are, by name."""


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
        "Trellis-coded quantization under scale classes: smaller than ecsq at the same error, and slower.",
        _tcq,
        knob="step",
        instead="nmse",
        unit=1.76,
    ),
    "ecsq": Named(
        "Entropy-coded scalar quantization: one step, scale classes; larger than tcq and faster.",
        _ecsq,
        knob="step",
        instead="nmse",
        unit=1.08,
    ),
    "near-lossless": Named("No error above `max_error`.", _near_lossless, knob="max_error", unit=2.0),
    "deep-compression": Named(
        "Han, Mao and Dally 2016: pruning, k-means sharing, relative index, Huffman.",
        _deep_compression,
        knob="bits",
        choices=(2, 3, 4, 5, 6, 7, 8),
    ),
    "transform-clustering": Named(
        "Laude, Richter and Ostermann 2018: DCT of filters and blocks, one step, bzip2; clusters for vectors.",
        _transform_clustering,
        knob="step",
        instead="bits",
    ),
    "weightless": Named(
        "Reagen et al. 2018: pruning, clusters, and a filter that answers for any weight alone.",
        _weightless,
        knob="bits",
        choices=(2, 3, 4, 5, 6, 7, 8),
    ),
    "low-rank": Named(
        "Truncated singular value decomposition where that is smaller, of matrices and of filters.",
        _low_rank,
        knob="error",
        choices=(3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5),
    ),
    "3lc": Named(
        "For gradients, Lim, Andersen and Kaminsky 2019: three values, base 3^5, zero runs.",
        _3lc,
        keeps=False,
    ),
    "3lc-small": Named("For gradients: the three values of 3lc, entropy-coded by density.", _3lc_small, keeps=False),
    "eden": Named(
        "For gradients, Vargaftik et al. 2022: a random rotation and the centroids of a Gaussian, unbiased.",
        _eden,
        keeps=False,
    ),
    "topk": Named("For gradients: the largest, and where they are.", _topk, keeps=False),
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
