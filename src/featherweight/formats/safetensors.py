"""safetensors: the length of a header, the header in JSON, and the tensors one after the other.

Strategy: the header says everything, so a file is its tensors in the order of their data, its metadata, and the
header's own bytes. We write the header as the safetensors library (0.8) does, so those bytes need to be kept, as the
*layout*, only for files that somebody else wrote: reading and writing always gives the same bytes.

The library's way: tensors sorted by element type, as its list has them, from the last to the first, then by name;
compact JSON with the metadata first (in no fixed order: we keep the one we read); spaces up to a multiple of 8.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array, ElementType
from featherweight.errors import ArgumentError, FeatherweightError, FrameError, TruncatedError, UnsupportedError, within
from featherweight.formats import Checkpoint, Place, TensorInfo, pack_layout, read_layout, tensor_info
from featherweight.formats._elements import destination, read_elements
from featherweight.formats._io import Source, Where, create_target, file_name

__all__ = ["Layout", "check_text", "parse_json", "read", "write"]

MAX_HEADER = 100_000_000
_METADATA = "__metadata__"
_FIRST_READ = 1 << 16

# In the library's order, which decides the order of the tensors in a file.
_NAMES = """
    BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ
    I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64
"""
_RANK = {name: rank for rank, name in enumerate(_NAMES.split())}


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a file differs from what the library would write: its header, or (empty) only the order of its tensors."""

    header: bytes = b""


class Header(NamedTuple):
    """A header that has been checked: tensors in the order of their data, and where each begins."""

    infos: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    offsets: dict[str, int]
    size: int  # of the data


def read(source: Source) -> Checkpoint:
    """Open a file; every rule of the format is checked, and duplicate keys are refused."""
    with within(source.name, ": "):
        raw, data_start = _read_header(source)
        header = _parse(raw)
        if data_start + header.size > source.size:
            found = f"{source.size - data_start} bytes of data, the header has {header.size}"
            raise TruncatedError(f"{found}: it was not written or copied completely")
        if data_start + header.size < source.size:
            raise FrameError(f"{source.size - data_start - header.size} bytes after the last tensor")

    def fetch(info: TensorInfo, start: int, stop: int) -> Array:
        begin = data_start + header.offsets[info.name]
        return read_elements(lambda offset, length: source.read(begin + offset, length), info.kind, start, stop)

    return Checkpoint(
        format="safetensors",
        tensors={info.name: info for info in header.infos},
        metadata=header.metadata,
        layout=_layout(raw, header),
        canonical=True,
        fetch=fetch,
        source=source,
        on_close=source.close,
    )


def _read_header(source: Source) -> tuple[bytes, int]:
    start = source.read(0, min(source.size, _FIRST_READ))
    if start.size < 8:
        raise TruncatedError(f"{start.size} bytes, not even a header's length")
    length = int.from_bytes(start[:8].tobytes(), "little")
    if length > MAX_HEADER:
        raise FrameError(f"a header of {length} bytes, {MAX_HEADER} are allowed: it is no safetensors file")
    if 8 + length > source.size:
        found = f"the header ends at byte {8 + length}, the file at {source.size}"
        raise TruncatedError(f"{found}: it was not written or copied completely, or is no safetensors file")
    if 8 + length > start.size:
        start = source.read(0, 8 + length)
    return start[8 : 8 + length].tobytes(), 8 + length


def _layout(raw: bytes, header: Header) -> bytes:
    infos = list(header.infos)
    if raw != _compose(infos, header.metadata):
        return pack_layout("safetensors", Layout(raw))
    return b"" if infos == _sorted(infos) else pack_layout("safetensors", Layout())


def _sorted(infos: Sequence[TensorInfo]) -> list[TensorInfo]:
    return sorted(infos, key=lambda info: (-_RANK[info.kind.name], info.name))


def _compose(infos: Sequence[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for info in infos:
        begin, end = end, end + info.packed
        table[info.name] = {"dtype": info.kind.name, "shape": info.shape, "data_offsets": (begin, end)}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _parse(raw: bytes) -> Header:
    if raw[:1] != b"{":
        raise FrameError("the header does not begin with '{'")
    table = parse_json(raw, "the header")
    metadata = check_text(table.pop(_METADATA, {}), _METADATA)
    entries = [_entry(name, entry) for name, entry in table.items()]
    entries.sort(key=lambda entry: entry[1:])  # stable: empty tensors at one place keep the header's order
    place = 0
    for info, begin, end in entries:
        if begin != place:
            what = "overlaps the tensor before" if begin < place else f"leaves a hole of {begin - place} bytes before"
            raise FrameError(f"data from {begin} to {end} {what}", path=info.name)
        place = end
    offsets = {info.name: begin for info, begin, _ in entries}
    return Header(tuple(entry[0] for entry in entries), metadata, offsets, place)


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object none of whose objects has a key twice; raise FrameError for anything else."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FrameError(f"{what} has the key {twice!r} twice")
        return table

    def refuse(constant: str) -> None:
        raise FrameError(f"{what} holds {constant}, which is not JSON")

    try:
        table = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except FeatherweightError:
        raise
    except UnicodeDecodeError as error:
        raise FrameError(f"{what} is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{what} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise FrameError(f"{what} is not a JSON object")
    return table


def check_text(table: Any, where: str, error: type[FrameError | ArgumentError] = FrameError) -> dict[str, str]:
    """Return a mapping from strings to strings, or raise `error`."""
    if not isinstance(table, Mapping):
        raise error("expected a mapping from strings to strings", path=where)
    for key, value in table.items():
        if not (_is_text(key) and _is_text(value)):
            raise error(f"{key!r}: {value!r} are not both strings", path=where)
    return dict(table)


def _is_text(value: Any) -> bool:
    """Return whether this is a string that UTF-8 can hold: JSON lets lone surrogates through."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _entry(name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    if not _is_text(name):
        raise FrameError("the name of a tensor is not Unicode", path=ascii(name))
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise FrameError("expected dtype, shape and data_offsets", path=name)
    if not isinstance(entry["dtype"], str):
        raise FrameError(f"{entry['dtype']!r} is no element type", path=name)
    if entry["dtype"] not in _RANK:
        raise UnsupportedError(f"element type {entry['dtype']!r}: a newer featherweight may know it", path=name)
    kind = dtypes.of(entry["dtype"])
    shape = _whole_numbers(entry["shape"], name, "shape")
    offsets = _whole_numbers(entry["data_offsets"], name, "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FrameError(f"data_offsets {offsets} are no range", path=name)
    info = tensor_info(name, kind, shape)
    if info.count * kind.bits % 8:
        raise FrameError(f"{info.count} elements of {kind.bits} bits are no whole number of bytes", path=name)
    size = offsets[1] - offsets[0]
    if size != info.packed:
        raise FrameError(f"{size} bytes for {kind.name}{shape}, which takes {info.packed}", path=name)
    return info, offsets[0], offsets[1]


def _whole_numbers(values: Any, name: str, what: str) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 1 << 64 for value in values):
        raise FrameError(f"{what} is not a list of whole numbers", path=name)
    return values


@contextlib.contextmanager
def write(where: Where, infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes) -> Iterator[Place]:
    """Write a file as the library would, or as the layout says.

    Raises ArgumentError for what the format cannot hold, and FrameError for a layout that is not that of these
    tensors and this metadata.
    """
    with within(file_name(where), ": "):
        raw = _header_to_write(infos, metadata, layout)
    header = _parse(raw)
    with create_target(where) as target:
        data = target.map(8 + len(raw) + header.size)
        data[: 8 + len(raw)] = np.frombuffer(len(raw).to_bytes(8, "little") + raw, np.uint8)

        def place(info: TensorInfo) -> AbstractContextManager[Array]:
            begin = 8 + len(raw) + header.offsets[info.name]
            return destination(data[begin : begin + info.packed], info.kind, info.count)

        yield place


def _header_to_write(infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes) -> bytes:
    _check_writable(infos, metadata)
    own = read_layout("safetensors", Layout, layout)
    raw = own.header if own else b""
    if raw:
        header = _parse(raw)
        if set(header.infos) != set(infos) or header.metadata != dict(metadata):
            raise FrameError("the layout's header is not that of these tensors and this metadata")
    else:
        raw = _compose(infos if own else _sorted(infos), metadata)
    if len(raw) > MAX_HEADER:
        raise ArgumentError(f"a header of {len(raw)} bytes: the format allows {MAX_HEADER}")
    return raw


def _check_writable(infos: Sequence[TensorInfo], metadata: Mapping[str, str]) -> None:
    check_text(metadata, _METADATA, ArgumentError)
    for info in infos:
        if info.kind.name not in _RANK:
            raise ArgumentError(f"safetensors has no {info.kind.name}: {_remedy(info.kind)}", path=info.name)
        if info.name == _METADATA or not _is_text(info.name):
            raise ArgumentError("safetensors allows no tensor of this name", path=ascii(info.name))
        if info.count * info.kind.bits % 8:
            raise ArgumentError(f"{info.count} elements of {info.kind.bits} bits fill no whole bytes", path=info.name)


def _remedy(kind: ElementType) -> str:
    return "convert to complex64" if kind.kind == "c" else "convert to I8 or U8"
