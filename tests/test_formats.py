"""Checkpoints of several files, which format a file has, and what damaged ones of any format raise."""

from __future__ import annotations

import importlib
import io
import json
import random
import uuid
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoints import again, entry, file_of, load, same, save

import featherweight
from featherweight.errors import ArgumentError, FeatherweightError, FrameError, TruncatedError, UnsupportedError
from featherweight.formats import open_checkpoint, write_checkpoint


def make_shards(folder: Path) -> dict[str, np.ndarray]:
    """Write a checkpoint of three shards, the last in the library's way and the others in theirs."""
    parts = {
        "m-2.safetensors": file_of({"__metadata__": {"format": "pt"}, "b": entry()}, b"2"),
        "m-1.safetensors": file_of({"a": entry(), "__metadata__": {"own": "x", "format": "pt"}}, b"1"),
    }
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    tensors = {"c": np.arange(3.0), "d": np.ones((2, 2), ml_dtypes.bfloat16)}
    save(folder / "m-3.safetensors", tensors, {"format": "pt"})
    files = {"b": "m-2.safetensors", "d": "m-3.safetensors", "a": "m-1.safetensors", "c": "m-3.safetensors"}
    index = {"metadata": {"total_size": 34}, "weight_map": files}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    one = {"b": np.frombuffer(b"2", np.uint8), "a": np.frombuffer(b"1", np.uint8)}
    return {**one, **tensors}


def test_shards_come_back_byte_for_byte(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    tensors = make_shards(source)
    with open_checkpoint(source / "m.safetensors.index.json") as checkpoint:
        assert list(checkpoint.tensors) == ["b", "c", "d", "a"]
        assert checkpoint.metadata == {"format": "pt"}
        assert (checkpoint.format, checkpoint.canonical) == ("safetensors", True)
    assert same(load(source / "m.safetensors.index.json"), tensors)
    again(source / "m.safetensors.index.json", target / "m.safetensors.index.json")
    assert [path.name for path in sorted(target.iterdir())] == [path.name for path in sorted(source.iterdir())]
    for path in source.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()


def test_shards_can_be_written_as_one_file_and_not_the_other_way(tmp_path):
    tensors = make_shards(tmp_path)
    again(tmp_path / "m.safetensors.index.json", tmp_path / "one.safetensors")
    assert same(load(tmp_path / "one.safetensors"), tensors)
    with pytest.raises(ArgumentError, match=r"one \.safetensors file"):
        again(tmp_path / "one.safetensors", tmp_path / "two.safetensors.index.json")


def test_shards_in_a_remote_store(tmp_path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    tensors = make_shards(tmp_path)
    root = f"memory://{uuid.uuid4()}"
    again(tmp_path / "m.safetensors.index.json", f"{root}/copy.safetensors.index.json")
    assert same(load(f"{root}/copy.safetensors.index.json"), tensors)
    assert len(store.ls(root)) == 4


def test_no_shard_is_replaced_when_writing_fails(tmp_path):
    make_shards(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with open_checkpoint(tmp_path / "m.safetensors.index.json") as source:
        infos, options = list(source.tensors.values()), {"metadata": source.metadata, "layout": source.layout}
    with pytest.raises(ArgumentError), write_checkpoint(tmp_path / "m.safetensors.index.json", infos, **options) as out:
        out.put("b", np.zeros(1, np.uint8))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for wrong in ({"metadata": {}}, {"layout": options["layout"][:-3]}):
        with pytest.raises(FrameError):
            again(tmp_path / "m.safetensors.index.json", tmp_path / "n.safetensors.index.json", **wrong)
    with pytest.raises(FrameError), write_checkpoint(tmp_path / "n.safetensors.index.json", infos[1:], **options):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


BAD_INDEX = {
    "not JSON": ("{", FrameError, "not JSON"),
    "a list": ("[]", FrameError, "not a JSON object"),
    "no weight_map": ("{}", FrameError, "no weight_map"),
    "a tensor twice": ('{"weight_map":{"a":"s.safetensors","a":"s.safetensors"}}', FrameError, "'a' twice"),
    "a number for a file": ('{"weight_map":{"a":1}}', FrameError, "weight_map"),
    "an absolute path": ('{"weight_map":{"a":"/etc/x.safetensors"}}', FrameError, "a: .*plain name"),
    "a path upwards": ('{"weight_map":{"a":"../x.safetensors"}}', FrameError, "a: .*plain name"),
    "a path upwards, Windows": ('{"weight_map":{"a":"..\\\\x.safetensors"}}', FrameError, "a: .*plain name"),
    "a URL": ('{"weight_map":{"a":"http:x.safetensors"}}', FrameError, "a: .*plain name"),
    "no safetensors": ('{"weight_map":{"a":".bashrc"}}', FrameError, "a: .*plain name"),
    "an absent shard": ('{"weight_map":{"a":"absent.safetensors"}}', FileNotFoundError, "absent.safetensors"),
    "an absent tensor": ('{"weight_map":{"a":"s.safetensors","b":"s.safetensors"}}', FrameError, "b: the index places"),
    "a tensor not mapped": ('{"weight_map":{}}', None, ""),
    "another tensor": ('{"weight_map":{"c":"two.safetensors"}}', FrameError, "d: the index does not"),
}


@pytest.mark.parametrize(("index", "error", "message"), BAD_INDEX.values(), ids=BAD_INDEX)
def test_bad_indices(index, error, message, tmp_path):
    (tmp_path / "s.safetensors").write_bytes(file_of({"a": entry()}, b"1"))
    (tmp_path / "two.safetensors").write_bytes(file_of({"c": entry(), "d": entry(data_offsets=[1, 2])}, b"12"))
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(index)
    if error is None:
        assert load(path) == {}
        return
    with pytest.raises(error, match=message):
        open_checkpoint(path)


def test_a_hostile_layout_cannot_name_files_elsewhere(tmp_path):
    sharded = importlib.import_module("featherweight.formats.sharded")
    formats = importlib.import_module("featherweight.formats")
    index = b'{"weight_map":{"a":"../evil.safetensors"}}'
    layout = formats.pack_layout("sharded", sharded.Layout(index, (sharded.Shard(b"", None),)))
    (tmp_path / "in").mkdir()
    with pytest.raises(FrameError, match="plain name"):
        save(tmp_path / "in" / "m.safetensors.index.json", {"a": np.zeros(1)}, layout=layout)
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize("name", ["x.fw", "x"])
def test_a_fw_file_may_go_on_with_a_brace(name, tmp_path):
    tensors = {"a": np.full(64, ord("{"), np.uint8)}
    featherweight.save_file(tensors, tmp_path / name, "raw")
    assert (tmp_path / name).read_bytes()[8:9] == b"{"  # where safetensors has one
    same(featherweight.load_file(tmp_path / name), tensors)


def test_the_content_decides_where_the_name_does_not(tmp_path):
    tensors = {"a": np.arange(3)}
    save(tmp_path / "x.safetensors", tensors)
    save(tmp_path / "x.npz", tensors)
    for name in ("x.safetensors", "x.npz"):
        blob = tmp_path / f"blob-{name[2]}"
        blob.write_bytes((tmp_path / name).read_bytes())
        assert same(load(blob), tensors)
    (tmp_path / "text").write_text("hello world")
    with pytest.raises(UnsupportedError, match="text: neither"):
        open_checkpoint(tmp_path / "text")
    for options in ({}, {"format": "gguf"}):
        with pytest.raises(ArgumentError, match="format"):
            save(tmp_path / "blob", tensors, **options)


def originals() -> dict[str, bytes]:
    tensors = {"a": np.arange(5.0), "b": np.ones((2, 3), np.int16), "c": np.zeros((0, 2), bool)}
    files = {"safetensors": io.BytesIO(), "npz": io.BytesIO(), "npz, compressed": io.BytesIO()}
    save(files["safetensors"], tensors, {"k": "v"}, format="safetensors")
    np.savez(files["npz"], **tensors)
    np.savez_compressed(files["npz, compressed"], **tensors)
    return {name: file.getvalue() for name, file in files.items()}


def try_to_read(data: bytes, suffix: str, folder: Path) -> FeatherweightError | None:
    path = folder / f"x.{suffix}"
    path.write_bytes(data)
    try:
        load(path)
    except FeatherweightError as error:
        return error
    return None


@pytest.mark.parametrize("name", ["safetensors", "npz", "npz, compressed"])
def test_every_prefix_is_truncated(name, tmp_path):
    data = originals()[name]
    for end in range(len(data)):
        assert isinstance(try_to_read(data[:end], name.split(",")[0], tmp_path), TruncatedError), end


@pytest.mark.parametrize("name", ["safetensors", "npz", "npz, compressed"])
def test_damaged_bytes_raise_nothing_but_our_errors(name, tmp_path):
    data = originals()[name]
    draw = random.Random(name)
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 5])):
            damaged[draw.randrange(len(data))] = draw.choice([0, 1, 255, 0x7F, draw.randrange(256)])
        if draw.random() < 0.1:
            del damaged[draw.randrange(len(data)) :]
        try_to_read(bytes(damaged), name.split(",")[0], tmp_path)
