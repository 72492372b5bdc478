"""npz: our reader and writer against NumPy's, and against files that lie."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoints import again, arrays, load, same, save
from hypothesis import given
from hypothesis import strategies as st

from featherweight import dtypes
from featherweight.errors import ArgumentError, FeatherweightError, FrameError, TruncatedError, UnsupportedError
from featherweight.formats import open_checkpoint, tensor_info, write_checkpoint

NUMPY_KINDS = [kind for kind in dtypes.all_types() if kind.dtype.type.__module__ == "numpy"]
plain_names = st.text("abc./ é", min_size=1, max_size=6)


@given(tensors=st.dictionaries(plain_names, arrays(NUMPY_KINDS), max_size=4), compressed=st.booleans())
def test_npz_files_are_numpys(tensors, compressed):
    theirs, ours = io.BytesIO(), io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(theirs, **tensors)
    if not tensors:  # numpy writes an empty zip file, which says nothing of its kind but its magic
        assert load(theirs) == {}
    assert same(load(theirs), tensors)
    with open_checkpoint(theirs) as checkpoint:
        assert list(checkpoint.tensors) == list(tensors)
        assert (checkpoint.format, checkpoint.canonical) == ("npz", False)
    again(theirs, ours)
    assert same(load(ours), tensors)
    assert same(dict(np.load(io.BytesIO(ours.getvalue())).items()), tensors)
    assert len(ours.getvalue()) == len(theirs.getvalue())


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("remote", [False, True])
def test_npz_members_come_native_and_in_c_order(write, remote, tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {
        "c": x,
        "fortran": np.asfortranarray(x),
        "big": x.astype(">f4"),
        "both": np.asfortranarray(x.astype(">f4")),
        "complex": np.asfortranarray(x.astype(">c8").T),
        "scalar": np.array(3, ">i2"),
    }
    write(tmp_path / "x.npz", **tensors)
    where = io.BytesIO((tmp_path / "x.npz").read_bytes()) if remote else tmp_path / "x.npz"
    assert same(
        load(where),
        {name: np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape) for name, a in tensors.items()},
    )
    with open_checkpoint(where) as checkpoint:
        assert checkpoint.read("both", 5, 7).tolist() == [5, 6]
        assert checkpoint.read("c", 5, 7).tolist() == [5, 6]
        assert not checkpoint.read("big", 0, 1).flags.writeable
    with pytest.raises(ArgumentError, match="closed"):
        checkpoint.read("c")


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("unpickled",))


def npz_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npy_claiming(shape: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(48)


def bad_npz() -> dict[str, tuple[bytes, type[FeatherweightError], str]]:
    x = np.arange(6.0)
    stored = npz_of(a=npy_of(x))
    twice = npz_of(a=npy_of(x), b=npy_of(x)).replace(b"b.npy", b"a.npy")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy_of(x))
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("readme.txt", "x")
    return {
        "objects": (npz_of(a=npy_of(np.array([Bomb()]))), UnsupportedError, "a: Python objects"),
        "bfloat16": (npz_of(a=npy_of(x.astype(ml_dtypes.bfloat16))), UnsupportedError, "a: .*safetensors"),
        "a record": (npz_of(a=npy_of(np.zeros(2, "f4,i4"))), UnsupportedError, "a: "),
        "dates": (npz_of(a=npy_of(np.zeros(2, "M8[s]"))), UnsupportedError, "a: "),
        "strings": (npz_of(a=npy_of(np.array(["x"]))), UnsupportedError, "a: "),
        "too large": (npz_of(a=npy_claiming((7,))), FrameError, "a: 48 bytes for float64"),
        "too small": (npz_of(a=npy_claiming((5,))), FrameError, "a: 48 bytes for float64"),
        "far too large": (npz_of(a=npy_claiming((1 << 59,))), FrameError, "a: 48 bytes for float64"),
        "impossible": (npz_of(a=npy_claiming((1 << 70, 0))), FrameError, "a: no array"),
        "negative": (npz_of(a=npy_claiming((-6, -1))), FrameError, "a: no array"),
        "half a number": (npz_of(a=npy_claiming((1.5,))), FrameError, "a: "),
        "65 dimensions": (npz_of(a=npy_claiming((1,) * 65)), UnsupportedError, "a: 65 dimensions"),
        "no header": (npz_of(a=b"\x93NUMPY\1\0"), FrameError, "a: "),
        "no npy": (npz_of(a=b"hello"), FrameError, "a: "),
        "npy 3": (npz_of(a=b"\x93NUMPY\3\0" + bytes(100)), UnsupportedError, "a: npy version"),
        "npy 9": (npz_of(a=b"\x93NUMPY\x09\0" + bytes(100)), FeatherweightError, "a: "),
        "not an array": (text.getvalue(), UnsupportedError, "readme.txt: not an .npy"),
        "lzma": (other.getvalue(), UnsupportedError, "a: zip compression method 14"),
        "twice": (twice, FrameError, "a: .*twice"),
        "cut short": (stored[:-30], TruncatedError, "directory"),
        "no byte": (b"", TruncatedError, "directory"),
        "no zip": (b"hello" * 20, FrameError, "zip"),
    }


@pytest.mark.parametrize(("data", "error", "message"), bad_npz().values(), ids=bad_npz())
def test_bad_npz_files_are_refused_unread(data, error, message, tmp_path):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        open_checkpoint(tmp_path / "x.npz")
    assert str(caught.value).startswith(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damaged_elements_of_npz_are_noticed(write, tmp_path):
    write(tmp_path / "x.npz", a=np.random.default_rng(1).random(1000))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(FrameError, match=r"x\.npz: a: "):
        load(tmp_path / "x.npz")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1000))
    data = (tmp_path / "x.npz").read_bytes()
    size = zipfile.ZipFile(io.BytesIO(data)).getinfo("a.npy").file_size
    lie = data.replace(size.to_bytes(4, "little"), (0x7FFFFFFF).to_bytes(4, "little"))
    assert lie != data
    with pytest.raises(FrameError, match="cannot be in"):
        open_checkpoint(io.BytesIO(lie))


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": np.zeros(2, ml_dtypes.bfloat16)}, {}, "a: .*write safetensors"),
        ({"a": np.zeros(2, ml_dtypes.float8_e5m2)}, {}, "a: .*write safetensors"),
        ({"a\0": np.zeros(2)}, {}, "name"),
        ({}, {"a": "b"}, "metadata"),
    ],
)
def test_what_npz_cannot_hold_is_the_callers_fault(tensors, metadata, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        save(tmp_path / "x.npz", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_npz_is_complete_or_absent(tmp_path):
    infos = [tensor_info(name, dtypes.of("U8"), (1,)) for name in "ab"]
    with pytest.raises(ArgumentError, match=r"b: .*never"), write_checkpoint(tmp_path / "x.npz", infos) as out:
        out.put("a", np.zeros(1, np.uint8))
    assert list(tmp_path.iterdir()) == []
