"""The engine: references, `out`, threads, pieces, given arrays, selectors, callers' codecs, and where errors point."""

import io
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import featherweight
from featherweight import Split, chain, codecs, decode, dtypes, encode, inspect
from featherweight.dtypes import Array
from featherweight.encoder import encode_into, step_of
from featherweight.errors import ArgumentError, BaseMismatchError, FeatherweightError, FrameError, UnsupportedError
from featherweight.frame import FLAT, GIVEN, REFERENCE, SPLIT, checksum, join, piece_shape, whole_rows
from featherweight.recipes import parse
from featherweight.stage import AnyRecipe, Codec, Empty, Encoded, Port, Recipe, Smallest, Wire, param
from featherweight.testing import arrays, layouts, same

stage = codecs.stage_class
planes, rans, huffman, runs, delta, scales, raw, constant = (
    stage(name) for name in ("planes", "rans", "huffman", "runs", "delta", "scales", "raw", "constant")
)


def weights(*shape: int, dtype: object = np.float32, seed: int = 5) -> Array:
    rng = np.random.Generator(np.random.Philox(seed))
    return (rng.standard_normal(shape) * 0.05).astype(dtype)


# Stages of somebody's own


class RoundedWire(Wire, frozen=True):
    step: float


def _unround(wire: RoundedWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    if streams[0].shape != out.shape:
        raise FrameError("another shape")
    np.multiply(streams[0], wire.step, out=out, casting="unsafe")


@dataclass(frozen=True)
class Rounded:
    """A lossy stage: multiples of a step."""

    codec: ClassVar[Codec] = Codec("rounded", RoundedWire, Port("values", "f"), (Port("levels", "i"),), _unround)
    step: float = param(0.5, lo=0.001, hi=8.0, doc="the distance between levels")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        return Encoded(RoundedWire(self.step), (np.rint(x / self.step).astype(np.int32),))

    def error_bound(self, x: Array, /) -> float:
        return self.step / 2


def _join(wire: Wire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    if len(streams) != 2 or streams[0].shape != out.shape or streams[0].shape != streams[1].shape:
        raise FrameError("another shape")
    np.add(streams[0], streams[1], out=out, casting="unsafe")


class NothingWire(Wire, frozen=True):
    pass


@dataclass(frozen=True)
class Halves:
    """Two arrays that sum to one."""

    codec: ClassVar[Codec] = Codec(
        "halves", NothingWire, Port("values", "f"), (Port("big", "f"), Port("small", "f")), _join
    )

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        big = np.rint(x)
        return Encoded(NothingWire(), (big, x - big))

    def error_bound(self, x: Array, /) -> float:
        return 0.0


def _relative(wire: Wire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    if not given or given[0].shape != out.shape or streams[0].shape != out.shape:
        raise FrameError("another shape")
    np.add(streams[0], given[0], out=out)


@dataclass(frozen=True)
class Relative:
    """The difference to what is given, which the decoder must have in the same words."""

    codec: ClassVar[Codec] = Codec(
        "relative", NothingWire, Port("values", "f"), (Port("rest", "f"),), _relative, (Port("other", "f"),)
    )

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        if not given or given[0].shape != x.shape:
            raise ArgumentError("relative needs an array of the same shape")
        return Encoded(NothingWire(), (x - given[0],))

    def error_bound(self, x: Array, /) -> float:
        return 0.0


HANDED = list[bool]()


def _hand_on_flat(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    HANDED.append(np.may_share_memory(streams[0], out))
    if streams[0].size != out.size:
        raise FrameError("other values")
    if not HANDED[-1]:
        out[...] = streams[0].reshape(out.shape)


@dataclass(frozen=True)
class HandedOnFlat:
    """The values as they are, in one dimension."""

    codec: ClassVar[Codec] = Codec(
        "handed_on_flat", Empty, Port("values", "f"), (Port("values", "f", 1),), _hand_on_flat, same=0
    )

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        return Encoded(Empty(), (x.reshape(-1),))

    def error_bound(self, x: Array, /) -> float:
        return 0.0


def _hand_on(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    HANDED.append(streams[0] is out)
    if streams[0] is not out:
        out[...] = streams[0]


@dataclass(frozen=True)
class HandedOn:
    """The values as they are."""

    codec: ClassVar[Codec] = Codec(
        "handed_on", Empty, Port("values", "f"), (Port("values", "f"),), _hand_on, (Port("other", "f"),), same=0
    )

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        return Encoded(Empty(), (x,))

    def error_bound(self, x: Array, /) -> float:
        return 0.0


MINE = {cls.codec.name: cls.codec for cls in (Rounded, Halves, Relative, HandedOn, HandedOnFlat)}


# References


def against(x: Array, base: Array, recipe: AnyRecipe | None = None) -> bytes:
    return encode(x, recipe or chain(delta(), given=("@base",)), refs={"base": base})


def test_a_frame_decodes_with_the_base_it_was_made_against_whatever_its_layout() -> None:
    base, x = weights(8, 6), weights(8, 6, seed=6)
    frame = against(x, base)
    assert ("base",) == inspect(frame).refs
    for same_base in (base, np.asfortranarray(base), base.astype(">f4")):
        assert same(x, decode(frame, refs={"base": same_base}))


def test_a_missing_base_is_asked_for_by_name() -> None:
    frame = against(weights(4), weights(4, seed=6))
    for refs in ({}, {"bass": weights(4)}):
        with pytest.raises(BaseMismatchError, match="base"):
            decode(frame, refs=refs)


@pytest.mark.parametrize("recipe", [None, Split(chain(delta(), given=("@base",)), 8)])
def test_a_base_that_differs_in_a_bit_a_shape_or_a_type_is_a_mismatch(recipe: AnyRecipe | None) -> None:
    x, base = weights(8, 6), weights(8, 6, seed=6)
    frame = against(x, base, recipe)
    changed = base.copy()
    changed.view(np.uint32)[5, 3] ^= 1
    for wrong in (changed, base.view(np.uint32), base[:7], base.T.copy(), base.reshape(-1), base.astype(np.float64)):
        with pytest.raises((BaseMismatchError, FrameError)) as caught:
            decode(frame, refs={"base": wrong})
        assert wrong is not changed or isinstance(caught.value, BaseMismatchError)


def test_references_that_no_stage_names_leave_no_trace() -> None:
    x = weights(9)
    assert encode(x, raw()) == encode(x, raw(), refs={"unused": weights(3), "other": weights(2)})
    both = encode(x, chain(delta(), given=("@b",)), refs={"a": weights(3), "b": weights(9, seed=8)})
    assert ("b",) == inspect(both).refs


def test_a_stream_may_be_given_a_later_one_and_one_that_is_left_out_is_given_to_nobody() -> None:
    uniform = "uniform(0.1, index=ggd(given=[row, column, place]))"
    scaled, split = parse(f"levels(values={uniform})"), parse(f"levels(values=split({uniform}, 300))")
    places = np.exp2(np.arange(9, dtype=np.float32)).reshape(3, 3)
    normal = np.random.default_rng(1).standard_normal((32, 32, 3, 3)).astype(np.float32)
    for x, levels in ((normal * places, 3), (normal[:, :, 0, 0], 2)):
        frame = encode(x, scaled)
        assert [len(node.given) for node in inspect(frame).root.nodes] == [levels, 0, 0]
        for coded in (frame, encode(x, split)):
            assert np.abs(decode(coded) - x).max() < 0.06


def test_a_given_name_that_nothing_has_is_refused_with_what_there_is() -> None:
    recipe = chain(planes(), exponent=huffman(), mantissa=chain(rans(), given=("exponents",)))
    with pytest.raises(
        ArgumentError, match="given=exponents names no earlier stream; there are: exponent, @base"
    ) as caught:
        encode(weights(50, dtype=np.float16), recipe, refs={"base": weights(3)})
    assert caught.value.path.startswith("planes/mantissa/rans")


# out


def test_out_is_filled_and_returned() -> None:
    x = weights(30, 7)
    for recipe in ("raw", "lossless", "split(planes, 64)", "constant"):
        array = np.full_like(x, 0.25) if recipe == "constant" else x
        out = np.full_like(array, np.nan)
        assert out is decode(encode(array, recipe), out=out)
        assert same(array, out)


def test_out_that_does_not_fit_is_the_callers_mistake() -> None:
    x = weights(6, 4)
    frame = encode(x, raw())
    frozen = np.empty_like(x)
    frozen.flags.writeable = False
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    wrong = [
        np.empty((4, 6), np.float32),
        np.empty(24, np.float32),
        np.empty((6, 4), np.int32),
        np.empty((6, 4), ">f4"),
        np.empty((6, 4), np.float32, order="F"),
        np.empty((6, 8), np.float32)[:, ::2],
        frozen,
        unaligned,
        x.tolist(),
        bytearray(x.nbytes),
    ]
    for out in wrong:
        with pytest.raises(ArgumentError) as caught:
            decode(frame, out=out)
        assert "out" == caught.value.path


def test_out_that_overlaps_the_frame_or_a_reference_is_refused() -> None:
    x = np.arange(64, dtype=np.uint8)
    buffer = bytearray(encode(x, raw()))
    with pytest.raises(ArgumentError, match="overlaps"):
        decode(buffer, out=np.frombuffer(buffer, np.uint8)[-64:])
    base = x.copy()
    frame = against(x, base)
    with pytest.raises(ArgumentError, match="overlaps"):
        decode(frame, out=base, refs={"base": base})


# Threads and pieces


@pytest.mark.parametrize("recipe", ["lossless", "lossless-small", "split(planes(exponent=huffman), 5000)"])
@pytest.mark.parametrize("shape", [(1 << 20,), (1024, 700), (3, 300_000), (7, 100, 800)])
def test_any_number_of_threads_gives_the_same_bytes_and_the_same_array(recipe: str, shape: tuple[int, ...]) -> None:
    x = weights(*shape, dtype=dtypes.of("BF16").dtype)
    frames = [encode(x, recipe, threads=threads) for threads in (1, 2, 5, None)]
    assert 1 == len(set(frames))
    for threads in (1, 2, 5, None):
        assert same(x, decode(frames[0], threads=threads))


def test_no_threads_is_not_a_number_of_threads() -> None:
    with pytest.raises(ArgumentError, match="threads"):
        encode(weights(1 << 18), threads=0)
    with pytest.raises(ArgumentError, match="threads"):
        decode(encode(weights(4)), threads=-1)


@given(st.lists(st.integers(0, 40), max_size=4).map(tuple), st.integers(1, 3000))
def test_pieces_are_whole_rows_where_a_row_fits_and_cover_the_array(shape: tuple[int, ...], size: int) -> None:
    total, row = int(np.prod(shape)), int(np.prod(shape[1:]))
    step = step_of(shape, size)
    assert step <= max(size, 0) or total == 0
    if len(shape) > 1 and 0 < row <= size:
        assert 0 == step % row
    pieces = [piece_shape(shape, step, start) for start in range(0, total, step or 1)]
    assert total == sum(int(np.prod(piece)) for piece in pieces)
    for piece in pieces:
        if whole_rows(shape, step):
            assert shape[1:] == piece[1:]
        else:
            assert (256,) == piece[1:] or piece[0] % 256


@pytest.mark.parametrize(
    ("shape", "size", "pieces"), [((10, 6), 12, 5), ((10, 6), 5, 12), ((100,), 30, 4), ((4, 3), 100, 0), ((0, 5), 2, 0)]
)
def test_an_edge_is_cut_into_pieces_of_one_program(shape: tuple[int, ...], size: int, pieces: int) -> None:
    x = weights(*shape)
    frame = encode(x, Split(planes(), size))
    head = inspect(frame)
    assert ([pieces] if pieces else []) == [len(split.pieces) for split in head.splits]
    assert len(head.branches) == bool(pieces)
    assert same(x, decode(frame))


def test_a_stream_is_split_below_what_belongs_to_the_whole() -> None:
    x = weights(64, 32, dtype=np.float16)
    recipe = chain(planes(), exponent=Split(huffman(), 256), mantissa=Split(chain(rans(), given=("exponent",)), 128))
    frame = encode(x, recipe)
    head = inspect(frame)
    assert [8, 16] == [len(split.pieces) for split in head.splits]
    assert [SPLIT, SPLIT] == [leaf[0] for leaf in head.root.leaves]
    assert any(leaf[0] == GIVEN for branch in head.branches for leaf in branch.leaves)
    assert same(x, decode(frame, threads=3))


@pytest.mark.parametrize("size", [7, 32, 96, 1000, 1 << 20])
@pytest.mark.parametrize("shape", [(20, 32), (640,), (5, 4, 32)])
def test_what_is_given_across_a_split_reaches_each_piece_in_its_part(shape: tuple[int, ...], size: int) -> None:
    x, base = weights(*shape, dtype=np.float16), weights(*shape, dtype=np.float16, seed=9)
    inner = chain(rans(), given=("exponent",))
    frames = [
        encode(x, chain(planes(), exponent=huffman(), mantissa=Split(inner, size))),
        encode(x, chain(planes(), mantissa=Split(inner, size))),
        encode(x, Split(chain(delta(), given=("@base",), difference=planes()), size), refs={"base": base}),
        encode(x, Split(chain(planes(), exponent=rans(), mantissa=inner), size)),
    ]
    for frame in frames:
        assert same(x, decode(frame, refs={"base": base}))


def test_an_edge_is_split_once() -> None:
    with pytest.raises(ArgumentError, match="split"):
        Split(Split(raw()))
    with pytest.raises(ArgumentError, match="once"):
        encode(weights(100), Split(chain(planes(), exponent=Split(raw(), 5)), 50))


def test_the_frame_of_one_stage_costs_less_than_forty_bytes() -> None:
    x = np.frombuffer(bytes(range(256)), np.uint8).reshape(16, 16)
    for recipe in (raw(), Split(raw(), 1 << 20)):
        assert len(encode(x, recipe)) < 256 + 40
    assert len(encode(np.zeros((16, 16)), constant())) < 40
    assert len(encode(x, planes())) < 256 + 40


# Lossy stages, given siblings


def test_a_sibling_that_is_coded_lossily_is_given_as_the_decoder_will_have_it() -> None:
    x = weights(300) * 100
    recipe = chain(Halves(), big=Rounded(4.0), small=chain(Relative(), given=("big",)))
    decoded = decode(encode(x, recipe), codecs=MINE)
    big, small = np.rint(x), x - np.rint(x)
    lossy = (np.rint(big / 4.0) * 4.0).astype(np.float32)
    assert np.allclose(lossy + ((small - lossy) + lossy), decoded, rtol=0, atol=1e-4)
    assert not np.allclose(x, decoded, rtol=0, atol=0.5)
    assert np.abs(x - decoded).max() <= 2.001


def test_what_a_further_stage_makes_lossy_is_known_above_it() -> None:
    x = weights(300) * 100
    inner = chain(Halves(), big=Rounded(4.0))
    recipe = chain(Halves(), big=inner, small=chain(Relative(), given=("big",)))
    decoded = decode(encode(x, recipe), codecs=MINE)
    assert np.abs(x - decoded).max() <= 2.001


def test_an_error_bound_is_kept_through_frames_and_pieces() -> None:
    x = weights(40, 50)
    for recipe in (Rounded(0.01), chain(Rounded(0.01), levels=planes()), Split(Rounded(0.01), 200)):
        decoded = decode(encode(x, recipe), codecs=MINE)
        assert np.abs(x - decoded).max() <= 0.005 + 1e-7


def test_bytes_that_a_lossy_stage_would_spoil_are_refused_when_they_are_encoded() -> None:
    spoilt = chain(stage("bzip2")(), payload=chain(raw(), values=stage("bloomier")(extra=1)))
    with pytest.raises(ArgumentError, match="bzip2: what its streams go into is lossy"):
        encode(np.zeros(3, bool), spoilt)


def test_pieces_that_are_lossy_are_given_as_the_decoder_will_have_them() -> None:
    x = weights(50) * 100
    recipe = chain(Halves(), big=Split(Rounded(4.0), 10), small=chain(Relative(), given=("big",)))
    assert np.abs(x - decode(encode(x, recipe), codecs=MINE)).max() <= 2.001


def test_the_error_of_complex_numbers_is_that_of_both_parts() -> None:
    x = (weights(300) + 1j * weights(300, seed=8)).astype(np.complex64)
    recipe = chain(stage("narrow")(), wide=chain(raw(), values=stage("uniform")(0.01)))
    coded = encode_into(len, x, recipe, refs={}, measure=True)
    decoded = decode(encode(x, recipe))
    assert coded.error is not None
    assert np.isclose(coded.error.noise, float((np.abs(x - decoded) ** 2).sum()), rtol=1e-4)
    assert np.isclose(coded.error.largest, float(np.abs(x - decoded).max()), rtol=1e-4)


# Rewrites, choices by size, measured errors


@dataclass(frozen=True)
class Floor:
    """Set to zero what lies below a given floor, else below 1."""

    name: ClassVar[str] = "floor"
    given: ClassVar[tuple[Port, ...]] = (Port("floor", "f"),)

    def rewrite(self, x: Array, /, *given: Array) -> Array:
        return np.where(np.abs(x) < (given[0] if given else 1), x.dtype.type(0), x)


def test_a_rewrite_changes_what_is_coded_and_leaves_nothing_in_the_frame() -> None:
    x = weights(300) * 100
    expected = np.where(np.abs(x) < 1, np.float32(0), x)
    assert same(expected, decode(encode(x, chain(Floor()))))
    assert same(expected, decode(encode(x, chain(Floor(), values=planes()))))
    assert encode(expected, planes()) == encode(x, chain(Floor(), values=planes()))
    given = {"floor": np.float32(2.0)}
    frame = encode(x, chain(Floor(), given=("@floor",), values=planes()), refs=given)
    assert same(np.where(np.abs(x) < 2, np.float32(0), x), decode(frame))  # decoding needs no floor


def test_what_a_rewrite_changes_is_not_exact_above_it() -> None:
    x = weights(300) * 100
    recipe = chain(Halves(), big=chain(Floor()), small=chain(Relative(), given=("big",)))
    assert np.allclose(x, decode(encode(x, recipe), codecs=MINE), rtol=0, atol=1e-4)


def test_a_rewrite_that_changes_the_shape_is_refused() -> None:
    @dataclass(frozen=True)
    class Flat(Floor):
        name: ClassVar[str] = "flat"

        def rewrite(self, x: Array, /, *given: Array) -> Array:
            return x.reshape(-1)

    with pytest.raises(ArgumentError, match="made float32") as caught:
        encode(weights(4, 5), chain(Flat()))
    assert caught.value.path == "flat"


@pytest.mark.parametrize("whole", [True, False])
def test_smallest_codes_as_its_smallest_recipe_alone_would(whole: bool) -> None:
    x = np.zeros(5000, np.uint8)
    x[::7] = 3
    ways: list[Any] = [raw(), stage("huffman")(), stage("rans")(), chain(planes(), exponent=stage("rans")())]
    ways = ways if whole else [Split(way, 1000) for way in ways]
    sizes = [len(encode(x, way)) for way in ways]
    frame = encode(x, Smallest(tuple(ways)))
    assert len(frame) == min(sizes)
    assert same(x, decode(frame))
    pieces = encode(x, Split(Smallest((raw(), stage("rans")())), 1000)) if whole else frame
    assert same(x, decode(pieces))


def test_smallest_leaves_out_what_does_not_take_the_array() -> None:
    narrow, other = stage("cast")("bf16"), raw()
    for x, recipe in ((weights(300), narrow), (weights(300).astype(np.float16), other)):
        assert encode(x, Smallest((narrow, other))) == encode(x, recipe)
        assert encode(x, Smallest((other, narrow))) == encode(x, recipe)
    with pytest.raises(ArgumentError, match="takes wider types"):
        encode(weights(3).astype(np.float16), Smallest((narrow, huffman())))


def test_what_is_no_bytes_is_no_frame() -> None:
    for call in (decode, featherweight.inspect, lambda frame: featherweight.lookup(frame, 0)):
        with pytest.raises(ArgumentError, match=r"expected the bytes of a frame, not str; open\(\) reads files"):
            call("model.fw")  # type: ignore[operator]
    file = io.BytesIO()
    featherweight.save_file({"x": weights(3)}, file)
    with pytest.raises(FrameError, match=r"not a featherweight frame.*this is a \.fw file: open\(\) reads it"):
        decode(file.getvalue())


def test_smallest_tries_no_more_once_one_is_small_enough() -> None:
    x = np.zeros(5000, np.uint8)
    x[::7] = 3
    fine, tiny = stage("huffman")(), stage("rans")()
    share = (len(encode(x, fine)) - 30) / x.nbytes, len(encode(x, fine)) / x.nbytes
    assert len(encode(x, tiny)) < share[0] * x.nbytes
    assert encode(x, Smallest((fine, tiny), share[1])) == encode(x, fine)
    assert encode(x, Smallest((fine, tiny), share[0] / 2)) == encode(x, tiny)
    assert encode(x, Smallest((tiny, NeverAsked()), 1.0)) == encode(x, tiny)
    for wrong in (-0.1, 1.5, float("nan"), True, "half"):
        with pytest.raises(ArgumentError, match="expected a share"):
            Smallest((fine, tiny), wrong)  # type: ignore[arg-type]


class NeverAsked:
    def choose(self, x: Array, /) -> None:
        raise AssertionError("enough was not enough")


def test_smallest_inside_a_stage_keeps_to_the_numbers_of_its_edges() -> None:
    x = weights(40, 50).astype(dtypes.of("BF16").dtype)
    coders = Smallest((stage("huffman")(), chain(stage("rans")(), given=("exponent",)), raw()))
    recipe = chain(planes(), exponent=Smallest((raw(), stage("rans")())), mantissa=coders)
    assert same(x, decode(encode(x, recipe)))


@pytest.mark.parametrize("recipe", [Smallest, Split], ids=["smallest", "split"])
def test_the_error_of_lossy_coding_is_measured_where_it_is_asked_for(recipe: Any) -> None:
    x = weights(60, 50)
    ways = {Smallest: Smallest((Rounded(0.01),)), Split: Split(Rounded(0.01), 700)}
    body: list[Array] = []
    coded = encode_into(body.append, x, ways[recipe], refs={}, measure=True)
    decoded = decode(join(coded.frame, body), codecs=MINE)
    errors = decoded.astype("f8") - x
    assert coded.error is not None
    assert not coded.exact
    assert np.allclose(coded.error, [(errors**2).sum(), (x.astype("f8") ** 2).sum(), abs(errors).max()], rtol=1e-9)
    lossless = encode_into(body.append, x, Split(planes(), 700), refs={}, measure=True)
    assert (lossless.exact, lossless.error) == (True, None)


# The caller's own codecs


def test_a_codec_of_the_callers_travels_by_name_and_is_asked_for_by_name() -> None:
    x = weights(20)
    frame = encode(x, chain(Rounded(0.25), levels=planes()))
    assert ["planes", "rounded"] == [codecs.CODECS.get(node.codec, node.codec) for node in inspect(frame).root.nodes]
    with pytest.raises(UnsupportedError, match=r"'rounded'.*codecs="):
        decode(frame)
    assert np.abs(x - decode(frame, codecs=MINE)).max() <= 0.125


@pytest.mark.parametrize("values", [chain(planes(), exponent=rans()), None], ids=["made", "stored"])
def test_what_a_codec_hands_on_is_decoded_straight_into_the_result(values: AnyRecipe | None) -> None:
    x = weights(30, 40)
    HANDED.clear()
    assert same(x, decode(encode(x, chain(HandedOn(), values=chain(HandedOn(), values=values))), codecs=MINE))
    assert HANDED == ([True, True] if values else [False, True])


def test_what_a_codec_hands_on_in_the_midst_of_a_program_is_not_copied() -> None:
    x = np.rint(weights(30, 40) * 64) / 4 + 0  # the halves sum to it again: there is no -0.0
    twice = chain(HandedOn(), values=chain(HandedOn(), values=chain(planes())))
    HANDED.clear()
    assert same(x, decode(encode(x, chain(Halves(), big=twice, small=twice)), codecs=MINE))
    assert HANDED == [True] * 4


def test_what_is_handed_on_in_another_shape_is_not_copied_either() -> None:
    x, body = weights(30, 40), list[Array]()
    HANDED.clear()
    assert same(x, decode(encode(x, chain(HandedOnFlat(), values=chain(planes()))), codecs=MINE))
    coded = encode_into(body.append, x, chain(HandedOnFlat(), values=Rounded(0.01)), refs={}, measure=True)
    assert coded.error is not None
    assert 0 < coded.error.largest < 0.0051
    assert HANDED == [True, True]
    assert same(x, weights(30, 40))


def test_a_piece_of_another_size_than_its_program_hands_on_is_refused() -> None:
    x, body = weights(31, 40), list[Array]()
    frame = encode_into(body.append, x, Split(chain(HandedOnFlat(), values=chain(planes())), 500), refs={}).frame
    (split,) = frame.splits
    assert [piece[0] for piece in split.pieces] == [0, 0, 1]
    pieces = (*split.pieces[:-1], (0, *split.pieces[-1][1:]))
    frame = replace(frame, splits=(replace(split, pieces=pieces),), branches=frame.branches[:1])
    with pytest.raises(FrameError, match="handed on"):
        decode(join(frame, body), codecs=MINE)


def test_what_is_handed_on_and_lossy_is_measured_as_it_decodes() -> None:
    x, body = weights(30, 40), list[Array]()
    coded = encode_into(body.append, x, chain(HandedOn(), values=Rounded(0.01)), refs={}, measure=True)
    decoded = decode(join(coded.frame, body), codecs=MINE)
    assert coded.error is not None
    assert 0 < coded.error.largest < 0.0051
    assert np.isclose(coded.error.noise, np.square(x.astype("f8") - decoded).sum())
    assert same(x, weights(30, 40))  # the source is as it was


def test_what_another_codec_needs_too_is_not_written_over() -> None:
    x, body = weights(30, 40), list[Array]()
    frame = encode_into(body.append, x, chain(HandedOn(), values=chain(planes())), refs={}).frame
    *others, last = frame.root.nodes
    frame = replace(frame, root=replace(frame.root, nodes=(*others, replace(last, given=last.streams))))
    HANDED.clear()
    assert same(x, decode(join(frame, body), codecs=MINE))
    assert HANDED == [False]


def test_a_codec_of_the_callers_with_a_name_of_ours_is_not_taken_for_ours() -> None:
    def decode_backwards(wire: Wire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
        out[...] = streams[0][::-1]

    @dataclass(frozen=True)
    class Raw:
        codec: ClassVar[Codec] = Codec("raw", NothingWire, Port("values"), (Port("values", ndim=1),), decode_backwards)

        def encode(self, x: Array, /, *given: Array) -> Encoded:
            return Encoded(NothingWire(), (x[::-1],))

        def error_bound(self, x: Array, /) -> float:
            return 0.0

    x = weights(5)
    frame = encode(x, Raw())
    assert same(x, decode(frame, codecs={"raw": Raw.codec}))
    with pytest.raises(UnsupportedError, match="raw"):
        decode(frame)


# Selectors


@dataclass(frozen=True)
class Judge:
    """Chooses by size, through another selector."""

    limit: int = 10

    def choose(self, x: Array, /) -> object:
        return None if x.size < self.limit else Judge(1 << 60) if x.size == 99 else planes()


@dataclass(frozen=True)
class Endless:
    def choose(self, x: Array, /) -> object:
        return self


def test_selectors_vanish() -> None:
    few, many, odd = weights(5), weights(50), weights(99)
    assert encode(few, raw())[-20:] == encode(few, Judge())[-20:]
    assert not inspect(encode(few, Judge())).root.nodes
    assert encode(many, planes()) == encode(many, Judge())
    assert not inspect(encode(odd, Judge())).root.nodes
    for x in (few, many, odd):
        assert same(x, decode(encode(x, Judge())))
        assert same(x, decode(encode(x, chain(planes(), exponent=Judge(), mantissa=Judge()))))


def test_a_selector_that_never_decides_is_stopped() -> None:
    with pytest.raises(ArgumentError, match="selector"):
        encode(weights(5), Endless())


# Errors and frames


def test_errors_name_the_place_in_the_graph() -> None:
    x = weights(8, 8)
    with pytest.raises(ArgumentError) as caught:
        encode(x, chain(planes(), exponent=chain(planes(), exponent=constant())))
    assert "planes/exponent/planes/exponent/constant" == caught.value.path
    with pytest.raises(ArgumentError) as caught:
        encode(x, huffman())
    assert "huffman" == caught.value.path
    with pytest.raises(ArgumentError) as caught:
        encode(x, Split(chain(planes(), mantissa=constant()), 16))
    assert "planes/mantissa/constant" == caught.value.path


def test_errors_of_decoding_name_the_codec() -> None:
    frame = bytearray(encode(np.zeros(10), constant()))
    head = inspect(bytes(frame))
    assert ((FLAT, 12),) == head.root.leaves
    body = bytes(16)
    wrong = join(replace(head, record=(checksum(body), 16)), [body])
    with pytest.raises(FrameError) as caught:
        decode(wrong)
    assert "constant" == caught.value.path


def test_what_is_no_recipe_and_what_is_no_array_is_refused() -> None:
    with pytest.raises(ArgumentError):
        encode(weights(3), "no such recipe")
    for dtype in ("U1", object, "M8[s]", [("a", "f4")], "g"):
        x = np.zeros(3, dtype)
        with pytest.raises(ArgumentError, match="dtype"):
            encode(x, raw())


def test_what_is_damaged_is_called_so_whatever_a_codec_makes_of_it() -> None:
    symbols = np.random.default_rng(0).geometric(0.4, 40_000).clip(0, 30).astype(np.uint8)
    frame = bytearray(encode(symbols, Split(huffman(), size=1 << 14)))
    said = set()
    for place in range(len(frame) - 12_000, len(frame), 97):
        frame[place] ^= 0x10
        with pytest.raises(FrameError, match="do not match their checksum") as caught:
            decode(bytes(frame))
        said.add(type(caught.value.__context__))
        frame[place] ^= 0x10
    assert said == {type(None), FrameError}  # the codec saw some of it


def test_an_interrupt_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = np.random.default_rng(0).geometric(0.4, 40_000).clip(0, 30).astype(np.uint8)
    frame = bytearray(encode(symbols, Split(huffman(), size=1 << 14)))
    frame[-1] ^= 1

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featherweight.codecs._kernels.huffman.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(bytes(frame), threads=1)


def test_errors_travel_between_processes_with_their_place() -> None:
    error = FrameError("damaged", path="planes/exponent")
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), error.path) == (type(again), str(again), again.path)
    with pytest.raises(TypeError, match="abstract"):
        FeatherweightError("nobody's fault")


@given(arrays(), st.data())
def test_a_stored_array_of_any_type_and_shape_comes_back(x: Array, data: st.DataObject) -> None:
    for recipe in (Recipe(raw()), Split(raw(), max(1, x.size // 3)), Judge(1 << 60)):
        frame = encode(x, recipe)
        assert same(x, decode(frame))
        assert frame == encode(data.draw(layouts(dtypes.native(x))), recipe)


def test_inspect_runs_no_codec_and_says_what_there_is() -> None:
    head = inspect(encode(weights(4, 5), Rounded()))
    assert (np.dtype(np.float32), (4, 5)) == head.spec
    assert 80 == head.nbytes
    assert "rounded" == head.root.nodes[0].codec
    assert featherweight.inspect is inspect
    assert REFERENCE not in {leaf[0] for leaf in head.root.leaves}


class Extravagant(Rounded):
    """Makes more streams than its codec has."""

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        made = super().encode(x)
        return Encoded(made.wire, (*made.streams, *made.streams))


def test_more_streams_than_a_codec_has_are_refused() -> None:
    with pytest.raises(ArgumentError, match="rounded: it made 2 streams, its codec has 1"):
        encode(weights(3), Extravagant())
