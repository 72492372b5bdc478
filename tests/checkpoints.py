"""What the tests of formats share: writing, reading and comparing checkpoints, and files made by hand."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from featherweight import dtypes
from featherweight.dtypes import pack
from featherweight.formats import open_checkpoint, safetensors, write_checkpoint
from featherweight.formats.memory import from_arrays

KINDS = [dtypes.of(name) for name in safetensors._RANK]
# How the library's own serializer calls them; it has no way to say F6.
LIBRARY_NAMES = {kind.name: kind.dtype.name for kind in KINDS if not kind.name.startswith("F6_")}
LIBRARY_NAMES["F4"] = "float4_e2m1fn_x2"


def save(where: Any, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None, **options: Any) -> None:
    source = from_arrays(tensors, metadata)
    with write_checkpoint(where, list(source.tensors.values()), metadata=metadata, **options) as out:
        for name in reversed(source.tensors):  # in any order
            out.put(name, source.read(name))


def load(where: Any) -> dict[str, np.ndarray]:
    with open_checkpoint(where) as checkpoint:
        return {name: checkpoint.read(name).reshape(info.shape) for name, info in checkpoint.tensors.items()}


def again(where: Any, target: Any, **options: Any) -> None:
    """Write a checkpoint again, with all that it says of itself."""
    with open_checkpoint(where) as source:
        options = {"metadata": source.metadata, "layout": source.layout, "format": source.format, **options}
        with write_checkpoint(target, list(source.tensors.values()), **options) as out:
            for name in source.tensors:
                out.put(name, source.read(name))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Return whether names, dtypes, shapes and bits are the same, in whatever order the tensors are."""
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes() for n in a
    )


def library_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Write with the safetensors library, whatever the element types."""
    library = pytest.importorskip("safetensors", minversion="0.8")
    specs, keep = {}, []
    for name, array in tensors.items():
        kind = dtypes.of(array.dtype)
        raw = (pack(array, 4) if kind.bits == 4 else np.ascontiguousarray(array)).tobytes()
        shape = array.shape if kind.bits == 8 or kind.bits > 8 else (*array.shape[:-1], array.shape[-1] // 2)
        keep.append(ctypes.create_string_buffer(raw, max(1, len(raw))))
        specs[name] = library.TensorSpec(
            dtype=LIBRARY_NAMES[kind.name], shape=shape, data_ptr=ctypes.addressof(keep[-1]), data_len=len(raw)
        )
    return bytes(library.serialize(specs, metadata))


def random_array(kind: dtypes.ElementType, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape)) * kind.dtype.itemsize
    raw = np.frombuffer(rng.bytes(size), np.uint8) & (1 if kind.kind == "b" else (1 << min(kind.bits, 8)) - 1)
    return raw.astype(np.uint8).view(kind.dtype).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, kinds: list[dtypes.ElementType] = KINDS) -> np.ndarray:
    kind = draw(st.sampled_from(kinds))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    return random_array(kind, (*shape, 4) if kind.bits < 8 else shape, draw(st.integers(0, 99)))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = texts.filter(lambda name: name != "__metadata__")
metadatas = st.dictionaries(texts, texts, max_size=3)
library_kinds = [kind for kind in KINDS if kind.name in LIBRARY_NAMES]


def file_of(header: str | bytes | dict, data: bytes = b"") -> bytes:
    header = json.dumps(header) if isinstance(header, dict) else header
    raw = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any = "U8", shape: Any = (1,), data_offsets: Any = (0, 1), **more: Any) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets, **more}
