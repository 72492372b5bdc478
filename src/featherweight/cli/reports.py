"""What `inspect` and `diff` report: plain values, whose keys stay for ``--json``, and rows and lines made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from featherweight.cli.text import Column, clean, count, exponent, ratio, shape, significant, size
from featherweight.describe import Branch, describe
from featherweight.formats import Checkpoint, TensorInfo
from featherweight.formats.fw import FwFile

if TYPE_CHECKING:
    from featherweight.compare import Difference
    from featherweight.reading import TensorFile

Report = dict[str, Any]

INSPECT = (
    Column("tensor", fold=True),
    Column("dtype", spare=3),
    Column("shape", spare=1),
    Column("recipe", cut=True),
    Column("bits", right=True),
    Column("share", right=True, spare=4),
)
LOSSES = (
    Column("largest error", right=True, spare=2),
    Column("NMSE", right=True),
    Column("SNR dB", right=True, spare=5),
)
DIFF = (
    Column("tensor", fold=True),
    Column("dtype", spare=3),
    Column("shape", spare=1),
    Column("changed", right=True),
    *LOSSES,
)


def inspect_report(checkpoint: Checkpoint) -> Report:
    """Describe a checkpoint; nothing is decoded."""
    fw = checkpoint.container if isinstance(checkpoint.container, FwFile) else None
    known = dict[int, list[Branch]]()  # of a bundle's frame, which many tensors share
    tensors = [_tensor(info, fw, checkpoint.size, known) for info in checkpoint.tensors.values()]
    weights, tensor_bytes, stored = (sum(t[key] for t in tensors) for key in ("weights", "tensor_bytes", "bytes"))
    return {
        "file": checkpoint.name,
        "format": checkpoint.format,
        "origin": fw.origin if fw else checkpoint.format,
        "tensors": tensors,
        "totals": {
            "tensors": len(tensors),
            "weights": weights,
            "tensor_bytes": tensor_bytes,
            "bytes": stored,
            "index_bytes": checkpoint.size - stored,
            "file_bytes": checkpoint.size,
            "bits_per_weight": 8 * checkpoint.size / weights if weights else None,
            "ratio": tensor_bytes / checkpoint.size,
        },
        "references": sorted({name for entry in fw.entries.values() for name in entry.frame.refs}) if fw else [],
        "metadata": dict(checkpoint.metadata),
    }


def _tensor(info: TensorInfo, fw: FwFile | None, file_bytes: int, known: dict[int, list[Branch]]) -> Report:
    entry = fw.entries[info.name] if fw else None
    stored, loss, branches, bundle = info.packed, None, list[Branch](), 1
    if entry is not None:
        stored, loss, bundle = entry.stored, entry.loss, len(entry.bundle) or 1
        if id(entry.frame) not in known:
            known[id(entry.frame)] = describe(entry.frame)
        branches = known[id(entry.frame)]
    return {
        "name": info.name,
        "dtype": info.kind.name,
        "shape": list(info.shape),
        "weights": info.count,
        "tensor_bytes": info.packed,
        "bytes": stored,
        "bits_per_weight": 8 * stored / info.count if info.count else None,
        "share": stored / file_bytes,
        "bundle": bundle,
        "exact": loss is None,
        "nmse": _finite(loss.nmse) if loss else 0.0,
        "max_abs_error": _finite(loss.largest) if loss else 0.0,
        "snr_db": _finite(loss.snr) if loss else None,
        "recipe": branches[0].recipe if branches else None,
        "recipes": [branch._asdict() for branch in branches],
    }


def inspect_rows(report: Report) -> list[list[str]]:
    """Return the rows of the table; of a file without lossy tensors they have no errors."""
    lossy = not all(tensor["exact"] for tensor in report["tensors"])
    return [
        [
            clean(tensor["name"]),
            tensor["dtype"],
            shape(tensor["shape"]),
            _recipe(tensor["recipes"]),
            bits(tensor["bits_per_weight"]),
            f"{100 * tensor['share']:.1f} %",
            *(_errors(tensor) if lossy else ()),
        ]
        for tensor in report["tensors"]
    ]


def inspect_columns(report: Report) -> tuple[Column, ...]:
    """Return the columns that go with the rows."""
    return INSPECT if all(tensor["exact"] for tensor in report["tensors"]) else INSPECT + LOSSES


def _errors(tensor: Report) -> tuple[str, str, str]:
    if tensor["exact"]:
        return "exact", "", ""
    return exponent(tensor["max_abs_error"]), exponent(tensor["nmse"]), significant(tensor["snr_db"])


def _recipe(recipes: Sequence[Report]) -> str:
    if not recipes:
        return "-"
    others = len(recipes) - 1
    text = clean(recipes[0]["brief"])
    return f"{text} + {count(others, 'other')}" if others else text


def inspect_summary(report: Report) -> Iterator[str]:
    """Return the lines below the table."""
    totals = report["totals"]
    origin = f" from {report['origin']}" if report["origin"] not in ("", report["format"]) else ""
    held = f"{count(totals['tensors'], 'tensor')}, {count(totals['weights'], 'weight')}"
    yield f"{clean(report['file'])}: {report['format']}{origin}, {held}"
    gain = f"{ratio(totals['tensor_bytes'], totals['file_bytes'])}, " if report["format"] == "fw" else ""
    yield (
        f"{size(totals['file_bytes'])} for {size(totals['tensor_bytes'])} of tensors, "
        f"{gain}{bits(totals['bits_per_weight'])} bits per weight; "
        f"{size(totals['index_bytes'])} of it are index and framing"
    )
    if bundled := sum(tensor["bundle"] > 1 for tensor in report["tensors"]):
        yield f"{bundled:,} of the tensors lie in bundles, of whose bytes each has its share."
    if not all(tensor["exact"] for tensor in report["tensors"]):
        yield "Errors are those that the file records, rounded up by some percent; diff measures them."
    if report["references"]:
        yield "It was encoded against a base, which decoding needs (--base)."


def diff_report(first: TensorFile, second: TensorFile, found: Sequence[Difference]) -> Report:
    """Sum up a comparison; what is no finite number is null.

    `lossy_nmse` and `lossy_snr_db` are of tensors of two dimensions or more that differ: as goals count errors.
    """
    from featherweight.losses import decibels, over

    noise, signal = (sum(getattr(each, key) or 0.0 for each in found) for key in ("noise", "signal"))
    counted = [each for each in found if each.noise and each.first and len(each.first.shape) > 1]
    lost = over(*(sum(getattr(each, key) for each in counted) for key in ("noise", "signal")))
    largest = [each.largest for each in found if each.largest is not None]
    statuses = [each.status for each in found]
    return {
        "first": first.name,
        "second": second.name,
        "equal": all(status == "equal" for status in statuses),
        "same_metadata": first.metadata() == second.metadata(),
        "same_order": list(first) == list(second),
        "tensors": [_difference(each) for each in found],
        "totals": {
            "tensors": len(found),
            "equal": statuses.count("equal"),
            "weights": sum(info.count for info in first.infos.values()),
            "changed": sum(each.changed or 0 for each in found),
            "max_abs_error": _finite(max(largest, default=0.0) if not any(map(math.isnan, largest)) else math.nan),
            "nmse": _finite(over(noise, signal)),
            "snr_db": _finite(decibels(over(noise, signal))),
            "lossy_nmse": _finite(lost),
            "lossy_snr_db": _finite(decibels(lost)),
        },
    }


def _difference(each: Difference) -> Report:
    old, new = each.first, each.second
    return {
        "name": each.name,
        "status": each.status,
        "dtype": [info.kind.name if info else None for info in (old, new)],
        "shape": [list(info.shape) if info else None for info in (old, new)],
        "changed": each.changed,
        "max_abs_error": _finite(each.largest),
        "nmse": _finite(each.nmse),
        "snr_db": _finite(each.snr),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def diff_rows(found: Sequence[Difference]) -> list[list[str]]:
    """Return the rows of the table."""
    rows = []
    for each in found:
        old, new = each.first or each.second, each.second or each.first
        if old is None or new is None:
            continue
        kind = old.kind.name if old.kind == new.kind else f"{old.kind.name} → {new.kind.name}"
        where = {"first only": "only in A", "second only": "only in B", "shape": "other shape"}.get(each.status)
        share = where or (f"{100 * (each.changed or 0) / max(1, old.count):.2f} %" if each.changed else "no")
        rows.append(
            [
                clean(each.name),
                kind,
                shape(old.shape) if old.shape == new.shape else f"{shape(old.shape)} → {shape(new.shape)}",
                share,
                *(("", "", "") if where else (exponent(each.largest), exponent(each.nmse), significant(each.snr))),
            ]
        )
    return rows


def diff_summary(report: Report) -> Iterator[str]:
    """Return the lines below the table."""
    totals = report["totals"]
    different, tensors = totals["tensors"] - totals["equal"], count(totals["tensors"], "tensor")
    if not different:
        yield f"{tensors} in both, equal bit for bit."
    else:
        changed = f", in {totals['changed']:,} of {count(totals['weights'], 'weight')}" if totals["changed"] else ""
        yield f"{different:,} of {tensors} differ{changed}."
    if totals["changed"]:
        errors = (exponent(totals["max_abs_error"]), exponent(totals["nmse"]), significant(totals["snr_db"]))
        yield "Over all that can be compared: largest error {}, NMSE {}, SNR {} dB.".format(*errors)
    if totals["lossy_nmse"]:
        lost = exponent(totals["lossy_nmse"]), significant(totals["lossy_snr_db"])
        yield "Over the tensors of two dimensions or more that differ: NMSE {}, SNR {} dB.".format(*lost)
    if not report["same_metadata"]:
        yield "The metadata differ."
    if not report["same_order"] and not any(each["status"].endswith("only") for each in report["tensors"]):
        yield "The tensors are in another order."


def bits(value: float | None) -> str:
    """Write bits per weight."""
    return "-" if value is None else f"{value:.3f}"
