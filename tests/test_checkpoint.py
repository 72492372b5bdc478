"""Whole checkpoints: what people know from safetensors, random access, bases, damage, and what is fetched."""

import io
import json
import struct
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import ClassVar

import fsspec
import ml_dtypes
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import featherweight
from featherweight import ArgumentError, BaseMismatchError, FrameError, Plan, TruncatedError, UnsupportedError
from featherweight.checkpoint import decode_file, encode_file
from featherweight.dtypes import all_types
from featherweight.errors import FeatherweightError
from featherweight.formats._index import MAGIC
from featherweight.frame import checksum

RNG = np.random.default_rng(7)


def weights():
    """Return a small network of many kinds of tensors; one is large enough to be coded piece by piece."""
    scale = np.exp(RNG.normal(size=(1500, 1)))
    return {
        "embed": (RNG.normal(size=(1500, 768)) * scale * 0.02).astype(ml_dtypes.bfloat16),
        "layer.weight": RNG.normal(size=(256, 384)).astype(np.float32),
        "layer.bias": np.zeros(256, np.float32),
        "half": RNG.normal(size=(33, 7, 3, 3)).astype(np.float16),
        "from_half": RNG.normal(size=(64, 64)).astype(np.float16).astype(np.float32),
        "ids": np.arange(512),
        "mask": np.tri(40, dtype=bool),
        "scalar": np.float64(3.25),
        "empty": np.zeros((0, 5), np.complex64),
    }


def same(expected, actual):
    expected = np.asarray(expected)
    return expected.dtype == actual.dtype and expected.shape == actual.shape and expected.tobytes() == actual.tobytes()


@pytest.fixture
def model(tmp_path):
    tensors = weights()
    path = tmp_path / "model.fw"
    featherweight.save_file(tensors, path, metadata={"format": "pt"})
    return path, tensors


def test_a_checkpoint_comes_back_bit_for_bit_with_order_and_metadata(model):
    path, tensors = model
    loaded = featherweight.load_file(path)
    assert list(tensors) == list(loaded)
    assert all(same(tensors[name], loaded[name]) for name in tensors)
    with featherweight.open(path) as file:
        assert file.metadata() == {"format": "pt"}
        assert len(tensors) == len(file)
        assert "embed" in file
        assert "nothing" not in file
    assert path.stat().st_size < 0.75 * sum(np.asarray(x).nbytes for x in tensors.values())


def test_a_name_that_is_not_there_is_a_key_error_that_names_the_file(model):
    path, _ = model
    with featherweight.open(path) as file, pytest.raises(KeyError, match=r"nothing.*model\.fw"):
        file["nothing"]


@pytest.mark.parametrize(
    "key",
    [
        np.s_[3:10],
        np.s_[:0],
        np.s_[-1],
        np.s_[1490:],
        np.s_[1400:2:-37, ::5],
        np.s_[7, 11],
        np.s_[...],
        np.s_[[1, 5]],
        np.s_[:, 3],
        (),
    ],
)
def test_a_slice_is_what_numpy_makes_of_the_whole(model, key):
    path, tensors = model
    with featherweight.open(path) as file:
        part = file.get_slice("embed")
        assert part.get_shape() == [1500, 768]
        assert part.get_dtype() == "BF16"
        assert same(tensors["embed"][key], np.ascontiguousarray(part[key]).reshape(tensors["embed"][key].shape))


def test_an_index_out_of_range_is_an_index_error(model):
    path, _ = model
    with featherweight.open(path) as file, pytest.raises(IndexError):
        file.get_slice("embed")[1500]


class CountingStore(MemoryFileSystem):
    """A store that remembers what was fetched of it."""

    protocol = "counting"
    fetched: ClassVar[list[int]] = []
    store: ClassVar[dict] = {}

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = super().cat_file(path, start=start, end=end, **kwargs)
        self.fetched.append(len(data))
        return data


def test_one_tensor_of_a_remote_file_costs_its_bytes_and_few_requests(model):
    path, tensors = model
    fsspec.register_implementation("counting", CountingStore, clobber=True)
    with fsspec.open("counting://models/model.fw", "wb") as target:
        target.write(path.read_bytes())
    CountingStore.fetched.clear()
    with featherweight.open("counting://models/model.fw") as file:
        assert len(CountingStore.fetched) <= 3
        for name in tensors:
            stored = file.fw.entries[name].stored
            CountingStore.fetched.clear()
            assert same(tensors[name], file[name])
            assert len(CountingStore.fetched) <= 3
            assert sum(CountingStore.fetched) <= stored + (64 << 10)
        whole = file.fw.entries["embed"].stored
        CountingStore.fetched.clear()
        assert same(tensors["embed"][5:9], file.get_slice("embed")[5:9])
        assert len(CountingStore.fetched) == 1
        assert sum(CountingStore.fetched) < 0.6 * whole


def test_files_objects_and_memory_urls_work_both_ways():
    tensors = weights()
    stream = io.BytesIO()
    featherweight.save_file(tensors, stream)
    assert same(tensors["half"], featherweight.load_file(stream)["half"])
    featherweight.save_file(tensors, "memory://somewhere/model.fw")
    assert same(tensors["half"], featherweight.load_file("memory://somewhere/model.fw")["half"])
    assert stream.getvalue() == fsspec.filesystem("memory").cat_file("/somewhere/model.fw")


def test_threads_and_executors_give_the_same_bytes(tmp_path):
    from safetensors.numpy import save_file

    tensors = {name: np.asarray(x) for name, x in weights().items() if name not in ("empty", "scalar")}
    tensors["large"] = RNG.normal(size=(1100, 1000)).astype(np.float32)
    source = tmp_path / "model.safetensors"
    save_file(tensors, source)
    encode_file(source, tmp_path / "one.fw", threads=1)
    encode_file(source, tmp_path / "three.fw", threads=3)
    with ThreadPoolExecutor(2) as pool:
        encode_file(source, tmp_path / "threads.fw", executor=pool)
    with ProcessPoolExecutor(2) as pool:
        encode_file(source, tmp_path / "processes.fw", executor=pool)
        loaded = featherweight.load_file(tmp_path / "one.fw", executor=pool)
    assert all(same(tensors[name], loaded[name]) for name in tensors)
    expected = (tmp_path / "one.fw").read_bytes()
    for other in ("three", "threads", "processes"):
        assert expected == (tmp_path / f"{other}.fw").read_bytes()


def test_a_safetensors_file_comes_back_byte_for_byte(tmp_path):
    from safetensors.numpy import save_file

    tensors = {name: np.asarray(x) for name, x in weights().items()}
    source = tmp_path / "model.safetensors"
    save_file(tensors, source, metadata={"format": "pt", "author": "ü"})
    encode_file(source, tmp_path / "model.fw")
    decode_file(tmp_path / "model.fw", tmp_path / "again.safetensors")
    assert source.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_a_base_makes_changes_cost_what_changed(tmp_path):
    old = {"w": (RNG.normal(size=(1200, 1000)) * 0.02).astype(ml_dtypes.bfloat16), "b": np.ones(1000, np.float32)}
    new = {"w": old["w"].copy(), "b": old["b"] + 1, "fresh": np.arange(1000.0)}
    words = new["w"].reshape(-1).view(np.uint16)
    changed = RNG.random(words.size) < 0.015
    words[changed] ^= 1
    featherweight.save_file(old, tmp_path / "old.fw")
    featherweight.save_file(new, tmp_path / "new.fw", base=tmp_path / "old.fw")
    loaded = featherweight.load_file(tmp_path / "new.fw", base=tmp_path / "old.fw")
    assert all(same(new[name], loaded[name]) for name in new)
    assert same(new["w"], featherweight.load_file(tmp_path / "new.fw", base=old)["w"])
    with featherweight.open(tmp_path / "new.fw", base=old) as file:
        assert file.fw.entries["w"].stored * 8 / words.size < 0.16
        assert same(new["w"][700:703], file.get_slice("w")[700:703])
    with pytest.raises(BaseMismatchError, match=r"w: .*base.* needed again \(--base"):
        featherweight.load_file(tmp_path / "new.fw")
    wrong = {**old, "w": new["w"]}
    with pytest.raises(BaseMismatchError, match="w: "):
        featherweight.load_file(tmp_path / "new.fw", base=wrong)
    with pytest.raises(BaseMismatchError, match="w: the base has no tensor of this name, dtype and shape"):
        featherweight.load_file(tmp_path / "new.fw", base={"w": old["w"].astype(np.float32)})
    with pytest.raises(ArgumentError, match="no tensor of the base has the name"):
        featherweight.save_file(new, tmp_path / "new.fw", base={"v": old["w"]})


def test_a_base_that_has_little_in_common_is_not_used(tmp_path):
    old, new = (RNG.normal(size=(300, 300)).astype(np.float32) for _ in range(2))
    featherweight.save_file({"w": new}, tmp_path / "new.fw", base={"w": old})
    assert same(new, featherweight.load_file(tmp_path / "new.fw")["w"])


def test_rules_choose_recipes_by_name_and_the_first_match_wins(tmp_path):
    plan = Plan.of("lossless", ["*.bias=raw", "layer.*=split(raw)", "*.weight=constant"])
    assert ["raw", "split(raw)", "lossless"] == [plan.text(n) for n in ("layer.bias", "layer.weight", "embed")]
    with pytest.raises(ArgumentError, match="pattern=recipe"):
        Plan.of("lossless", ["raw"])
    featherweight.save_file(weights(), tmp_path / "model.fw", plan)
    assert same(featherweight.load_file(tmp_path / "model.fw")["ids"], np.arange(512))


def test_a_failed_encode_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.fw"
    featherweight.save_file({"w": np.ones(5)}, path)
    before = path.read_bytes()
    for broken in ({"w": np.ones(5), "x": np.array([None])}, {"w": np.ones(5), 3: np.ones(5)}):
        with pytest.raises(ArgumentError):
            featherweight.save_file(broken, path)
    with pytest.raises(ArgumentError, match="w: huffman"):
        featherweight.save_file({"w": np.ones(5)}, path, "huffman")
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_names_and_shapes_of_every_kind_survive(tmp_path):
    tensors = {
        f"{row.name}/ü {shape}": RNG.integers(0, 1 << min(row.bits, 8), (*shape, row.dtype.itemsize), np.uint8)
        .view(row.dtype)
        .reshape(shape)
        for row in all_types()
        if row.kind != "b"
        for shape in ((), (0,), (3,), (2, 0, 3), (5, 1, 4), (300, 70))
    }
    featherweight.save_file(tensors, tmp_path / "model.fw")
    loaded = featherweight.load_file(tmp_path / "model.fw")
    assert all(same(tensors[name], loaded[name]) for name in tensors)


def index_of(data):
    length, *_ = struct.unpack("<QIBBH8s", data[-24:])
    return len(data) - 24 - length


def reseal(data, index):
    """Return the file with another index and its checksum right."""
    return data[: index_of(data)] + index + struct.pack("<QIBBH8s", len(index), checksum(index), 1, 0, 0, MAGIC[::-1])


def plain_index(data):
    import bz2

    import msgspec

    stored = data[index_of(data) : -24]
    return msgspec.msgpack.decode(bz2.decompress(stored) if data[-11] else stored)


def test_every_truncation_and_every_flip_is_an_error(tmp_path):
    path = tmp_path / "model.fw"
    tensors = {"a": np.arange(300, dtype=np.float32), "b": RNG.normal(size=(20, 9)), "zero": np.zeros(9)}
    featherweight.save_file(tensors, path)
    data = path.read_bytes()
    for end in range(len(data)):
        with pytest.raises(FrameError):
            load(data[:end], tmp_path)
    for place in range(len(data)):
        for bit in (1, 128):
            damaged = bytearray(data)
            damaged[place] ^= bit
            with pytest.raises((FrameError, UnsupportedError)):
                load(damaged, tmp_path)


def load(data, folder):
    path = folder / "damaged.fw"
    path.write_bytes(data)
    return featherweight.load_file(path)


def test_entries_that_lie_are_refused(tmp_path):
    import msgspec

    path = tmp_path / "model.fw"
    featherweight.save_file({"a": np.arange(300, dtype=np.float32), "b": np.arange(70000) % 251}, path)
    data = path.read_bytes()
    index = plain_index(data)

    def lie(change):
        copy = json.loads(json.dumps(index, default=lambda value: value.hex()))
        copy[2] = b""
        change(copy)
        return reseal(data, msgspec.msgpack.encode(copy))

    assert load(lie(lambda i: None), tmp_path)
    lies = {
        "twice": lambda i: i[0][1].__setitem__(0, "a"),
        "padding": lambda i: i[0][1].__setitem__(1, 64),
        "negative padding": lambda i: i[0][1].__setitem__(1, -1),
        "shift": lambda i: i[0][0].__setitem__(1, 8),
        "dropped": lambda i: i[0].pop(),
        "repeated": lambda i: i[0].append(["c", *i[0][0][1:]]),
        "no frame": lambda i: i[0][0].pop(),
        "huge": lambda i: i[0][0][2].__setitem__(0, [11, 1 << 60]),
        "large": lambda i: i[0][0][2].__setitem__(0, [11, 1 << 40]),
        "metadata": lambda i: i.__setitem__(1, {"a": 3}),
    }
    for name, change in lies.items():
        with pytest.raises(FeatherweightError):
            pytest.fail(f"{name}: {load(lie(change), tmp_path).keys()}")


def test_an_index_that_unpacks_to_far_too_much_is_refused_without_unpacking_it(tmp_path):
    import bz2
    import tracemalloc

    bomb = bz2.compress(bytes(1 << 29))
    data = MAGIC + bomb + struct.pack("<QIBBH8s", len(bomb), checksum(bomb), 1, 1, 0, MAGIC[::-1])
    tracemalloc.start()
    with pytest.raises(FrameError, match="unpacked"):
        load(data, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < (1 << 29) + (1 << 24)  # twice the limit: buffers are joined
    tracemalloc.stop()


def test_foreign_and_future_files_are_told_apart(tmp_path):
    with pytest.raises(TruncatedError):
        load(b"short", tmp_path)
    with pytest.raises(FrameError, match="begins otherwise"):
        load(b"x" * 100, tmp_path)
    path = tmp_path / "model.fw"
    featherweight.save_file({"a": np.arange(9)}, path)
    data = bytearray(path.read_bytes())
    data[-12] = 2
    with pytest.raises(UnsupportedError, match="upgrade"):
        load(data, tmp_path)


def test_what_is_read_is_never_overwritten(tmp_path):
    from safetensors.numpy import save_file

    for name in ("a", "b"):
        save_file({"w": np.arange(99.0)}, tmp_path / f"{name}.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    encode_file(tmp_path / "a.safetensors", tmp_path / "a.fw")
    with pytest.raises(ArgumentError, match="itself"):
        decode_file(tmp_path / "a.fw", tmp_path / "a.fw")
    with pytest.raises(ArgumentError, match="itself"):
        decode_file(tmp_path / "a.fw", tmp_path / "a.safetensors", base=tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"end in \.fw"):
        encode_file(tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"end in \.fw"):
        featherweight.save_file({"w": np.ones(3)}, tmp_path / "a.safetensors")
    assert before == (tmp_path / "a.safetensors").read_bytes()


def test_content_says_the_format_where_the_name_says_another(tmp_path):
    featherweight.save_file({"w": np.arange(9)}, tmp_path / "a.fw")
    (tmp_path / "a.fw").rename(tmp_path / "a.safetensors")
    assert same(np.arange(9), featherweight.load_file(tmp_path / "a.safetensors")["w"])


def test_a_large_base_is_decoded_in_the_threads_that_want_it(tmp_path):
    rng = np.random.default_rng(0)
    old = {f"w{i}": rng.integers(0, 100, (1025, 1200), np.uint8) for i in range(6)}
    new = {name: x + (rng.random(x.shape) < 0.01).astype(np.uint8) for name, x in old.items()}
    featherweight.save_file(old, tmp_path / "old.fw", threads=2)
    featherweight.save_file(new, tmp_path / "new.fw", base=tmp_path / "old.fw", threads=2)
    for threads in (2, 3):
        loaded = featherweight.load_file(tmp_path / "new.fw", base=tmp_path / "old.fw", threads=threads)
        assert all(same(x, loaded[name]) for name, x in new.items())
