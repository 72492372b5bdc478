"""Accuracy at the same file size: errors that count alike in all tensors, and by how much the network minds them.

A tensor's sensitivity is the diagonal of Fisher's information, averaged over its weights: the mean square of the
gradient of the loss on training images, with labels drawn from what the network itself believes. Its square root is
tried as well, since the loss is no parabola at such errors. Every file is asked for the same bits a weight
(`Goal(bits=...)`); accuracy is that of decoded tensors on the whole test set, without retraining.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import featherweight
from benchmarks import _networks
from benchmarks._common import attempt, exit_code, options, save, table
from featherweight import Goal, Plan

RECIPE = "tcq(vectors=bf16)"
POWERS = {"alike": 0.0, "square root": 0.5, "Fisher": 1.0}
BITS = {
    "LeNet-300-100": (1.5, 1.0, 0.6),
    "LeNet-5": (1.6, 1.2, 0.8),
    "ResNet-8": (4.5, 3.5, 2.5),
    "ResNet-20": (3.0, 2.2, 1.6),
    "ResNet-32": (2.6, 1.9, 1.4),
    "char LM": (3.0, 2.2, 1.6),
}
QUICK = "LeNet-300-100"

Case = dict[str, Any]


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="sensitivity")
    parser.add_argument("--network", action="append", choices=BITS, help="only this one; may be repeated")
    parser.add_argument("--inputs", type=int, default=300, help="training inputs that tell (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    cases: list[Case] = []
    for name in chosen.network or ([QUICK] if chosen.quick else BITS):
        bits, inputs = (BITS[name][:1], 20) if chosen.quick else (BITS[name], chosen.inputs)
        case = attempt(skipped, name, lambda name=name, bits=bits, inputs=inputs: measure(name, bits, inputs))
        if case:
            cases.append(case)
            print(show({"cases": [case]}), "\n", flush=True)
            save("sensitivity", chosen, {"cases": cases, "skipped": skipped})
    save("sensitivity", chosen, {"cases": cases, "skipped": skipped})
    return exit_code(skipped)


def measure(name: str, bits: tuple[float, ...], inputs: int) -> Case:
    tensors = _networks.NETWORKS[name].load()
    found = _networks.fisher(name, tensors, inputs)
    case: Case = {"network": name, "before": round(_networks.score(name, tensors), 4), "fisher": found, "points": []}
    for wanted in bits:
        for way, power in POWERS.items():
            plan = Plan.of(RECIPE, sensitivities={key: value**power for key, value in found.items()} if power else {})
            case["points"].append({"bits": wanted, "way": way, **_coded(name, tensors, plan, wanted)})
    return case


def _coded(name: str, tensors: Mapping[str, Any], plan: Plan, bits: float) -> dict[str, float]:
    file = io.BytesIO()
    told = featherweight.save_file(tensors, file, plan, goal=Goal(bits=bits))
    score = _networks.score(name, featherweight.load_file(file))
    assert told.error is not None
    return {"bytes": told.size, "nmse": told.error.nmse, "accuracy": round(score, 4)}


def show(result: Mapping[str, Any]) -> str:
    rows = []
    for case in result["cases"]:
        for bits in dict.fromkeys(point["bits"] for point in case["points"]):
            here = [point for point in case["points"] if point["bits"] == bits]
            best = max(point["accuracy"] for point in here)
            shown = [f"{point['accuracy']:.5g}" for point in here]
            marked = [f"**{x}**" if point["accuracy"] == best else x for x, point in zip(shown, here, strict=True)]
            size = max(point["bytes"] for point in here)
            rows.append([case["network"], f"{case['before']:.5g}", f"{bits:g}", f"{size:,}", *marked])
    return table(["network", "before", "bits a weight", "bytes, at most", *POWERS], rows)
