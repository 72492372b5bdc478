"""safetensors: our reader and writer against the real library, and against files that lie."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from checkpoints import (
    KINDS,
    again,
    arrays,
    entry,
    file_of,
    library_bytes,
    library_kinds,
    load,
    metadatas,
    names,
    random_array,
    same,
    save,
)
from hypothesis import given
from hypothesis import strategies as st

from featherweight import dtypes
from featherweight.dtypes import pack, unpack
from featherweight.errors import ArgumentError, FrameError, TruncatedError, UnsupportedError
from featherweight.formats import open_checkpoint, tensor_info, write_checkpoint
from featherweight.formats._elements import destination, read_elements


@given(tensors=st.dictionaries(names, arrays(), max_size=5), metadata=metadatas)
def test_what_we_write_we_read(tensors, metadata):
    file = io.BytesIO()
    save(file, tensors, metadata, format="safetensors")
    with open_checkpoint(file) as checkpoint:
        assert dict(checkpoint.metadata) == metadata
        assert checkpoint.layout == b""
        assert checkpoint.canonical
    assert same(load(file), tensors)


@given(tensors=st.dictionaries(names, arrays(library_kinds), max_size=6), metadata=metadatas)
def test_our_bytes_are_the_librarys(tensors, metadata):
    theirs = library_bytes(tensors, metadata or None)
    with open_checkpoint(io.BytesIO(theirs)) as checkpoint:
        assert checkpoint.layout == b""
        assert dict(checkpoint.metadata) == metadata
        ordered = dict(checkpoint.metadata)  # the library's order is drawn by lot
    assert same(load(io.BytesIO(theirs)), tensors)
    ours = io.BytesIO()
    save(ours, tensors, ordered, format="safetensors")
    assert ours.getvalue() == theirs


def test_element_types_are_sorted_as_the_library_sorts_them():
    tensors = {f"{name}{kind.name}": random_array(kind, (4,)) for kind in library_kinds for name in "ba"}
    file = io.BytesIO()
    save(file, tensors, format="safetensors")
    assert file.getvalue() == library_bytes(tensors)


def test_the_librarys_numpy_reader_reads_ours(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy")
    tensors = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(2, ml_dtypes.bfloat16), "c": np.int8(3)}
    save(tmp_path / "x.safetensors", tensors, {"format": "np"})
    assert same(theirs.load_file(tmp_path / "x.safetensors"), {name: np.asarray(x) for name, x in tensors.items()})


def test_sub_byte_elements_fill_a_byte_from_below():
    assert pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 3]
    assert pack(np.array([1, 2, 3, 0], np.uint8), 2).tolist() == [0b00111001]
    assert pack(np.array([0x3F, 0, 0x21, 0], np.uint8), 6).tolist() == [0x3F, 0x10, 0x02]
    for bits in (2, 4, 6):
        for count in (*range(9), 1001):
            values = np.random.default_rng(count).integers(0, 1 << bits, count, np.uint8)
            flags = np.unpackbits(values[:, None], axis=1, count=bits, bitorder="little")
            assert np.array_equal(pack(values, bits), np.packbits(flags.reshape(-1), bitorder="little"))
            assert np.array_equal(unpack(pack(values, bits), bits, count), values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_range_can_be_read(kind, tmp_path):
    array = random_array(kind, (44,))
    save(tmp_path / "x.safetensors", {"odd": np.zeros(3, np.uint8), "w": array})
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        for start, stop in [(0, 44), (1, 2), (5, 5), (7, 43), (43, 44), (44, 44)]:
            part = checkpoint.read("w", start, stop)
            assert part.dtype == kind.dtype
            assert part.tobytes() == array[start:stop].tobytes()
            assert not part.flags.writeable
        for start, stop in [(-1, 3), (3, 2), (0, 45)]:
            with pytest.raises(ArgumentError, match="w"):
                checkpoint.read("w", start, stop)
        with pytest.raises(ArgumentError, match="absent"):
            checkpoint.read("absent")


def test_local_elements_are_views_of_the_map_and_may_outlive_it(tmp_path):
    save(tmp_path / "x.safetensors", {"w": np.arange(100.0)})
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        whole = checkpoint.read("w")
        assert np.shares_memory(whole, checkpoint.read("w", 50, 60))
    assert whole.sum() == 4950
    with pytest.raises(ArgumentError, match="closed"):
        checkpoint.read("w")


def test_tensors_are_decoded_into_the_map(tmp_path):
    infos = [tensor_info("w", dtypes.of("F32"), (5,)), tensor_info("v", dtypes.of("F4"), (6,))]
    with write_checkpoint(tmp_path / "x.safetensors", infos) as out:
        with out.tensor("w") as w:
            assert not w.flags.owndata
            w[:] = 7
        with out.tensor("v") as v:
            assert (v.dtype, v.shape) == (ml_dtypes.float4_e2m1fn, (6,))
            v[:] = 1.5
    assert [x.tolist() for x in load(tmp_path / "x.safetensors").values()] == [[7.0] * 5, [1.5] * 6]


ONE = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
ODD_BUT_LAWFUL = {
    "spaces": file_of(f"{{ \n{ONE} }}  \n", b"1"),
    "fields in another order": file_of('{"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}}', b"1"),
    "a field that nobody knows": file_of({"a": entry(extra=[{}])}, b"1"),
    "tensors in another order": file_of({"b": entry(), "a": entry(data_offsets=(1, 2))}, b"12"),
    "header not in the order of data": file_of({"b": entry(data_offsets=(1, 2)), "a": entry()}, b"12"),
    "metadata at the end": file_of(f'{{{ONE},"__metadata__":{{"b":"c"}}}}', b"1"),
    "empty metadata": file_of({"__metadata__": {}, "a": entry()}, b"1"),
    "no padding": file_of(f"{{{ONE}}}", b"1"),
    "unaligned": file_of({"z": entry(), "a": entry("F32", (1,), (1, 5))}, b"12345"),
    "escapes": file_of('{"\\u0061\\/":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
    "empty tensors": file_of(
        {"c": entry(shape=[0], data_offsets=[0, 0]), "a": entry(), "b": entry(shape=[3, 0], data_offsets=[0, 0])}, b"1"
    ),
    "a boolean of 2": file_of({"a": entry("BOOL")}, b"\2"),
    "nothing": file_of("{}"),
}


@pytest.mark.parametrize("source", ODD_BUT_LAWFUL.values(), ids=ODD_BUT_LAWFUL)
def test_files_of_other_writers_come_back_byte_for_byte(source, tmp_path):
    again(io.BytesIO(source), tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == source
    assert open_checkpoint(tmp_path / "x.safetensors").canonical


def test_only_the_order_is_kept_where_only_the_order_differs():
    file = io.BytesIO()
    save(file, {"a": np.zeros(1, np.uint8), "b": np.zeros(1, np.uint8)}, format="safetensors")
    swapped = io.BytesIO(file.getvalue().replace(b'"a"', b'"c"'))
    assert len(open_checkpoint(swapped).layout) < 20
    copy = io.BytesIO()
    again(swapped, copy)
    assert copy.getvalue() == swapped.getvalue()


MALFORMED = {
    "not an object": (file_of("[]"), FrameError, "begin with"),
    "a space first": (file_of(" {}"), FrameError, "begin with"),
    "a byte order mark": (file_of("\ufeff{}"), FrameError, "begin with"),
    "an empty header": (file_of(""), FrameError, "begin with"),
    "not JSON": (file_of("{,}"), FrameError, "not JSON"),
    "something after it": (file_of("{}\0"), FrameError, "not JSON"),
    "two objects": (file_of("{}{}"), FrameError, "not JSON"),
    "not UTF-8": (file_of(b'{"\xff":1}'), FrameError, "UTF-8"),
    "deep": (file_of('{"a":' + "[" * 200_000), FrameError, "not JSON"),
    "a number without end": (file_of('{"a":' + "1" * 9999 + "}"), FrameError, "not JSON"),
    "NaN": (file_of('{"a":NaN}'), FrameError, "NaN"),
    "a tensor twice": (file_of(f"{{{ONE},{ONE}}}", b"1"), FrameError, "'a' twice"),
    "a field twice": (file_of('{"a":{"dtype":"U8","dtype":"U8"}}'), FrameError, "'dtype' twice"),
    "metadata twice": (file_of('{"__metadata__":{},"__metadata__":{}}'), FrameError, "twice"),
    "a key of metadata twice": (file_of('{"__metadata__":{"a":"b","a":"c"}}'), FrameError, "'a' twice"),
    "metadata null": (file_of('{"__metadata__":null}'), FrameError, "__metadata__"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 1}}), FrameError, "__metadata__"),
    "half a character": (file_of('{"\\ud800":1}'), FrameError, "not Unicode"),
    "half a character of metadata": (file_of('{"__metadata__":{"a":"\\ud800"}}'), FrameError, "__metadata__"),
    "a list for a tensor": (file_of({"a": ["U8", [1], [0, 1]]}), FrameError, "a: expected dtype"),
    "no dtype": (file_of({"a": {"shape": [1], "data_offsets": [0, 1]}}), FrameError, "a: expected dtype"),
    "no shape": (file_of({"a": {"dtype": "U8", "data_offsets": [0, 1]}}), FrameError, "a: expected dtype"),
    "no offsets": (file_of({"a": {"dtype": "U8", "shape": [1]}}), FrameError, "a: expected dtype"),
    "an unknown dtype": (file_of({"a": entry("F128")}, b"1"), UnsupportedError, "a: element type 'F128'"),
    "our own dtype": (file_of({"a": entry("U4", (2,))}, b"1"), UnsupportedError, "a: element type 'U4'"),
    "a number for a dtype": (file_of({"a": entry(1)}, b"1"), FrameError, "a: 1 is no element type"),
    "a negative dimension": (file_of({"a": entry(shape=[-1])}, b"1"), FrameError, "a: shape"),
    "a dimension of 1.0": (file_of({"a": entry(shape=[1.0])}, b"1"), FrameError, "a: shape"),
    "a dimension of true": (file_of({"a": entry(shape=[True])}, b"1"), FrameError, "a: shape"),
    "a dimension of '1'": (file_of({"a": entry(shape=["1"])}, b"1"), FrameError, "a: shape"),
    "a number for a shape": (file_of({"a": entry(shape=1)}, b"1"), FrameError, "a: shape"),
    "a huge dimension": (file_of({"a": entry(shape=[1 << 64])}, b"1"), FrameError, "a: shape"),
    "an overflow": (file_of({"a": entry(shape=[1 << 32, 1 << 32])}, b"1"), FrameError, "a: no array"),
    "an overflow to one": (file_of({"a": entry(shape=[(1 << 63) + 1, 2])}, b"1"), FrameError, "a: no array"),
    "an empty overflow": (file_of({"a": entry(shape=[0, 1 << 62, 4], data_offsets=[0, 0])}), FrameError, "no array"),
    "65 dimensions": (file_of({"a": entry(shape=[1] * 65)}, b"1"), UnsupportedError, "a: 65 dimensions"),
    "three offsets": (file_of({"a": entry(data_offsets=[0, 1, 2])}, b"1"), FrameError, "a: data_offsets"),
    "a negative offset": (file_of({"a": entry(data_offsets=[-1, 0])}, b"1"), FrameError, "a: data_offsets"),
    "an offset of 1.0": (file_of({"a": entry(data_offsets=[0, 1.0])}, b"1"), FrameError, "a: data_offsets"),
    "an end before the beginning": (file_of({"a": entry(data_offsets=[1, 0])}, b"1"), FrameError, "no range"),
    "too few bytes": (file_of({"a": entry(shape=[2])}, b"1"), FrameError, "a: 1 bytes for U8"),
    "too many bytes": (file_of({"a": entry(data_offsets=[0, 2])}, b"12"), FrameError, "a: 2 bytes for U8"),
    "an odd nibble": (file_of({"a": entry("F4", [3], [0, 2])}, b"12"), FrameError, "a: 3 elements of 4 bits"),
    "a hole": (file_of({"a": entry(), "b": entry(data_offsets=[2, 3])}, b"123"), FrameError, "b: .* hole of 1"),
    "a hole at the start": (file_of({"a": entry(data_offsets=[1, 2])}, b"12"), FrameError, "a: .* hole of 1"),
    "an overlap": (file_of({"a": entry(), "b": entry()}, b"1"), FrameError, "b: .* overlaps"),
    "an empty one inside another": (
        file_of({"a": entry(shape=[2], data_offsets=[0, 2]), "b": entry(shape=[0], data_offsets=[1, 1])}, b"12"),
        FrameError,
        "b: .* overlaps",
    ),
    "bytes after the end": (file_of({"a": entry()}, b"12"), FrameError, "1 bytes after"),
    "data cut short": (file_of({"a": entry(shape=[9], data_offsets=[0, 9])}, b"1"), TruncatedError, "1 bytes of data"),
    "a header cut short": (file_of({"a": entry()})[:-1], TruncatedError, "header ends"),
    "a length cut short": (b"\1\0\0\0", TruncatedError, "4 bytes"),
    "no byte at all": (b"", TruncatedError, "0 bytes"),
    "a header without end": ((1 << 63).to_bytes(8, "little") + b"{}", FrameError, "are allowed"),
    "a long header": ((100_000_001).to_bytes(8, "little") + b"{}", FrameError, "are allowed"),
}


@pytest.mark.parametrize(("data", "error", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_files_are_refused_with_their_place(data, error, message, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        open_checkpoint(tmp_path / "x.safetensors")
    assert type(caught.value) is error
    assert str(caught.value).startswith(str(tmp_path / "x.safetensors"))


def test_headers_longer_than_the_first_read(tmp_path):
    tensors = {f"a tensor with quite a long name, number {i}": np.full(1, i) for i in range(2000)}
    save(tmp_path / "x.safetensors", tensors)
    assert same(load(tmp_path / "x.safetensors"), tensors)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": np.zeros(1, np.complex128)}, {}, "a: .* complex64"),
        ({"a": np.zeros(2, ml_dtypes.int4)}, {}, "a: .* I8"),
        ({"a": np.zeros(3, ml_dtypes.float4_e2m1fn)}, {}, "a: 3 elements"),
        ({"__metadata__": np.zeros(3)}, {}, "__metadata__"),
        ({"\ud800": np.zeros(3)}, {}, "allows no tensor"),
        ({}, {"a": 1}, "__metadata__"),
        ({}, {"a": "\ud800"}, "__metadata__"),
    ],
)
def test_what_safetensors_cannot_hold_is_the_callers_fault(tensors, metadata, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        save(tmp_path / "x.safetensors", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_complete_or_absent(tmp_path):
    infos = [tensor_info(name, dtypes.of("U8"), (1,)) for name in "ab"]
    target = tmp_path / "x.safetensors"
    with pytest.raises(ArgumentError, match=r"b: .*never"), write_checkpoint(target, infos) as out:
        out.put("a", np.zeros(1, np.uint8))
    with pytest.raises(ArgumentError, match="twice"), write_checkpoint(target, infos * 2):
        pass
    with pytest.raises(ArgumentError, match="absent"), write_checkpoint(target, infos) as out, out.tensor("absent"):
        pass
    with pytest.raises(ArgumentError, match="a: "), write_checkpoint(target, infos) as out:
        out.put("a", np.zeros(2, np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", [b"x", b"\x92\xabsafetensors\x91\xa1x", b"\x92\xabsafetensors\x91\xc4\x02{}"])
def test_a_layout_that_is_not_that_of_the_tensors(layout, tmp_path):
    with pytest.raises(FrameError):
        save(tmp_path / "x.safetensors", {"a": np.zeros(3)}, layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_elements_on_a_big_endian_machine(monkeypatch):
    """What a machine of the other byte order would do, as far as one of this order can do it."""
    monkeypatch.setattr("featherweight.formats._elements._SWAP", True)
    for name in ("F32", "BF16", "C64", "U8", "F4"):
        kind = dtypes.of(name)
        array = random_array(kind, (8,))
        data = np.zeros(dtypes.packed_bytes(kind, 8), np.uint8)
        with destination(data, kind, 8) as flat:
            flat[:] = array
        word = kind.word.itemsize
        assert word == 1 or data.tobytes() == array.view(kind.word).byteswap().tobytes()
        fetch = lambda offset, length: data[offset : offset + length]  # noqa: B023, E731
        assert read_elements(fetch, kind, 0, 8).tobytes() == array.tobytes()
