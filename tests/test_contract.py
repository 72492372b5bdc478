"""What every codec must keep, alone and in recipes; nothing here knows any codec by name."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featherweight
from featherweight import codecs, dtypes, recipes
from featherweight.codecs.levels import Levels
from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import AnyRecipe, Codec, Empty, Encoded, Port, Recipe, param, params
from featherweight.testing import (
    LAWS,
    Case,
    Sample,
    arrays,
    arrays_for,
    cases,
    check_stage,
    frames,
    hostile_frames,
    layouts,
    only_our_errors,
    same,
    shapes,
    stages,
    takes,
)
from featherweight.weights import finite, weight

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parent.parent


@st.composite
def told(draw: st.DrawFn, name: str, most: int = 1 << 10) -> tuple[object, Sample]:
    stage = draw(stages(name))
    return stage, draw(arrays_for(stage, most=most))


def by_frame(x: Array, recipe: AnyRecipe, refs: Mapping[str, Array], tmp_path: Path) -> Array:
    """Take an array through a frame."""
    return featherweight.decode(featherweight.encode(x, recipe, refs=refs), refs=refs)


def by_file(x: Array, recipe: AnyRecipe, refs: Mapping[str, Array], tmp_path: Path) -> Array:
    """Take an array through a file; a base checkpoint stands for the reference."""
    pytest.importorskip("featherweight.checkpoint")
    path, base = tmp_path / "x.fw", None
    if refs:
        base = tmp_path / "base.fw"
        featherweight.save_file({"x": refs["base"]}, base)
    featherweight.save_file({"x": x}, path, recipe, base=base)
    loaded = featherweight.load_file(path, base=base)
    with featherweight.open(path, base=base) as file:
        assert list(loaded) == list(file)
        assert same(loaded["x"], file["x"])
    return loaded["x"]


THROUGH = [by_frame, by_file]


@pytest.mark.parametrize("name", codecs.names())
def test_every_codec_keeps_every_law(name: str) -> None:
    @given(told(name))
    def search(drawn: tuple[object, Sample]) -> None:
        stage, (x, inputs) = drawn
        for law in LAWS.values():  # one search for all: drawing costs more than the laws
            law(stage, x, inputs)

    search()


@pytest.mark.parametrize("name", codecs.names())
def test_every_codec_brings_back_arrays_that_fill_its_blocks(name: str) -> None:
    @given(told(name, 1 << 17))
    def search(drawn: tuple[object, Sample]) -> None:
        stage, (x, inputs) = drawn
        LAWS["round_trip"](stage, x, inputs)
        LAWS["fits_ports"](stage, x, inputs)

    search()


@pytest.mark.parametrize("name", codecs.names())
def test_a_stage_takes_an_array_or_blames_the_caller(name: str) -> None:
    @given(stages(name), arrays(), st.lists(arrays(), max_size=2))
    def search(stage: object, x: Array, inputs: list[Array]) -> None:
        if takes(stage, x, inputs):
            LAWS["round_trip"](stage, x, inputs)

    search()


@pytest.mark.parametrize("name", codecs.names())
def test_parameters_outside_their_bounds_are_refused_with_their_name(name: str) -> None:
    cls = codecs.stage_class(name)
    for field in params(cls):
        lo, hi, choices = (field.metadata[key] for key in ("lo", "hi", "choices"))
        wrong: list[object] = [object(), "no such choice"]
        wrong += [] if lo is None else [lo - 1 if isinstance(lo, int) else math.nextafter(lo, -math.inf)]
        wrong += [] if hi is None else [hi + 1 if isinstance(hi, int) else math.nextafter(hi, math.inf)]
        wrong += [choices[0].upper() + "?"] if choices else []
        for value in wrong:
            with pytest.raises(ArgumentError, match=field.name):
                cls(**{field.name: (value,) if isinstance(field.default, tuple) else value})
        assert field.metadata["doc"], f"{name}.{field.name} says nothing of itself"


@pytest.mark.parametrize("through", THROUGH)
def test_whole_recipes_bring_arrays_back(through: Callable[..., Array], tmp_path: Path) -> None:
    @given(cases())
    def search(case: Case) -> None:
        decoded, plain = through(case.x, case.recipe, case.refs, tmp_path), dtypes.native(case.x)
        assert (plain.dtype, plain.shape) == (decoded.dtype, decoded.shape)
        if encode_into(len, plain, case.recipe, refs=case.refs).exact:
            assert same(case.x, decoded)

    search()


@pytest.mark.parametrize("recipe", [name for name, each in recipes.NAMED.items() if each.exact])
@pytest.mark.parametrize("through", THROUGH)
def test_named_recipes_bring_any_array_back(recipe: str, through: Callable[..., Array], tmp_path: Path) -> None:
    @given(arrays(), st.data())
    def search(x: Array, data: st.DataObject) -> None:
        refs = {"base": data.draw(layouts(x))} if recipe == "lossless-delta" else {}
        assert same(x, through(x, recipe, refs, tmp_path))

    search()


@pytest.mark.parametrize("recipe", [name for name, each in recipes.NAMED.items() if not each.exact and each.keeps])
def test_named_lossy_recipes_take_any_array_and_spare_what_must_not_be_spoilt(recipe: str) -> None:
    @given(arrays())
    def search(x: Array) -> None:
        plain = dtypes.native(x)
        clustered = recipe == "transform-clustering" and plain.ndim == 1 and weight(plain[None])
        spared = not weight(plain) and not clustered
        try:
            decoded = featherweight.decode(featherweight.encode(x, recipe))
        except ArgumentError as error:  # a step or a bound that this array is too large for
            assert not spared
            assert "step" in str(error) or "max_error" in str(error)  # noqa: PT017
            return
        assert (plain.dtype, plain.shape) == (decoded.dtype, decoded.shape)
        if spared:
            assert same(plain, decoded)
        elif plain.dtype.itemsize > 1:
            assert finite(decoded)

    search()


@given(cases(), st.integers(1, 4))
def test_the_bytes_of_a_recipe_depend_neither_on_layout_nor_on_threads(case: Case, threads: int) -> None:
    x, recipe, refs = case
    plain = featherweight.encode(dtypes.native(x), recipe, refs=refs, threads=1)
    assert plain == featherweight.encode(x, recipe, refs=refs, threads=threads)


@given(cases())
def test_recipe_text_reads_as_the_same_recipe(case: Case) -> None:
    assert case.recipe == recipes.parse(recipes.text(case.recipe))


@given(frames())
def test_well_formed_frames_decode(frame: object) -> None:
    assert only_our_errors(frame, 1 << 34) is not None


@given(hostile_frames())
def test_hostile_frames_raise_only_our_errors(frame: object) -> None:
    only_our_errors(frame)


_DIGEST = """
import hashlib
import numpy as np
from featherweight import codecs, dtypes, encode
from featherweight.testing import takes
rng, digest = np.random.Generator(np.random.Philox(7)), hashlib.sha256()
for name in codecs.names():
    stage = codecs.stage_class(name)()
    for row in dtypes.all_types():
        for x in (rng.standard_normal((8, 300)) * 0.05, np.zeros((4, 4)), rng.integers(0, 2, (3, 70))):
            x = x.astype(row.dtype)
            for refs in ({}, {"a": x}):
                if takes(stage, x, tuple(refs.values())):
                    recipe = __import__("featherweight").stage.Recipe(stage, (), tuple("@" + r for r in refs))
                    digest.update(encode(x, recipe, refs=refs))
print(digest.hexdigest())
"""


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed, "FEATHERWEIGHT_KERNELS": kernels},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, kernels in (("1", "numba"), ("2", "numba"), ("3", "python"))
    }
    assert 1 == len(digests)


# The laws themselves: each of them catches the stage that breaks it.


def _copy(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    if streams[0].size != out.size or streams[0].dtype != out.dtype:
        raise FrameError("not as many")
    out[...] = streams[0].reshape(out.shape)


_HONEST = Codec("honest", Empty, Port("values", "f"), (Port("values", "f", 1),), _copy)


@dataclass(frozen=True)
class Honest:
    """A codec of somebody's own."""

    codec: ClassVar[Codec] = _HONEST
    pace: int = param(3, lo=1, hi=9, doc="means nothing")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        return Encoded(Empty(), (x.reshape(-1),))

    def error_bound(self, x: Array, /) -> float:
        return 0.0


@given(stages(Honest))
def test_a_codec_of_ones_own_is_checked_without_being_registered(stage: Honest) -> None:
    check_stage(stage, np.linspace(0, 1, 7), laws=LAWS)


def test_check_stage_says_what_is_no_stage() -> None:
    for other in (3, "raw", Honest.codec):
        with pytest.raises(ArgumentError, match="is no stage"):
            check_stage(other)


def test_a_stage_that_says_it_is_blind_and_sees_shapes_is_caught() -> None:
    class Seeing(Levels):
        blind: ClassVar[bool] = True

    check_stage(Levels(), np.ones((20, 30), np.float32), laws=["sees_no_shape"])
    x = np.outer(2.0 ** np.arange(20), np.ones(30)).astype(np.float32)
    with pytest.raises(AssertionError):
        check_stage(Seeing(), x, laws=["sees_no_shape"])


def test_check_stage_searches_by_itself() -> None:
    check_stage(Honest())


def test_check_stage_searches_the_parameters_of_a_class_too() -> None:
    check_stage(Honest, most=64)


def test_without_hypothesis_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["hypothesis"] = None
from featherweight.errors import MissingDependencyError
try:
    import featherweight.testing
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "featherweight[testing]" in done.stdout


def _broken(law: str) -> object:
    class Careless(Honest):
        def encode(self, x: Array, /, *given: Array) -> Encoded:
            flat = x.reshape(-1).copy()
            if law == "round_trip" and flat.size:
                flat[-1] += 1
            if law == "deterministic":
                np.random.shuffle(flat)  # noqa: NPY002 - what the law is about
            if law == "leaves_no_trace":
                x.reshape(-1)[:1] = 0
            return Encoded(Empty(), (flat.reshape(1, -1) if law == "fits_ports" else flat,))

    def partly(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
        out[1:] = streams[0][1:]

    def crash(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
        out[...] = streams[0]

    if law in ("fills_out", "survives_hostility"):
        decode = partly if law == "fills_out" else crash
        Careless.codec = Codec("careless", Empty, Port("values", "f"), _HONEST.streams, decode)
    if law == "repr_evaluates":
        Careless.__repr__ = lambda _: "Careless(1, 2)"
    return Careless()


@pytest.mark.parametrize(
    "law",
    [
        "round_trip",
        "deterministic",
        "leaves_no_trace",
        "fits_ports",
        "fills_out",
        "survives_hostility",
        "repr_evaluates",
    ],
)
def test_a_law_catches_who_breaks_it(law: str) -> None:
    def check() -> None:
        for seed in range(1, 9):
            check_stage(_broken(law), np.arange(50.0 + seed), laws=[law])

    with pytest.raises((AssertionError, ValueError, TypeError, IndexError)):
        check()


def test_recipes_reach_every_codec_and_every_way_to_combine_them() -> None:
    seen: set[str] = set()

    of_any_type = arrays(shape=shapes(most=64))
    of_f32 = arrays([dtypes.of("F32")], shapes(most=64))  # which lossy stages want

    @settings(max_examples=1000, derandomize=True)
    @given(st.one_of(cases(of_any_type), cases(of_f32)))
    def search(case: Case) -> None:
        nodes = [case.recipe]
        while nodes:
            node = nodes.pop()
            seen.add(getattr(getattr(node, "stage", node), "codec", node).__class__.__name__)
            if isinstance(node, Recipe):
                seen.add(node.stage.codec.name)
                seen.update("given" for _ in node.given)
                nodes += [inner for _, inner in node.then]
            elif hasattr(node, "recipe"):
                nodes.append(node.recipe)

    search()
    assert {*codecs.names(), "given", "Split", "Auto"} <= seen
