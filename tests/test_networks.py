"""Networks decoded exactly score what MANIFEST.md says, to the last digit."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        from benchmarks import _common, _networks

        try:
            for network in _networks.NETWORKS.values():
                network.path()
                _networks._split(network.data, "test")
        except _common.AbsentError as error:
            pytest.skip(str(error))
        yield _networks


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["LeNet-300-100", "LeNet-5", "ResNet-8", "ResNet-20", "ResNet-32", "ResNet-56", "char LM"]
)
def test_the_score_is_the_claimed_one(networks, name):
    network = networks.NETWORKS[name]
    assert network.claimed == round(networks.score(name, network.load()), 4 if network.data == "text" else 2)


@pytest.mark.slow
def test_what_is_coded_exactly_scores_the_same_and_what_is_spoilt_less(networks):
    name = "LeNet-300-100"
    tensors = networks.NETWORKS[name].load()
    sample = networks.first(name, "train", 1000)
    before = networks.measure(name, tensors, sample)
    assert 1000 * before.accuracy / 100 == round(10 * before.accuracy)
    assert before == networks.measure(name, {key: x.copy() for key, x in tensors.items()}, sample)
    halved = {key: x / 2 if key == "ip3.weight" or key == "ip3.bias" else x for key, x in tensors.items()}
    shrunk = networks.measure(name, halved, sample, before.lead)
    assert before.accuracy == shrunk.accuracy
    assert before.sure == pytest.approx(shrunk.sure, abs=1e-3)
    assert before.sure > networks.measure(name, halved, sample).sure + 0.1
    spoilt = {key: np.sign(x) * np.float32(0.02) if x.ndim == 2 else x for key, x in tensors.items()}
    assert before.accuracy > networks.score(name, spoilt, "train", 1000)


@pytest.mark.slow
def test_telling_inputs_stand_for_all(networks):
    name = "LeNet-300-100"
    tensors = networks.NETWORKS[name].load()
    rounded = {key: np.rint(x / 0.05) * np.float32(0.05) if x.ndim > 1 else x for key, x in tensors.items()}
    every, few = networks.first(name, "train"), networks.telling(name, 1000)
    assert len(few.labels) == 1000
    assert float(few.counts.sum()) == pytest.approx(len(every.labels))

    def lost(sample):
        before = networks.measure(name, tensors, sample)
        return before.sure - networks.measure(name, rounded, sample, before.lead).sure

    assert lost(few) == pytest.approx(lost(every), rel=0.1)


@pytest.mark.slow
def test_papers_adds_up(networks, tmp_path):
    from benchmarks import papers

    out = tmp_path / "papers.json"
    recipe = "weights(kmeans(16, index=rans))"
    arguments = [
        "--network",
        "LeNet-300-100",
        "--network",
        "autoencoder",
        "--recipe",
        papers.BASELINE,
        "--out",
        str(out),
    ]
    assert papers.main(arguments) == 0
    cases = json.loads(out.read_text())["cases"]
    assert ["LeNet-300-100", "autoencoder"] == [case["network"] for case in cases]
    for case in cases:
        for point in case["chosen"]:
            assert point["coded"] == sum(point["parts"].values())
            assert point["ratio"] == pytest.approx(case["bytes"] / point["coded"], abs=1e-3)
        sizes = [point["coded"] for point in case["chosen"]]
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) == len(papers.FALLS if case["network"] in networks.NETWORKS else papers.ERRORS)
    before = out.read_text()
    papers.main(arguments)
    assert json.loads(before)["cases"] == json.loads(out.read_text())["cases"]  # kept, not measured anew
    with papers.Bench(networks.NETWORKS["LeNet-300-100"].path(), papers.Way("k", recipe)) as bench:
        coded = bench.code("")
        assert coded.size == sum(coded.parts.values())
        assert coded.parts["codebooks"] == 3 * 16 * 4
        assert 0 < coded.parts["headers"] < 1000
        assert coded.parts["positions"] == 0
        assert all((coded.tensors[key] == x).all() for key, x in bench.original.items() if x.ndim < 2)


@pytest.mark.slow
def test_fisher_is_the_mean_square_of_gradients(networks, monkeypatch):
    """Of logits (a · x + 3 · c · x, 0) the gradient by c is three times that by a; b has no effect."""
    import torch

    def build(tensors):
        a, b, c = (tensors[name] for name in "abc")
        return lambda x: torch.cat([x @ a + 3 * x @ c + 0 * b.sum(), torch.zeros(1, 1)], 1)

    x = torch.tensor([[1.0], [2.0], [-3.0]])
    monkeypatch.setattr(networks, "_split", lambda data, split: (x, torch.zeros(len(x), dtype=torch.int64)))
    monkeypatch.setitem(networks.NETWORKS, "tiny", networks.Network("tiny", "", "", build, 0.0))
    matrices = {"a": np.array([[0.4]]), "b": np.ones((2, 2)), "c": np.array([[0.2]])}
    found = networks.fisher("tiny", {**matrices, "bias": np.ones(2)}, len(x))
    assert found.keys() == matrices.keys()
    assert found["c"] == pytest.approx(9 * found["a"])
    assert found["b"] == pytest.approx(1e-6 * found["c"])  # the least that anything counts for
    assert np.prod(list(found.values())) == pytest.approx(1)  # over the geometric mean


@pytest.mark.slow
def test_sensitivity_compares_files_of_one_size(networks, tmp_path):
    from benchmarks import sensitivity

    out = tmp_path / "sensitivity.json"
    assert sensitivity.main(["--quick", "--out", str(out)]) == 0
    (case,) = json.loads(out.read_text())["cases"]
    assert {point["way"] for point in case["points"]} == set(sensitivity.POWERS)
    assert len({point["nmse"] for point in case["points"]}) == 3
    sizes = [point["bytes"] for point in case["points"]]
    assert max(sizes) < 1.01 * min(sizes)
