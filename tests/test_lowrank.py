"""Low rank: as good as the singular value decomposition says it can be, in every form, for every criterion."""

import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight as fw
from featherweight.codecs import lowrank
from featherweight.codecs.lowrank import FORMS, LowRank
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.testing import check_stage

pytestmark = pytest.mark.filterwarnings("error")

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "weights"


def gauss(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def there_and_back(x: Array, stage: object) -> Array:
    return fw.decode(fw.encode(x, stage))


def loss(x: Array, y: Array) -> float:
    """Return the relative squared error."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(np.sum((x - y) ** 2) / np.sum(x**2))


def matrices(x: Array, form: str) -> list[Array]:
    """Return the matrices of weights (o, i, y, x), spelled out."""
    o, i, h, w = x.shape
    if form == "spatial":
        return [np.array([[x[b, a, c, d] for b in range(o) for d in range(w)] for a in range(i) for c in range(h)])]
    if form == "depthwise":
        return [np.array([x[b, a].ravel() for b in range(o)]) for a in range(i)]
    return [np.array([x[b].ravel() for b in range(o)])]


def best(x: Array, form: str, rank: int) -> float:
    """Return the least relative squared error that there is."""
    s = [np.linalg.svd(each.astype(np.float64), compute_uv=False) for each in matrices(x, form)]
    return float(sum(np.sum(each[rank:] ** 2) for each in s) / sum(np.sum(each**2) for each in s))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("filters", ["last", "first"])
@pytest.mark.parametrize("rank", [0, 1, 2, 5, 99])
def test_no_approximation_of_the_rank_is_better(form: str, filters: str, rank: int) -> None:
    x = gauss(7, 6, 3, 2)
    stored = x if filters == "last" or form == "matrix" else np.ascontiguousarray(x.transpose(2, 3, 1, 0))
    y = there_and_back(stored, LowRank(rank, form=form, filters=filters))
    assert loss(stored, y) == pytest.approx(best(x, form, rank), abs=3e-7)
    assert lowrank.errors(x, form)[: rank + 1][-1] == pytest.approx(best(x, form, rank), abs=1e-11)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 14), st.sampled_from([np.float32, np.float64]))
def test_matrices_of_any_shape_and_rank(m: int, n: int, rank: int, dtype: type) -> None:
    x = gauss(m, n, dtype=dtype)
    _, (left, right) = LowRank(rank).encode(x)
    rows, columns = (m, n) if 1 not in (m, n) else (1, m * n)
    rank = min(rank, rows, columns)
    assert (left.shape, right.shape, left.dtype) == ((rows, rank), (rank, columns), dtype)
    s = np.linalg.svd(x.reshape(rows, columns).astype(np.float64), compute_uv=False)[:rank]
    for factor in (left.astype(np.float64).T, right.astype(np.float64)):
        assert np.allclose(np.sum(factor**2, 1), s, rtol=1e-5, atol=1e-6)
    y = there_and_back(x, LowRank(rank))
    assert loss(x, y) == pytest.approx(1 - np.sum(s**2) / np.sum(x.astype(np.float64) ** 2), abs=3e-7)


def test_the_forms_are_pairs_of_convolutions() -> None:
    torch = pytest.importorskip("torch")
    x, image = gauss(6, 5, 3, 3), torch.from_numpy(gauss(1, 5, 9, 8, seed=1))
    for form in ("channel", "spatial", "depthwise"):
        left, right = (torch.from_numpy(each) for each in LowRank(2, form=form).encode(x)[1])
        decoded = torch.from_numpy(there_and_back(x, LowRank(2, form=form)))
        expected = torch.nn.functional.conv2d(image, decoded)
        conv = torch.nn.functional.conv2d
        if form == "channel":
            made = conv(conv(image, right.reshape(2, 5, 3, 3)), left.reshape(6, 2, 1, 1))
        elif form == "spatial":
            tall = left.reshape(5, 3, 2).permute(2, 0, 1)[..., None]
            flat = right.reshape(2, 6, 3).permute(1, 0, 2)[:, :, None]
            made = conv(conv(image, tall), flat)
        else:
            terms = [
                conv(conv(image, right[:, t].reshape(5, 1, 3, 3), groups=5), left[:, :, t].T.reshape(6, 5, 1, 1))
                for t in range(2)
            ]
            made = sum(terms)
        assert torch.allclose(expected, made, atol=1e-5), form


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("channel", 16 * 32 * 9 / (16 * 9 + 32)),
        ("spatial", 16 * 32 * 3 / (16 + 32)),
        ("depthwise", 32 * 9 / (32 + 9)),
        ("matrix", 32 * 144 / (32 + 144)),
    ],
)
def test_the_largest_rank_that_saves_is_that_of_the_papers(form: str, expected: float) -> None:
    assert lowrank.max_rank((32, 16, 3, 3), form) == pytest.approx(expected)
    if form != "matrix":
        assert lowrank.max_rank((3, 3, 16, 32), form, first=True) == pytest.approx(expected)
    rank = int(expected)
    left, right = LowRank(rank, form=form).encode(gauss(32, 16, 3, 3))[1]
    assert left.size + right.size <= 32 * 16 * 9
    left, right = LowRank(rank + 1, form=form).encode(gauss(32, 16, 3, 3))[1]
    assert left.size + right.size > 32 * 16 * 9


def test_the_fraction_is_of_the_largest_rank_that_saves() -> None:
    x = gauss(30, 60)  # which is 20
    for fraction, rank in ((0.0, 0), (0.01, 1), (0.25, 5), (0.5, 10), (1.0, 20)):
        assert LowRank(fraction=fraction).encode(x)[1][0].shape == (30, rank)
    assert LowRank().encode(x)[1][0].shape == (30, 10)
    assert np.allclose(gauss(50), there_and_back(gauss(50), LowRank()))  # one row is its own factor


@pytest.mark.parametrize("error", [0.0, 1e-6, 0.01, 0.1, 0.5, 0.99, 1.0])
def test_the_rank_is_the_least_that_keeps_the_error(error: float) -> None:
    x = gauss(20, 12, dtype=np.float64) @ np.diag(0.5 ** np.arange(12))
    rank = LowRank(error=error).encode(x)[1][0].shape[1]
    assert best(x[:, :, None, None], "matrix", rank) <= error + 1e-15
    assert rank == 0 or best(x[:, :, None, None], "matrix", rank - 1) > error


def test_energy_is_the_share_of_the_singular_values_beyond_the_first() -> None:
    x = gauss(40, 25, dtype=np.float64)
    s = np.linalg.svd(x, compute_uv=False)
    most = int(40 * 25 / 65)
    sums = np.cumsum(s)
    expected = (sums[:most] - sums[0]) / (sums[most - 1] - sums[0])
    assert np.allclose(expected, lowrank.energies(x, "matrix"))
    for energy, rank in ((0.0, 1), (expected[4] - 1e-9, 5), (expected[4] + 1e-9, 6), (1.0, most)):
        assert LowRank(energy=float(energy)).encode(x)[1][0].shape[1] == rank


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("form", FORMS)
def test_with_a_residual_only_rounding_is_lost(kind: str, form: str) -> None:
    for x in (gauss(9, 8, 3, 3), gauss(9, 8, 3, 3) * np.float32(1e30), gauss(9, 8, 3, 3, dtype=np.float64)):
        stage = LowRank(2, form=form, type=kind, remainder=True)
        _, (left, right, residual) = stage.encode(x)
        wide = "float64" if x.dtype == np.float64 else "float32"
        assert left.dtype == right.dtype == {"f32": wide, "f16": "float16", "bf16": ml_dtypes.bfloat16}[kind]
        assert residual.shape == x.shape
        near = 1e-14 if x.dtype == np.float64 else 1e-6
        assert np.abs(x - there_and_back(x, stage)).max() <= near * np.abs(x).max()


def test_narrow_factors_lose_little() -> None:
    x = gauss(30, 4) @ gauss(4, 50, seed=1)
    for scale in (1e-30, 1.0, 1e30):
        y = x * np.float32(scale)
        assert loss(y, there_and_back(y, LowRank(4, type="f16"))) < 1e-6
        assert loss(y, there_and_back(y, LowRank(4, type="bf16"))) < 1e-4


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("form", FORMS)
def test_any_magnitude_comes_back_finite(scale: float, form: str) -> None:
    x = np.clip(gauss(5, 4, 3, 3).astype(np.float64) * scale, -3.4e38, 3.4e38).astype(np.float32)
    y = there_and_back(x, LowRank(99, form=form))
    assert np.isfinite(y).all()
    assert np.abs(x.astype(np.float64) - y).max() <= 1e-5 * np.abs(x.astype(np.float64)).max() + 2e-45


@pytest.mark.parametrize(
    "x", [np.zeros((3, 4)), np.zeros((0, 4)), np.zeros((2, 0, 3, 3)), np.ones((1, 1)), np.ones(())]
)
def test_zeros_and_nothing_and_single_elements(x: Array) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        for stage in (
            LowRank(),
            LowRank(0),
            LowRank(7),
            LowRank(energy=0.5),
            LowRank(error=0.1),
            LowRank(remainder=True),
        ):
            y = there_and_back(x.astype(dtype), stage)
            assert (y.dtype, y.shape) == (dtype, x.shape)
            assert np.allclose(0 if stage.rank == 0 else x, y, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("filters", ["auto", "last", "first"])
def test_every_form_keeps_the_laws(form: str, filters: str) -> None:
    for dtype in (ml_dtypes.bfloat16, np.float32, np.float64):
        for residual in (False, True):
            check_stage(LowRank(2, form=form, filters=filters, remainder=residual), gauss(6, 5, 3, 3).astype(dtype))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ArgumentError, match="one of rank and error"):
        LowRank(3, error=0.1)
    with pytest.raises(ArgumentError, match="form=spatial"):
        LowRank(form="spatial").encode(gauss(3, 4))
    for bad in (np.nan, np.inf):
        with pytest.raises(ArgumentError, match="not finite: code this array with lossless"):
            LowRank().encode(np.full((3, 4), bad, np.float32))


def test_streams_that_do_not_fit_are_refused() -> None:
    x = gauss(6, 5, 3, 3)
    wire, (left, right, residual) = LowRank(2, remainder=True).encode(x)
    wrong = [
        (left,),
        (left[:-1], right),
        (left[:, :1], right),
        (left.reshape(-1), right),
        (left, right.astype(np.float64)),
        (left.astype(np.float64), right.astype(np.float64)),
        (left * np.float32(np.inf), right),
        (left, np.full_like(right, 2e15)),
        (left, right, residual[:-1]),
        (left, right, residual.astype(np.float64)),
        (left, right, np.full_like(residual, np.nan)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for streams in wrong:
            with pytest.raises(FrameError):
                lowrank.CODEC.decode(wire, streams, (), np.empty_like(x))
        for changes in ({"form": 4}, {"form": -1}, {"form": 3}, {"exponent": 1101}):
            fields = {"form": wire.form, "first": wire.first, "exponent": 0, **changes}
            with pytest.raises(FrameError):
                lowrank.CODEC.decode(type(wire)(**fields), (left, right), (), np.empty_like(x))
        with pytest.raises(FrameError):
            lowrank.CODEC.decode(wire, (left, right), (), np.empty((6, 5, 9), np.float32))


@pytest.mark.parametrize(("rank", "error"), [(4, 1e-3), (96, 1e-5)])
def test_the_recipe_takes_what_is_smaller_factors_or_the_weights(rank: int, error: float) -> None:
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(96, rank)) @ rng.normal(size=(rank, 120))).astype(np.float32)
    frame, plain = fw.encode(x, f"low-rank(error={error})"), fw.encode(x, "lossless-small")
    decoded = fw.decode(frame)
    if rank == 4:
        assert len(frame) < len(plain) / 5
        assert 0 < np.square(decoded - x).sum() < 1.1 * error * np.square(x).sum()
    else:
        assert len(frame) <= len(plain) + 32
        assert decoded.tobytes() == x.tobytes()


@pytest.mark.slow
def test_half_the_rank_keeps_most_of_a_real_network() -> None:
    path = DATA / "cifar10_resnet20.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository (shared/data/weights)")
    with fw.open(path) as file:
        kernels = [file[name] for name in file if file[name].ndim == 4]
    lost = sum(float(np.sum((x - there_and_back(x, LowRank())).astype(np.float64) ** 2)) for x in kernels)
    assert lost < 0.25 * sum(float(np.sum(x.astype(np.float64) ** 2)) for x in kernels)
