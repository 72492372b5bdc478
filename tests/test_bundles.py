"""Bundles: small tensors that share a frame come back as they were, one by one and all together."""

import concurrent.futures
import contextlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight import Goal, Plan, bundles, dtypes, load_file, save_file
from featherweight.bundles import MOST, ROOM, code, together
from featherweight.cli.reports import inspect_report, inspect_summary
from featherweight.codecs.raw import Raw
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.formats import open_checkpoint
from featherweight.formats._index import Index, Part, Row, pack, unpack
from featherweight.formats._io import open_source
from featherweight.frame import body_size
from featherweight.recipes import parse, text
from featherweight.stage import Codec
from featherweight.testing import arrays, same

STEP = 0.05


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    values = np.random.Generator(np.random.Philox(seed)).standard_normal(shape) * scale
    return values.astype(np.float32)


def network(layers: int = 8) -> dict[str, Array]:
    """Return a network as there are: filters of one shape, norms, a counter, a matrix of its own."""
    found: dict[str, Array] = {"stem.weight": normal(16, 3, 3, 3, seed=99)}
    for i in range(layers):
        found[f"layer{i}.conv.weight"] = normal(16, 16, 3, 3, seed=i, scale=2.0 ** (i % 3))
        for j, name in enumerate(("weight", "bias", "running_mean")):
            found[f"layer{i}.norm.{name}"] = normal(16 + i % 2, seed=100 * j + i)
        found[f"layer{i}.norm.num_batches_tracked"] = np.array(1000 + i)
    return {**found, "head.weight": normal(10, 16, seed=98)}


def saved(tensors: Mapping[str, Any], plan: Any = "lossless", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    save_file(tensors, file, plan, **options)
    return file


def bodies(file: Any) -> list[tuple[str, ...]]:
    with featherweight.open(file) as opened:
        return list(opened.bodies())


def test_a_network_comes_back_as_it_was_in_few_bodies() -> None:
    tensors = network()
    file = saved(tensors)
    found = load_file(file)
    assert list(found) == list(tensors)  # in their order, too
    assert all(same(found[name], x) for name, x in tensors.items())
    assert len(bodies(file)) == 7
    assert ("stem.weight",) in bodies(file)
    alone = sum(len(featherweight.encode(x)) for x in tensors.values())
    assert len(file.getvalue()) < alone


def test_what_is_written_into_a_loaded_tensor_reaches_no_other() -> None:
    tensors = network()
    file = saved(tensors)
    for name in tensors:
        found = load_file(file)
        found[name][...] = 7
        assert all(same(found[other], x) for other, x in tensors.items() if other != name)
    with featherweight.open(file) as opened:
        for name, x in tensors.items():
            opened[name][...] = 7  # what the file holds on to stays as it is
            assert same(opened[name], x)


@pytest.mark.parametrize("recipe", ["tcq", "ecsq", "near-lossless"])
def test_lossy_recipes_take_filters_together_and_say_what_each_has_lost(recipe: str) -> None:
    tensors, knob = network(), "max_error" if recipe == "near-lossless" else "step"
    file = saved(tensors, f"{recipe}({knob}={STEP})")
    filters = tuple(name for name in tensors if "conv" in name)
    with featherweight.open(file) as opened:
        assert filters in list(opened.bodies())
        assert opened.fw is not None
        for name, x in tensors.items():
            decoded, loss = opened[name], opened.fw.entries[name].loss
            if x.ndim < 2:
                assert same(decoded, x)
                assert loss is None
                continue
            error = decoded.astype(np.float64) - x
            assert 0 < np.square(error).sum() / np.square(x, dtype=np.float64).sum() <= loss.nmse
            assert loss.nmse < 1.05 * np.square(error).sum() / np.square(x, dtype=np.float64).sum()
            assert np.abs(error).max() <= loss.largest < 1.1 * np.abs(error).max()
        stored = {name: opened.fw.entries[name].stored for name in filters}
        assert sum(stored.values()) == opened.fw.entries[filters[0]].size
        assert max(stored.values()) - min(stored.values()) <= 1  # they are as large as each other


def test_what_looks_at_no_shape_takes_arrays_of_any_together_and_says_what_each_has_lost() -> None:
    tensors = {
        "a.weight": normal(8, 3, 3, 3),
        "b.weight": normal(3, 3, 8, 9, seed=1),  # filters first
        "c.weight": normal(40, 30, seed=2),
        "c.bias": normal(40, seed=3),
        "d.weight": normal(5, 7, seed=4),
        "e.weight": np.full((6, 5), np.nan, np.float32),
        "f.weight": np.arange(12).reshape(3, 4),
        "g.weight": normal(2, 50, seed=5),
        "h.weight": np.array([[1.0, np.inf]], np.float32),
    }
    file = saved(tensors, f"ecsq({STEP}, plain=true)")
    together = ("a.weight", "b.weight", "c.weight", "d.weight", "g.weight")
    assert together in bodies(file)
    found = load_file(file)
    with featherweight.open(file) as opened:
        assert opened.fw is not None
        for name, x in tensors.items():
            assert same(found[name], opened[name])
            if name not in together:
                assert same(found[name], x)
                continue
            error, loss = found[name].astype(np.float64) - x, opened.fw.entries[name].loss
            assert found[name].shape == x.shape
            assert 0 < np.abs(error).max() <= loss.largest < STEP
            assert np.square(error).sum() / np.square(x, dtype=np.float64).sum() <= loss.nmse
            assert same(opened.get_slice(name)[1:3], found[name][1:3])
            assert same(opened.lookup(name).at((1, -1, *[0] * (x.ndim - 2))), found[name][1, -1].reshape(-1)[0])
    alone = sum(len(featherweight.encode(tensors[name], f"ecsq({STEP}, plain=true)")) for name in together)
    with featherweight.open(file) as opened:
        assert sum(opened.fw.entries[name].stored for name in together) < alone


@pytest.mark.parametrize("sizes", [[1] * 17, [1] * 15, [5, 1, 1, 5, 9, 1, 1], [20], [], [9, 9, 9]])
@pytest.mark.parametrize("most", [1, 7, 10, 100])
def test_rows_of_arrays_are_cut_about_evenly(sizes: list[int], most: int) -> None:
    parts = list(bundles._evenly(sizes, most))
    assert [i for part in parts for i in range(len(sizes))[part]] == list(range(len(sizes)))
    sums = [sum(sizes[part]) for part in parts]
    assert all(total <= most or part.stop - part.start == 1 for total, part in zip(sums, parts, strict=True))
    if len(set(sizes)) == 1 and most >= sizes[0]:
        assert max(sums) - min(sums) <= sizes[0] * len(parts)
        assert len(parts) == -(-len(sizes) // (most // sizes[0]))


@st.composite
def small_networks(draw: st.DrawFn) -> dict[str, Array]:
    """Return arrays of a few dtypes and shapes, several of each, under names that end alike or not."""
    found = {}
    for i in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from([(), (0,), (1,), (7,), (3, 5), (4, 2, 3, 3), (3, 3, 4, 2), (0, 4), (2, 0)]))
        kind = draw(st.sampled_from([dtypes.of(name) for name in ("F32", "F16", "BF16", "F64", "I64", "BOOL", "F4")]))
        for j in range(draw(st.integers(1, 5))):
            name = f"{i}.{j}.{draw(st.sampled_from(['weight', 'bias']))}"
            found[name] = draw(arrays([kind], st.just(shape)))
    return dict(draw(st.permutations(list(found.items()))))


LOSSLESS, LOSSY = (
    ["lossless", "lossless-small", "raw", "split(rans)"],
    ["tcq(step=0.1)", "ecsq(0.1, plain=true)", "int8"],
)


@given(small_networks(), st.sampled_from([*LOSSLESS, *LOSSY]))
def test_whatever_is_coded_together_comes_back_in_its_order(tensors: dict[str, Array], recipe: str) -> None:
    if recipe == "split(rans)":
        tensors = {name: x for name, x in tensors.items() if x.dtype == np.uint8}
    file = saved(tensors, recipe)
    found = load_file(file)
    assert list(found) == list(tensors)
    for name, x in tensors.items():
        if recipe in LOSSY and x.ndim > 1:
            assert (found[name].dtype, found[name].shape) == (dtypes.native(x).dtype, x.shape)
        else:
            assert same(found[name], x)
    assert sorted(name for names in bodies(file) for name in names) == sorted(tensors)


def test_one_thread_three_and_other_processes_write_the_same_bytes(tmp_path: Path) -> None:
    tensors = network()
    featherweight.save_file(tensors, tmp_path / "a.fw")
    source = tmp_path / "a.npz"
    featherweight.decode_file(tmp_path / "a.fw", source)
    for recipe in ("lossless", "tcq(step=0.05)"):
        files = [tmp_path / f"{i}.fw" for i in range(3)]
        featherweight.encode_file(source, files[0], recipe, threads=1)
        featherweight.encode_file(source, files[1], recipe, threads=3)
        with concurrent.futures.ProcessPoolExecutor(2) as pool:
            featherweight.encode_file(source, files[2], recipe, executor=pool)
            loaded = load_file(files[0], executor=pool)
        assert len({file.read_bytes() for file in files}) == 1
        assert list(loaded) == list(load_file(files[0]))
        assert all(same(x, loaded[name]) for name, x in load_file(files[0]).items())


def test_slices_and_look_ups_of_a_bundled_tensor_are_its_own() -> None:
    tensors = network()
    for recipe in ("lossless", f"tcq(step={STEP})"):
        with featherweight.open(saved(tensors, recipe)) as file:
            for name in ("layer3.conv.weight", "layer7.norm.bias", "layer2.norm.num_batches_tracked"):
                whole = file[name]
                assert file.lookup(name).shape == whole.shape
                assert same(file.lookup(name).at(np.arange(whole.size)), whole.reshape(-1))
                with pytest.raises(ArgumentError, match="lies outside"):
                    file.lookup(name).at(whole.size)
                if whole.ndim:
                    assert same(file.get_slice(name)[3:5], whole[3:5])
                    assert same(np.concatenate(list(file.blocks(name, 5))), whole.reshape(-1))


def test_a_bundle_is_small_enough_to_be_fetched_for_one_tensor() -> None:
    tensors = {f"{i}.weight": normal(64, 64, seed=i) for i in range(40)}
    for recipe in ("lossless", f"ecsq(step={STEP})", "ecsq(step=0.5)", "int8"):
        file = saved(tensors, recipe)
        found = load_file(file)
        with featherweight.open(file) as opened:
            assert opened.fw is not None
            for names in opened.bodies():
                assert len(names) == 1 or opened.fw.entries[names[0]].size <= ROOM
                assert sum(tensors[name].size for name in names) <= MOST
        assert len(bodies(file)) < 40
        assert list(found) == list(tensors)


def test_a_bundle_that_turns_out_too_large_is_halved() -> None:
    first = np.zeros((64, 512), np.float32)
    first[0, :300] = normal(300)
    noise = [np.random.default_rng(i).integers(0, 256, (64, 512)).astype(np.uint8).view(np.uint8) for i in range(3)]
    made = list(code([*"abcd"], [first.astype(np.uint8), *noise], parse("split(auto)")))
    assert [name for body in made for name, *_ in body.tensors] == [*"abcd"]
    assert all(sum(map(len, body.parts)) <= ROOM for body in made if len(body.tensors) > 1)


@pytest.mark.parametrize(
    "recipe", ["deep-compression", "weightless", "universal", "int4", "tcq", "low-rank", "transform-clustering"]
)
def test_what_fits_something_to_each_tensor_takes_them_one_by_one(recipe: str) -> None:
    tensors = {f"{i}.weight": normal(16, 48, seed=i) for i in range(5)}
    assert bodies(saved(tensors, recipe)) == [(name,) for name in tensors]


def test_tensors_with_a_base_are_changes_and_stay_alone() -> None:
    tensors = network()
    assert bodies(saved(tensors, base=tensors)) == [(name,) for name in tensors]


def test_what_must_be_kept_exactly_does_not_spoil_what_lies_beside_it() -> None:
    tensors = {f"{i}.weight": normal(16, 48, seed=i) for i in range(8)}
    tensors["1.weight"][3, 4] = np.nan
    tensors["2.weight"] = np.sign(tensors["2.weight"]) * np.float32(0.25)
    tensors["3.weight"][0] = 3e38  # no index reaches so far
    tensors["4.weight"] *= np.float32(1e-42)
    file = saved(tensors, f"tcq(step={STEP})")
    found = load_file(file)
    exact = [name for name, x in tensors.items() if same(found[name], x)]
    assert exact == ["1.weight", "2.weight", "3.weight"]
    for name in ("0.weight", "5.weight", "7.weight"):
        assert 0 < np.abs(found[name] - tensors[name]).max() < 1


def test_what_one_recipe_refuses_is_named() -> None:
    tensors = {f"l{i}.w": normal(8, 8, seed=i) for i in range(5)}
    tensors["l3.w"][0, 0] = np.nan
    with pytest.raises(ArgumentError, match=r"^l3\.w: .*not finite"):
        saved(tensors, "split(dct(scaled=false))")
    with pytest.raises(ArgumentError, match=r"^l3\.w: "):
        saved(tensors, "uniform(0.1)")


def test_no_tensor_loses_more_for_what_lies_beside_it() -> None:
    biases = {f"l{i}.bias": normal(7, seed=i, scale=10.0**i) for i in range(5)}
    filters = {f"l{i}.weight": normal(8, 8, 3, 3, seed=i, scale=2.0 ** (70 * (i == 2))) for i in range(6)}
    cases = [(biases, "affine(8, channel)"), (filters, "split(dct(coefficients=uniform(0.1, index=bzip2)))")]
    for tensors, recipe in (*cases, (filters, "int8"), (filters, "dct(coefficients=affine(8, channel))")):
        found = load_file(saved(tensors, recipe))
        for name, x in tensors.items():
            alone = featherweight.decode(featherweight.encode(x, recipe))
            lost, least = (np.square((y - x).astype(np.float64)).sum() for y in (found[name], alone))
            assert lost <= 1.01 * least, (recipe, name)


@pytest.mark.parametrize("recipe", ["lossless", "ecsq(step=0.2)", "tcq(step=0.1)", "int8"])
def test_tensors_of_another_character_are_not_coded_together(recipe: str) -> None:
    dense = {f"{i}.weight": normal(64, 64, seed=i) for i in range(6)}
    pruned = {f"{i + 6}.weight": np.where(np.abs(x) < 1.3, 0, x) for i, x in enumerate(dense.values())}
    constant = {f"{i + 12}.weight": np.full((64, 64), np.float32(i % 3)) for i in range(6)}
    scaled = {f"{i + 18}.weight": normal(64, 64, seed=i, scale=10.0 ** (i - 3)) for i in range(6)}
    for others in (pruned, constant, scaled):
        apart = sum(len(saved(tensors, recipe).getvalue()) for tensors in (dense, others))
        assert len(saved({**dense, **others}, recipe).getvalue()) < 1.01 * apart


def test_what_is_exact_is_not_coded_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    coded, whole = list[tuple[int, ...]](), bundles.encode_into

    def counted(write: Any, x: Array, *rest: Any, **options: Any) -> Any:
        coded.append(x.shape)
        return whole(write, x, *rest, **options)

    monkeypatch.setattr(bundles, "encode_into", counted)
    tensors = {f"{i}.weight": normal(4, 6, seed=i) for i in range(64)}
    file = saved(tensors, "ecsq(step=1e-9)")  # exact is smaller
    assert all(same(x, tensors[name]) for name, x in load_file(file).items())
    assert len(coded) <= 4


def test_rules_and_sensitivities_part_what_they_part() -> None:
    tensors = {f"{i}.weight": normal(16, 48, seed=i) for i in range(8)}
    plan = Plan.of(f"ecsq(step={STEP})", rules=["[01].weight=lossless", "2.weight=ecsq(step=0.1)"])
    assert bodies(saved(tensors, plan)) == [
        ("0.weight", "1.weight"),
        ("2.weight",),
        tuple(f"{i}.weight" for i in range(3, 8)),
    ]
    sensitivities = {"[0123].weight": 4.0, "4.weight": 4.5}  # nearly the same step
    plan = Plan.of("ecsq", sensitivities=sensitivities)
    found = bodies(saved(tensors, plan, goal=Goal(nmse=1e-3)))
    assert tuple(f"{i}.weight" for i in range(5)) in found
    assert tuple(f"{i}.weight" for i in range(5, 8)) in found


@pytest.mark.parametrize("goal", [Goal(bits=3), Goal(nmse=1e-2), Goal(max_error=0.1)])
@pytest.mark.parametrize("recipe", ["tcq", "ecsq"])
def test_goals_are_met_with_bundles(goal: Goal, recipe: str) -> None:
    tensors, file = network(24), io.BytesIO()
    made = save_file(tensors, file, recipe, goal=goal)
    assert made.size == len(file.getvalue())
    found = load_file(file)
    matrices = [name for name, x in tensors.items() if x.ndim > 1]
    noise = sum(float(np.square(found[name].astype(np.float64) - tensors[name]).sum()) for name in matrices)
    signal = sum(float(np.square(tensors[name].astype(np.float64)).sum()) for name in matrices)
    largest = max(float(np.abs(found[name] - tensors[name]).max()) for name in matrices)
    measured = {
        "bits": 8 * made.size / sum(x.size for x in tensors.values()),
        "nmse": noise / signal,
        "max_error": largest,
    }[goal.name]
    near = 0.9 if goal.max_error else 0.99  # the largest error does not grow evenly with a step
    assert near * getattr(goal, goal.name) < measured <= getattr(goal, goal.name) * (1 + 1e-6)


# Recipes


def test_what_loses_nothing_or_says_so_may_go_together() -> None:
    for recipe in ("split(auto)", "planes(exponent=huffman)", "split(lossy(uniform(0.1)))", "smooth(raw, raw)"):
        assert text(together(parse(recipe), 3, (4, 8))) == text(parse(recipe))
    assert (
        text(together(parse("smallest([levels(2), raw])"), 5, (4, 8)))
        == "smallest([levels(resolution=2, blocks=5), raw])"
    )
    for recipe in ("kmeans", "uniform", "trellis", "prune(0.5, values=raw)", "delta(given=@base)", "lattice(z, 0.1)"):
        assert together(parse(recipe), 3, (4, 8)) is None
        assert together(parse(f"split(smallest([raw, {recipe}]))"), 3, (4, 8)) is None


def test_a_codec_of_the_callers_own_is_asked_before_it_codes_tensors_together() -> None:
    @dataclass(frozen=True)
    class Own(Raw):
        codec: ClassVar[Codec] = replace(Raw.codec, name="own")

    class Joining(Own):
        def together(self, count: int, shape: tuple[int, ...]) -> "Joining":
            assert count in (2, 3)
            assert shape == (4, 5)
            return self

    tensors = {f"{i}.weight": normal(4, 5, seed=i) for i in range(3)}
    for stage, found in ((Own(), [(name,) for name in tensors]), (Joining(), [tuple(tensors)])):
        file = saved(tensors, stage, codecs={"own": Own})
        with featherweight.open(file, codecs={"own": Own.codec}) as opened:
            assert list(opened.bodies()) == found
            assert all(same(opened[name], x) for name, x in tensors.items())


# Hostile files


def forged(file: io.BytesIO, change: Callable[[Index], Index]) -> io.BytesIO:
    """Return a file whose index was changed, its checksum being right."""
    with open_source(file) as source:
        index, place = unpack(source)
    return io.BytesIO(file.getvalue()[:place] + b"".join(pack(change(index))))


def parted(row: Row, change: Callable[[tuple[Part, ...]], tuple[Part, ...]]) -> Row:
    return row if isinstance(row.name, str) else msgspec.structs.replace(row, name=change(row.name))


def with_parts(change: Callable[[tuple[Part, ...]], tuple[Part, ...]]) -> Callable[[Index], Index]:
    return lambda index: msgspec.structs.replace(index, bodies=tuple(parted(row, change) for row in index.bodies))


def with_order(change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Callable[[Index], Index]:
    return lambda index: msgspec.structs.replace(index, order=change(index.order))


def shaped(part: Part, *shape: int) -> Part:
    return msgspec.structs.replace(part, shape=shape)


def named(part: Part, name: str) -> Part:
    return msgspec.structs.replace(part, name=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_parts(lambda parts: parts[:-1]), "a bundle of .* elements in a frame of"),
        (with_parts(lambda parts: (*parts[:-1], named(parts[-1], parts[0].name))), "occurs twice"),
        (with_parts(lambda parts: (shaped(parts[0], 1 << 40), *parts[1:])), "a bundle of .* elements in a frame of"),
        (with_parts(lambda parts: (shaped(parts[0], 1 << 62, 4), *parts[1:])), "no array has the shape"),
        (with_parts(lambda parts: (shaped(parts[0], -1), *parts[1:])), "no array has the shape"),
        (with_parts(lambda parts: parts[:1]), "two tensors or more"),
        (with_parts(lambda parts: ()), "two tensors or more"),
        (with_order(lambda order: order[:-1]), "leaves tensors out"),
        (with_order(lambda order: (*order, 0)), "too often"),
        (with_order(lambda order: (-1, *order[1:])), "there is none"),
        (with_order(lambda order: (1 << 40, *order[1:])), "there is none"),
        (with_order(lambda order: (order[1], *order[1:])), "too often"),
    ],
)
def test_an_index_that_lies_about_bundles_is_refused(change: Callable[[Index], Index], message: str) -> None:
    file = saved(network())
    assert same(load_file(forged(file, lambda index: index))["layer3.norm.bias"], network()["layer3.norm.bias"])
    with pytest.raises(FrameError, match=message):
        featherweight.open(forged(file, change))


def test_an_error_that_no_number_holds_is_endless() -> None:
    change = with_parts(lambda parts: (msgspec.structs.replace(parts[0], loss=(32000, 32000)), *parts[1:]))
    with featherweight.open(forged(saved(network()), change)) as opened:
        assert opened.fw is not None
        assert opened.fw.entries["layer0.conv.weight"].loss == (math.inf, math.inf)


def test_a_bundle_of_nothing_has_shares_of_nothing() -> None:
    file = saved({"a": np.zeros(0, np.float32)})

    def doubled(index: Index) -> Index:
        parts = tuple(Part(name, (0,)) for name in "ab")
        return msgspec.structs.replace(index, bodies=(msgspec.structs.replace(index.bodies[0], name=parts),))

    with featherweight.open(forged(file, doubled)) as opened:
        assert opened.fw is not None
        assert [(entry.stored, opened[name].size) for name, entry in opened.fw.entries.items()] == [(0, 0), (0, 0)]


def test_a_damaged_bundle_is_named_by_the_tensor_that_was_asked_for() -> None:
    file = saved(network())
    with featherweight.open(file) as opened:
        assert opened.fw is not None
        entry = opened.fw.entries["layer4.norm.bias"]
    data = bytearray(file.getvalue())
    data[entry.offset + body_size(entry.frame) // 2] ^= 1
    with featherweight.open(io.BytesIO(data)) as opened, pytest.raises(FrameError, match=r"layer4\.norm\.bias"):
        opened["layer4.norm.bias"]


def test_a_place_that_does_not_fit_is_refused_and_one_with_room_is_filled_as_far_as_it_goes() -> None:
    tensors = network()
    name = "layer4.norm.bias"
    x = tensors[name]
    places = {key: np.empty(array.size, array.dtype) for key, array in tensors.items()}
    frozen = np.empty_like(x)
    frozen.flags.writeable = False
    with featherweight.open(saved(tensors)) as file:
        for wrong in (
            np.empty(x.size - 1, x.dtype),
            np.empty(x.size, np.int32),
            np.empty(2 * x.size, x.dtype)[::2],
            frozen,
        ):
            with pytest.raises(ArgumentError):
                file.decode_into(lambda key, wrong=wrong: contextlib.nullcontext(wrong if key == name else places[key]))
        places[name] = np.zeros(x.size + 5, x.dtype)
        file.decode_into(lambda key: contextlib.nullcontext(places[key]))
    assert all(places[key][: array.size].tobytes() == array.tobytes() for key, array in tensors.items())
    assert not places[name][x.size :].any()


def test_inspect_says_that_tensors_share_a_frame(tmp_path: Path) -> None:
    save_file(network(), tmp_path / "a.fw")
    with open_checkpoint(tmp_path / "a.fw") as checkpoint:
        report = inspect_report(checkpoint)
    assert {tensor["bundle"] for tensor in report["tensors"]} == {1, 8}
    assert sum(tensor["bytes"] for tensor in report["tensors"]) == report["totals"]["bytes"]
    assert "40 of the tensors lie in bundles" in "\n".join(inspect_summary(report))


def test_a_stage_that_cannot_be_hashed_goes_together_as_others_do() -> None:
    @dataclass(frozen=True)
    class Listed(Raw):
        notes: list[int] = field(default_factory=list)

    with pytest.raises(TypeError):
        hash(Listed([1]))
    assert together(Listed([1]), 2, (4, 4)) == Listed([1])
