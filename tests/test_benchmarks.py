"""The benchmarks run on tiny data, verify what they measure, and the README shows what the results hold."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import featherweight
from benchmarks import __main__ as main
from benchmarks import _hosts, traffic
from benchmarks._common import AbsentError, FailedError
from featherweight import ArgumentError, MissingDependencyError, rivals

ROOT = Path(__file__).resolve().parent.parent
BF16 = np.dtype(ml_dtypes.bfloat16)


def weights(dtype=np.float32, count=1 << 12):
    return (np.random.default_rng(5).standard_normal(count) * 0.02).astype(dtype)


def benchmark(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16, np.float64, np.uint8])
def test_every_rival_that_is_installed_gives_the_array_back(dtype):
    array = weights().view(np.uint8) if dtype is np.uint8 else weights(dtype)
    rows = rivals.measure(array, [rivals.COPY, rivals.ours("raw"), *rivals.installed(array)], repetitions=1)
    assert rows[0].ratio == 1
    assert rows[1].name == "featherweight raw"
    for row in rows:
        assert row.source == array.nbytes
        assert row.coded > 0
        assert len(row.encode) == len(row.decode) == 1


def test_ours_as_file_cuts_the_array_into_its_tensors(tmp_path):
    shapes = {"a": (16, 64), "b": (), "empty": (0, 4), "c": (3071,)}
    row, _ = rivals.measure(
        weights(BF16), [rivals.ours_as_file("lossless", shapes, tmp_path / "x.fw"), rivals.COPY], repetitions=1
    )
    assert row.coded == (tmp_path / "x.fw").stat().st_size


def test_threads_copy_all():
    array = weights(count=(1 << 19) + 3)
    assert rivals.measure(array, [rivals.COPY], repetitions=1, threads=3)[0].coded == array.nbytes


def test_a_wrong_decode_is_an_error():
    def spoil(blob, out, threads):
        out[...] = blob
        out[-1] += 1
        return out

    with pytest.raises(ArgumentError, match="did not give the array back"):
        rivals.measure(weights(), [replace(rivals.COPY, decompress=spoil)], repetitions=1)


def test_what_is_not_installed_or_does_not_fit_is_named():
    with pytest.raises(MissingDependencyError, match="bench"):
        rivals.measure(weights(), [replace(rivals.COPY, module="no_such_module")], repetitions=1)
    with pytest.raises(ArgumentError, match="takes F16"):
        rivals.measure(weights(), [replace(rivals.COPY, types=("F16",))], repetitions=1)


def test_speeds_and_paired_ratios():
    assert rivals.speed(10**6, [1.0, 2.0, 4.0]) == (1.0, 0.5, 1.5)
    assert rivals.paired([1.0, 1.0, 1.0], [2.0, 3.0, 4.0]) == (2.5, 3.0, 3.5)


def test_the_list_of_benchmarks():
    listed = benchmark().stdout
    assert {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} == set(main.NAMES)
    for name in main.NAMES:
        assert f"  {name}" in listed
    assert "usage" in benchmark("no-such-benchmark", code=1).stdout


def test_lossless_quick(tmp_path):
    path = tmp_path / "lossless.json"
    benchmark("lossless", "--quick", "--recipe", "raw", "--out", str(path))
    result = json.loads(path.read_text())
    assert {"benchmark", "date", "machine", "settings", "allocator", "cases", "skipped"} <= result.keys()
    assert {"cpu", "cores", "python", "packages"} <= result["machine"].keys()
    assert result["allocator"]["MALLOC_MMAP_MAX_"] == "0"
    case = result["cases"][0]
    assert case["bytes"] == 1 << 16
    assert case["cores"] == 1
    rows = {row["name"]: row for row in case["rows"]}
    assert {"copy", "featherweight raw", "featherweight raw, file"} <= rows.keys()
    for row in rows.values():
        assert row["bits"] == pytest.approx(8 * row["coded"] / case["elements"])
        for way in ("encode", "decode"):
            assert row[way].keys() == {"best", "median", "spread", "seconds"}
            assert len(row[way]["seconds"]) == case["repetitions"]
    against = rows["featherweight raw"]["against"]["copy"]
    assert against["size"] == pytest.approx(rows["featherweight raw"]["coded"] / case["bytes"])
    assert against["decode"]["low"] <= against["decode"]["median"] <= against["decode"]["high"]


def test_cores_quick(tmp_path):
    benchmark("cores", "--quick", "--out", str(tmp_path / "cores.json"))
    cases = json.loads((tmp_path / "cores.json").read_text())["cases"]
    assert [case["threads"] for case in cases] == sorted({1, *(case["threads"] for case in cases)})
    for case in cases:
        coded = {row["name"]: row["coded"] for row in case["rows"]}
        assert coded == {row["name"]: row["coded"] for row in cases[0]["rows"]}  # whatever the number of threads
        assert coded["featherweight lossless"] < 0.7 * coded["copy"]
        assert all(len(row[way]) == 2 for row in case["rows"] for way in ("encode", "decode"))


def test_delta_and_memory_quick(tmp_path):
    benchmark("delta", "--quick", "--out", str(tmp_path / "delta.json"))
    case = json.loads((tmp_path / "delta.json").read_text())["cases"][0]
    bits = {row["name"]: row["bits"] for row in case["rows"]}
    assert bits["featherweight lossless-delta"] < 0.2
    benchmark("memory", "--quick", "--dir", str(tmp_path / "work"), "--out", str(tmp_path / "memory.json"))
    memory = json.loads((tmp_path / "memory.json").read_text())
    assert memory["coded"] < memory["source"]
    assert {row["step"] for row in memory["rows"]} == {"encode", "inspect", "read one tensor", "decode"}
    assert not any((tmp_path / "work").iterdir())
    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- benchmark:others -->\n<!-- /benchmark -->\nAfter.\n")
    options = ["report", "--file", str(readme), "--results", str(tmp_path)]
    benchmark(*options, "--check", code=1)
    benchmark(*options)
    benchmark(*options, "--check")
    assert "lossless-delta" in readme.read_text()
    assert "peak RssAnon" in readme.read_text()


def test_kmeans_quick(tmp_path):
    benchmark("kmeans", "--quick", "--out", str(tmp_path / "kmeans.json"))
    (case,) = json.loads((tmp_path / "kmeans.json").read_text())["cases"]
    assert len(case["rows"]) == 20
    errors = {(row["k"], row["start"]): row["nmse"] for row in case["rows"]}
    assert all(errors[k, "exact"] <= 1.0001 * errors[k, start] for k, start in errors)
    assert errors[4, "exact"] > errors[16, "exact"] > errors[256, "exact"]


def test_lattice_quick(tmp_path):
    benchmark("lattice", "--quick", "--out", str(tmp_path / "lattice.json"))
    rows = json.loads((tmp_path / "lattice.json").read_text())["rows"]
    assert len(rows) == 10
    for row in rows:
        assert row["moment"] == pytest.approx(row["known moment"], rel=0.02)
        assert row["largest error"] <= row["bound"]
        assert abs(row["bits"] - row["limit"]) < 0.05


def test_sparse_quick(tmp_path):
    benchmark("sparse", "--quick", "--out", str(tmp_path / "sparse.json"))
    stream, tensors = json.loads((tmp_path / "sparse.json").read_text())["tables"]
    bits = {row["name"].removeprefix("featherweight "): row["bits"] for row in stream["rows"] + tensors["rows"]}
    assert bits["gaps(8, gaps=huffman, values=huffman)"] < bits["gaps(4, gaps=huffman, values=huffman)"]
    assert bits["rans, classes given"] < bits["rans"]
    assert bits["indices under classes of the weights before"] < bits["relative index"] < bits["rANS"]


def test_knobs_are_the_closer_the_nearer_to_what_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import papers

    path = tmp_path / "a.fw"
    featherweight.save_file({"a": np.random.default_rng(0).standard_normal((64, 64)).astype("f4")}, path)
    with papers.Bench(str(path), papers.Way("ecsq", "ecsq(step={})")) as bench:
        line = bench.line(lambda coded: coded.nmse, (1e-3, 1e-1))
    knobs = [point["knob"] for point in line]
    assert knobs == sorted(knobs)
    for goal in (1e-3, 1e-1):
        within = max(point["knob"] for point in line if point["cost"] <= goal)
        beyond = min(point["knob"] for point in line if point["cost"] > goal)
        sizes = {point["knob"]: point["coded"] for point in line}
        assert sizes[beyond] >= (1 - papers.NEAR) * sizes[within] or beyond / within < 2 ** (1 / 100)
        assert beyond / within < 2 ** (1 / 7)
        assert bench.reached(line, goal) == within


STAND_IN = """#!{python}
import json, math, os, sys, time, zlib
import numpy as np
print(json.dumps({{"nncodec": "none"}}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    with np.load(request["tensors"]) as file:
        tensors = dict(file)
    step = 2.0 ** (request["qp"] / 4)
    levels = {{name: np.rint(x / step).astype("i2") if x.ndim > 1 else x for name, x in tensors.items()}}
    with open(request["stream"], "wb") as file:
        file.write(zlib.compress(b"".join(x.tobytes() for x in levels.values())))
    np.savez(request["decoded"], **{{n: (x * step).astype("f4") if x.ndim > 1 else x for n, x in levels.items()}})
    print(json.dumps({{"coded": os.path.getsize(request["stream"]), "encode": [0.5], "decode": [0.25]}}), flush=True)
"""


def test_frontier_quick(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import frontier

    weights = [x.astype(float) for x in frontier.load("synthetic").values() if x.ndim > 1]
    power = sum((x**2).sum() for x in weights) / sum(x.size for x in weights)
    stand_in, path = tmp_path / "stand-in", tmp_path / "frontier.json"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    arguments = ("frontier", "--quick", "--qp", "-24", "--recipe", "ecsq", "--recipe", "tcq", "--out", str(path))
    benchmark(*arguments, "--nncodec", str(stand_in), "--dir", str(tmp_path / "work"))
    result = json.loads(path.read_text())
    assert all(entry["kind"] == "skipped" for entry in result["skipped"])
    points = {point["part"]: point for point in result["points"]}
    whole = points["networks"]
    assert whole["nmse"] == pytest.approx((2**-6) ** 2 / 12 / power, rel=0.05)  # of a step, 2^-6
    ecsq, tcq = whole["ours"]
    assert ecsq["coded"] > tcq["coded"]
    for entry in (whole, ecsq, tcq):
        assert entry["bits"] == pytest.approx(8 * entry["coded"] / entry["weights"])
        assert entry["nmse"] <= whole["nmse"] * (1 + 1e-6)
        assert entry["nmse"] > whole["nmse"] * 0.98
    shown = frontier.speeds([whole])
    times = [statistics.median(whole[way]) / statistics.median(ecsq[way]) for way in ("encode", "decode")]
    assert f"| {times[0]:.1f} x / {times[1]:.1f} x |" in shown
    assert points["growth"]["weights"] == 1 << 18
    assert points["growth"]["peak"] > 0
    again = benchmark(*arguments, "--nncodec", str(stand_in), "--dir", str(tmp_path / "work"))
    assert "synthetic whole" not in again.stderr  # results are kept
    drawn = path.with_suffix(".svg")
    assert drawn.exists() != ("matplotlib is not installed" in again.stderr)


def test_frontier_without_nncodec_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("FEATHERWEIGHT_NNCODEC", raising=False)
    path = tmp_path / "frontier.json"
    benchmark("frontier", "--quick", "--only", "networks", "--out", str(path))
    (skipped,) = (entry for entry in json.loads(path.read_text())["skipped"] if "NNCodec" in entry["what"])
    assert skipped["kind"] == "skipped"
    assert "--nncodec" in skipped["why"]
    assert "pip install nncodec" in skipped["why"]


def test_the_bound_knows_the_scales_of_rows_and_columns(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import frontier

    random = np.random.default_rng(3)
    row, column = np.exp2(random.standard_normal((512, 1))), np.exp2(random.standard_normal((1, 384)))
    found = frontier.variances(random.standard_normal((512, 384)) * row * column)
    assert np.abs(np.log2(found / (row * column) ** 2)).mean() < 0.12  # estimates from 384 and 512 samples
    assert np.isfinite(np.log2(frontier.variances(np.zeros((3, 4))))).all()
    monkeypatch.setattr(frontier, "load", lambda case: {"a": random.standard_normal((2048, 2048)).astype("f4")})
    (bound,) = frontier._bounds("any", [])
    for point in bound["line"]:  # where all scales are alike, Shannon's bound; the fit takes what chance gives
        assert point["bits"] - 0.5 * np.log2(1 / point["nmse"]) == pytest.approx(point["gap"])
        assert -0.01 < point["gap"] < 0.001


@pytest.mark.parametrize("number", range(18))
def test_formats_give_back_what_they_promise(number, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import _formats
    from benchmarks._common import AbsentError

    rival = _formats.FORMATS[number]
    x = np.random.default_rng(4).standard_normal((64, 512)).astype(np.float32)
    try:
        blob = rival.encode(x, 1.0)
    except AbsentError as error:
        pytest.skip(str(error))
    error = np.abs(blob.decode() - x)
    if rival.name in ("SZ3", "zfp"):
        assert error.max() <= float(rival.setting.split()[-2]) * 1.0001
    else:  # an entropy of 0.5 log2(1/D) is the least there is; a fixed rate is within 1.5 bits of it
        gap = 8 * blob.size / x.size + 0.5 * np.log2((error**2).mean())
        assert 0.3 < gap < 1.5
    assert len(_formats.FORMATS) == 18


def test_a_benchmark_whose_data_are_absent_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_DATA", str(tmp_path / "nowhere"))
    path = tmp_path / "result.json"
    benchmark("lossless", "--case", "a.safetensors", "--out", str(path))
    skipped = json.loads(path.read_text())["skipped"]
    assert any("FEATHERWEIGHT_DATA" in entry["why"] and entry["kind"] == "skipped" for entry in skipped)


def test_the_limits_are_those_of_the_data(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import _data, _limits

    case = _data.load("synthetic:65536")
    limits = _limits.limits(case)
    assert limits["exponent"] <= limits["exponent, best Huffman"] <= limits["exponent"] + 1
    assert limits["exponent given row and column scale"] < limits["exponent given row scale"] < limits["exponent"]
    assert 7.8 < limits["sign and mantissa"] <= 8
    assert _limits.entropy(np.array([1, 1, 2, 0])) == 6
    assert _limits.huffman(np.array([1, 1, 2, 0])) == 6


def test_the_readme_shows_the_committed_results():
    benchmark("report", "--check")


def _traffic():
    """Return the cases of a run of `benchmarks traffic` in which 3lc takes twice the steps and a tenth of the time."""
    cases = []
    for way, seed, accuracy, speed in (("none", 0, 92.0, 1), ("none", 1, 91.0, 1), ("3lc(1.0)", 0, 90.0, 2)):
        curve = [[20 * speed, 44.5, 1.0], [40 * speed, 89.0, 2.0], [100, accuracy, 5.0]]
        payload = {"bytes": 100 * (400 if way == "none" else 10), "plain": 100 * 400, "warm_up": 0}
        case = {"part": "training", "network": "LeNet-5", "setting": f"{way}, seed {seed}", "way": way, "seed": seed}
        cases.append({**case, "steps": 100, "accuracy": accuracy, "curve": curve, "seconds": 5.0, "payload": payload})
    ways = {way: {"seconds": [s, s, 2 * s], "wire": 500 * s} for way, s in (("none", 1.0), ("3lc(1.0)", 0.1))}
    for hosts, mbit in ((2, 10.0), (2, 100.0), (4, 100.0)):
        case = {"part": "links", "network": "LeNet-5", "setting": f"{hosts} hosts, {mbit:g} Mbit/s"}
        cases.append({**case, "hosts": hosts, "mbit": mbit, "rounds": 3, "steps": 2, "ways": ways})
    return cases


def test_time_to_an_accuracy_is_steps_times_seconds():
    cases = _traffic()
    assert traffic.aim(cases, "LeNet-5") == 89.0
    link = traffic.links(cases, "LeNet-5")[10.0]
    assert traffic.seconds_to(cases, "LeNet-5", "none", link) == pytest.approx(40)
    assert traffic.seconds_to(cases, "LeNet-5", "3lc(1.0)", link) == pytest.approx(8)
    assert traffic.steps_to(cases[0], 66.75) == pytest.approx(30)
    cases[1]["curve"] = [[100, 88.0, 5.0]]
    assert traffic.seconds_to(cases, "LeNet-5", "none", link) is None
    shown = traffic.show({"cases": cases})
    assert "| 3lc(1.0) | 10 | 40.0 | 90.00 | 100 (100 to 200) |" in shown
    assert "| 3lc(1.0) | 50 | 50 | 100 (100 to 200) |" in shown


def test_links_say_what_they_need(monkeypatch):
    monkeypatch.setattr(_hosts.os, "geteuid", lambda: 1000)
    with pytest.raises(AbsentError, match="only root"), _hosts.joined(2, 10):
        pass
    monkeypatch.setattr(_hosts.os, "geteuid", lambda: 0)
    monkeypatch.setattr(_hosts.shutil, "which", lambda tool: None)
    with pytest.raises(AbsentError, match="iproute2"), _hosts.joined(2, 10):
        pass


def test_a_rank_that_fails_fails_all(monkeypatch):
    monkeypatch.setattr(_hosts, "_PATIENCE", 0.1)
    with pytest.raises(FailedError, match="no_such_module:train ended with code"):
        _hosts.together("benchmarks.no_such_module:train", [_hosts.HERE] * 2)


@pytest.mark.slow
def test_traffic_quick(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "traffic.json"
    benchmark("traffic", "--quick", "--out", str(path))
    result = json.loads(path.read_text())
    trained = {case["way"]: case for case in result["cases"] if case["part"] == "training"}
    if not trained:
        pytest.skip(result["skipped"][0]["why"])
    assert all(case["accuracy"] > 70 for case in trained.values())
    assert trained["3lc(1.0)"]["payload"]["bytes"] * 30 < trained["none"]["payload"]["bytes"]
    timed = [case for case in result["cases"] if case["part"] == "links"]
    for case in timed:  # none where links cannot be made
        assert case["ways"]["3lc(1.0)"]["wire"] * 10 < case["ways"]["none"]["wire"]


def test_frontier_makes_weights_sparse(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import _data, frontier

    rng = np.random.default_rng(1)
    weights = {"a.weight": rng.normal(size=(60, 50)).astype("f4"), "a.bias": rng.normal(size=60).astype("f4")}
    monkeypatch.setattr(frontier.featherweight, "load_file", lambda path: weights)
    monkeypatch.setattr(_data, "minilm", lambda: "minilm.safetensors")
    for what, share in (("half pruned", 0.5), ("0.8 pruned", 0.2), ("0.9 pruned", 0.1)):
        (x,) = frontier.load(f"MiniLM, {what}").values()
        assert np.count_nonzero(x) == share * x.size
    (x,) = frontier.load("MiniLM, 16 values").values()
    assert np.unique(x).size == 16
