"""Recipes as text: the grammar, its errors, and that printing and parsing agree."""

import inspect
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import featherweight
from featherweight import auto, codecs
from featherweight.auto import Auto
from featherweight.codecs._kernels import _machines
from featherweight.errors import ArgumentError
from featherweight.lossy import Lossy
from featherweight.named import KNOBS
from featherweight.prune import Prune
from featherweight.recipes import NAMED, parse, text
from featherweight.stage import (
    Codec,
    Empty,
    Encoded,
    Port,
    Recipe,
    Smallest,
    Split,
    chain,
    check_params,
    param,
    params,
    streams_of,
)
from featherweight.weights import Weights

stage = codecs.stage_class
planes, rans, huffman, runs, delta, raw = map(stage, ("planes", "rans", "huffman", "runs", "delta", "raw"))


def _decode(wire: Empty, streams: tuple[np.ndarray, ...], given: tuple[np.ndarray, ...], out: np.ndarray) -> None:
    out[...] = streams[0]


@dataclass(frozen=True)
class Knobs:
    """A stage with a parameter of each kind."""

    codec: ClassVar[Codec] = Codec("4lc", Empty, Port("values"), (Port("codes"),), _decode)
    count: int = param(3, lo=-5, hi=99, doc="an integer")
    rate: float = param(0.5, lo=0.0, hi=1e6, doc="a number")
    word: str = param("plain", doc="a string")
    sharp: bool = param(False, doc="a boolean")
    widths: tuple[int, ...] = param((), lo=1, hi=8, doc="a list")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: np.ndarray, /, *given: np.ndarray) -> Encoded:
        return Encoded(Empty(), (x,))

    def error_bound(self, x: np.ndarray, /) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        ("raw", Recipe(raw())),
        ("raw()", Recipe(raw())),
        ("  planes ( [8, 4,4] )  ", Recipe(planes((8, 4, 4)))),
        ("planes(widths=[8, 4, 4])", Recipe(planes((8, 4, 4)))),
        ("planes([])", Recipe(planes())),
        ("planes(exponent=huffman)", chain(planes(), exponent=huffman())),
        ("planes(mantissa=rans, exponent=huffman)", chain(planes(), exponent=huffman(), mantissa=rans())),
        (
            "planes(exponent=huffman, mantissa=rans(given=exponent))",
            chain(planes(), exponent=huffman(), mantissa=chain(rans(), given=("exponent",))),
        ),
        ("delta(given=@base)", chain(delta(), given=("@base",))),
        ("delta(given=[@model/old.2-x])", chain(delta(), given=("@model/old.2-x",))),
        ("delta(given='@base', difference=runs)", chain(delta(), given=("@base",), difference=runs())),
        ("delta(xor)", Recipe(delta("xor"))),
        ('delta(mode="xor")', Recipe(delta("xor"))),
        ("runs(least=2)", Recipe(runs(2))),
        ("auto", Auto()),
        ("auto(small)", Auto("small")),
        ("split(raw)", Split(Recipe(raw()))),
        ("split(auto(small), 1000)", Split(Auto("small"), 1000)),
        ("split(planes(exponent=auto), size=7)", Split(chain(planes(), exponent=Auto()), 7)),
        ("planes(exponent=split(rans))", chain(planes(), exponent=Split(Recipe(rans())))),
        ("smallest([raw, split(planes), auto])", Smallest((Recipe(raw()), Split(Recipe(planes())), Auto()))),
        ("smallest([raw, rans], enough=0.3)", Smallest((Recipe(raw()), Recipe(rans())), 0.3)),
        ("prune(0.5)", Recipe(Prune(0.5))),
        ("prune(given=@mask, values=rans)", chain(Prune(), given=("@mask",), values=rans())),
        ("lossy(raw, exact=rans, enough=0.5)", Lossy(Recipe(raw()), Recipe(rans()), 0.5)),
        ("weights(prune(values=raw))", Weights(chain(Prune(), values=raw()))),
        ("weights(raw, other=planes(exponent=rans))", Weights(Recipe(raw()), other=chain(planes(), exponent=rans()))),
        ("4lc", Recipe(Knobs())),
        ("4lc(7, 0.25, word, true, [1, 2])", Recipe(Knobs(7, 0.25, "word", True, (1, 2)))),
        ("4lc(-5, 1e3)", Recipe(Knobs(-5, 1000.0))),
        ("4lc(rate=.5, sharp=false, codes=rans)", chain(Knobs(), codes=rans())),
        ("4lc(word='two words, (quoted) = fine')", Recipe(Knobs(word="two words, (quoted) = fine"))),
        ('4lc(word="it\'s")', Recipe(Knobs(word="it's"))),
    ],
)
def test_text_means_a_recipe_and_the_recipe_prints_as_text_of_the_same_meaning(source: str, recipe: object) -> None:
    mine = {"4lc": Knobs}
    assert recipe == parse(source, mine)
    assert recipe == parse(text(recipe), mine)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "bfloat16"])
def test_the_largest_of_gradients_of_any_type_are_coded(dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(64, 64)).astype(np.dtype(dtype))
    decoded = featherweight.decode(featherweight.encode(x, "topk(0.05)"))
    assert decoded.dtype == x.dtype
    assert 200 <= np.count_nonzero(decoded) <= 210


@pytest.mark.parametrize("states", [0, 3, 63, 256])
def test_a_recipe_names_itself_where_a_knob_is_wrong(states: int) -> None:
    with pytest.raises(ArgumentError, match=r"tcq\(states=\d+\): expected one of 4, 8"):
        parse(f"tcq(states={states})")


@pytest.mark.parametrize("value", ["False", "no", "0", "1", "0.5"])
def test_plain_is_true_or_false_and_no_word_for_them(value: str) -> None:
    with pytest.raises(ArgumentError, match=r"ecsq\(plain=.*\): expected true or false"):
        parse(f"ecsq(plain={value})")
    assert text(parse("ecsq(0.1, plain=false)")) == text(parse("ecsq(0.1)")) != text(parse("ecsq(0.1, plain=true)"))


def test_a_recipe_and_its_kernels_know_the_same_states() -> None:
    for states in _machines.STATES:
        parse(f"tcq(states={states})")
    with pytest.raises(ArgumentError, match=f"expected one of {', '.join(map(str, _machines.STATES))}$"):
        parse("tcq(states=5)")


def test_codecs_are_a_mapping() -> None:
    with pytest.raises(ArgumentError, match="a mapping from names to stage classes, not list"):
        parse("raw", [Knobs])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", codecs.names())
def test_no_parameter_has_the_name_of_a_stream(name: str) -> None:
    cls = stage(name)
    assert not {field.name for field in params(cls)} & {*streams_of(cls), "given"}


def test_every_knob_is_told_what_it_is() -> None:
    assert {knob for each in NAMED.values() for knob in inspect.signature(each.text).parameters} == KNOBS.keys()


@pytest.mark.parametrize(
    "recipe",
    [
        Knobs(word="true"),
        Knobs(word="false"),
        Knobs(word="12"),
        Knobs(word=""),
        Knobs(word="-1e5"),
        Knobs(word="a-b.c/d"),
        Knobs(word="@x"),
        Knobs(word="lossless"),
        Knobs(word="raw(3)"),
        Knobs(rate=1e-300),
        Knobs(rate=1),
        Knobs(rate=123456.789),
    ],
)
def test_any_value_of_a_parameter_survives_the_text(recipe: Knobs) -> None:
    assert Recipe(recipe) == parse(text(recipe), {"4lc": Knobs})


@pytest.mark.parametrize("name", NAMED)
def test_a_named_recipe_reads_and_its_text_reads_the_same(name: str) -> None:
    assert parse(name) == parse(text(parse(name)))
    assert NAMED[name].doc.endswith(".")
    assert name not in codecs.names(), "a name means one thing"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expected the name"),
        ("   ", "expected the name"),
        ("no-such-thing", "no recipe or stage is called 'no-such-thing'; there are .*huffman"),
        ("losless", r"did you mean 'lossless'\?$"),
        ("tcq(bits=3)", r"'bits': it has step, .*; for the whole file there is --bits, in Python goal=Goal\(bits=…\)"),
        ("lossless(bits=3)", "it has no parameters$"),
        ("raw raw", "'raw' follows the recipe"),
        ("raw)", r"'\)' follows"),
        ("planes(", "expected"),
        ("planes(exponent=", "expected"),
        ("planes(exponent=rans", "expected"),
        ("planes([8, 8)", "expected"),
        ("planes(exponent=rans mantissa=rans)", "expected ','"),
        ("planes(exponent=rans, exponent=rans)", "exponent is given twice"),
        ("planes([8, 8], widths=[8, 8])", "widths"),
        ("planes(exponent=rans, [8])", "without a key follows"),
        ("planes(colour=rans)", "'colour', which it does not have: it has widths.*exponent"),
        ("raw(1)", "takes 0 arguments"),
        ("planes(exponent=5)", "5 is no recipe"),
        ("planes([9])", "at most 8"),
        ("planes(8)", "expected a list"),
        ("planes(exponent=rans(given=[a, b, c, d]))", "takes 3 given"),
        ("raw(given=@base)", "takes 0 given"),
        ("delta(mode=sideways)", "one of auto, xor, arithmetic"),
        ("runs(least=1.5)", "expected int"),
        ("runs(least=true)", "expected int"),
        ("runs(least=0)", "at least 1"),
        ("split", "needs a recipe"),
        ("split()", "needs a recipe"),
        ("split(raw, 0)", "positive"),
        ("split(raw, size=x)", "positive"),
        ("split(raw, 1, 2)", "split"),
        ("split(split(raw))", "split"),
        ("split(raw, pieces=3)", "split: .*'pieces': it has recipe, size$"),
        ("auto(medium)", "one of fast, small"),
        ("auto(1, 2, 3)", "auto"),
        ("lossless(3)", "lossless: too many .*: it has no parameters$"),
        ("tcq(stp=1)", "tcq: .*'stp': it has step, nmse, states, rate, vectors$"),
        ("raw $", "not understood"),
        ("raw('open", "not understood"),
        ("5", "5"),
        ("1e5", "expected the name"),
        ("@base", "base"),
        ("'raw'", "expected the name"),
        ("planes(exponent='huffman')", "no recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_with_a_reason(source: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse(source)


def test_errors_show_the_recipe_and_the_place() -> None:
    with pytest.raises(ArgumentError, match=r"recipe 'planes\(exponent=hufman\)', at character 16: "):
        parse("planes(exponent=hufman)")


@pytest.mark.parametrize("opening", ["planes(exponent=", "split(", "planes([", "planes(widths=[["])
def test_nesting_without_end_is_refused(opening: str) -> None:
    with pytest.raises(ArgumentError):
        parse(opening * 100_000)


def test_thirty_two_levels_are_allowed() -> None:
    assert parse("planes(exponent=" * 31 + "raw" + ")" * 31)
    with pytest.raises(ArgumentError, match="deep"):
        parse("planes(exponent=" * 40 + "raw" + ")" * 40)


def test_encode_reads_text_and_the_codecs_of_the_caller() -> None:
    x = np.arange(5.0)
    frame = featherweight.encode(x, "4lc(codes=raw)", codecs={"4lc": Knobs})
    assert x.tolist() == featherweight.decode(frame, codecs={"4lc": Knobs.codec}).tolist()
    with pytest.raises(ArgumentError, match="4lc"):
        featherweight.encode(x, "4lc")


def test_chain_names_what_a_stage_does_not_have() -> None:
    with pytest.raises(ArgumentError, match="raw has no stream 'value': it has values"):
        chain(raw(), value=rans())
    with pytest.raises(ArgumentError, match="takes 0 given"):
        chain(raw(), given=("@base",))


def test_the_repr_of_a_recipe_evaluates_to_an_equal_recipe() -> None:
    recipe = Split(chain(planes((8, 8)), exponent=huffman(), mantissa=chain(rans(), given=("exponent",))), 99)
    names = {cls.__name__: cls for cls in (planes, huffman, rans)}
    assert recipe == eval(repr(recipe), {"chain": chain, "Split": Split, **names})


def test_an_integer_where_a_float_is_declared_is_that_float() -> None:
    x = np.random.default_rng(1).normal(size=(40, 40)).astype(np.float32)
    assert isinstance(parse("uniform(step=1)").stage.step, float)
    assert featherweight.encode(x, "ecsq(step=1)") == featherweight.encode(x, "ecsq(step=1.0)")


def test_auto_sets_bits_of_f16_apart_only_where_they_are_noise() -> None:
    rng = np.random.default_rng(3)
    noisy = rng.normal(0, 0.05, 1 << 16).astype(np.float16)
    below = 1 + rng.integers(0, 128, 1 << 16) / 1024  # the upper three bits of the mantissa are zero
    known = (below * np.exp2(rng.integers(-6, -2, 1 << 16)) * rng.choice([-1, 1], 1 << 16)).astype(np.float16)
    cuts = ((noisy, "lossless", [5, 3, 8]), (noisy, "lossless-small", [5, 4, 7]), (known, "lossless", [8, 8]))
    for x, recipe, widths in cuts:
        frame = featherweight.encode(x, recipe)
        assert [widths] in [node.wire for node in featherweight.inspect(frame).root.nodes]
        assert featherweight.decode(frame).tobytes() == x.tobytes()
    price = auto.APART_NS * auto.BITS_PER_NS["fast"] * noisy.size / 8
    assert len(featherweight.encode(noisy)) < len(featherweight.encode(noisy, "planes(exponent=huffman)")) + price


def test_small_codes_the_bytes_below_only_where_that_spares_something() -> None:
    noisy = np.random.default_rng(3).normal(0, 0.05, (512, 512)).astype(np.float32)
    coarse = np.rint(noisy * 2.0**22) / np.float32(2.0**22)
    for x, below in ((noisy, []), (coarse, ["rans", "rans"])):
        frame = featherweight.encode(x, "auto(small)")
        coders = [codecs.codec(node.codec).name for node in featherweight.inspect(frame).root.nodes]
        assert coders == ["rans", "rans", "rans", "scales", "rans", "bitpack", *below, "planes"]
        assert featherweight.decode(frame).tobytes() == x.tobytes()
