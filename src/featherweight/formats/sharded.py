"""Sharded safetensors: Hugging Face's ``model.safetensors.index.json`` and the files beside it that it names.

The tensors come shard by shard, shards in the order in which the index first names them. The *layout* is the index
itself, and the layout of each shard where it has one; metadata is what all shards agree on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import msgspec

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError, within
from featherweight.formats import Checkpoint, Place, TensorInfo, pack_layout, read_layout, safetensors
from featherweight.formats._io import Source, Where, create_target, file_name, open_source, sibling

__all__ = ["Layout", "file_names", "read", "write"]


class Shard(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The layout of a shard, and its metadata where it has not just what all have."""

    layout: bytes
    metadata: dict[str, str] | None


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The index as it was, and the shards in the order in which it names them."""

    index: bytes
    shards: tuple[Shard, ...]


def read(source: Source) -> Checkpoint:
    """Open all shards of an index; it must name exactly the tensors that they hold."""
    with within(source.name, ": "):
        if source.size > safetensors.MAX_HEADER:
            raise FrameError(f"an index of {source.size} bytes: {safetensors.MAX_HEADER} are allowed")
        index = source.read(0, source.size).tobytes()
        names = _names_by_shard(index)
    with ExitStack() as stack:
        shards = []
        for shard, expected in names.items():
            opened = stack.enter_context(open_source(sibling(source.where, shard)))
            checkpoint = safetensors.read(opened)
            with within(opened.name, ": "):
                _check_names(checkpoint.tensors, expected)
            shards.append(checkpoint)
        closing = stack.pop_all()
    closing.callback(source.close)
    metadata = _common([shard.metadata for shard in shards])
    owners = {name: shard for shard in shards for name in shard.tensors}
    common = list(metadata.items())  # the order counts: it is that of the bytes
    own = [None if list(shard.metadata.items()) == common else dict(shard.metadata) for shard in shards]
    return Checkpoint(
        format="safetensors",
        tensors={name: shard.tensors[name] for name, shard in owners.items()},
        metadata=metadata,
        layout=pack_layout("sharded", Layout(index, tuple(map(Shard, (shard.layout for shard in shards), own)))),
        canonical=True,
        fetch=lambda info, start, stop: owners[info.name].read(info.name, start, stop),
        source=source,
        on_close=closing.close,
        shards=tuple(shard.source for shard in shards if shard.source),
    )


def file_names(layout: bytes) -> tuple[str, ...]:
    """Return the names of the shards that a layout of this format would write; none for one of another format."""
    own = read_layout("sharded", Layout, layout)
    return tuple(_names_by_shard(own.index)) if own else ()


def _names_by_shard(index: bytes) -> dict[str, set[str]]:
    mapping = safetensors.parse_json(index, "the index").get("weight_map")
    if not isinstance(mapping, dict):
        raise FrameError("the index has no weight_map")
    names: dict[str, set[str]] = {}
    for tensor, shard in safetensors.check_text(mapping, "weight_map").items():
        # An index is not trusted to name files elsewhere, neither to read nor, as a layout, to write.
        if any(sign in shard for sign in "/\\:\0") or not shard.endswith(".safetensors"):
            raise FrameError(f"{shard!r} is not the plain name of a safetensors file", path=tensor)
        names.setdefault(shard, set()).add(tensor)
    return names


def _check_names(found: Mapping[str, Any], expected: set[str]) -> None:
    for name in expected - found.keys():
        raise FrameError("the index places the tensor in this file, which does not have it", path=name)
    for name in found.keys() - expected:
        raise FrameError("the index does not place the tensor in this file, which has it", path=name)


def _common(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = metadata or [{}]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


@contextlib.contextmanager
def write(where: Where, infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes) -> Iterator[Place]:
    """Write the index and its shards again, each under its name beside the index, which appears last."""
    with within(file_name(where), ": "):
        own = read_layout("sharded", Layout, layout)
        if own is None:
            raise ArgumentError("only a checkpoint that was sharded can be written so: write one .safetensors file")
        names = _names_by_shard(own.index)
        if len(names) != len(own.shards):
            raise FrameError(f"the layout has {len(own.shards)} shards and its index {len(names)}")
        metadatas = [metadata if shard.metadata is None else shard.metadata for shard in own.shards]
        if metadatas and _common(metadatas) != dict(metadata):
            raise FrameError("the layout's metadata is not that of this checkpoint")
        shard_of = {tensor: shard for shard, tensors in names.items() for tensor in tensors}
        _check_names({info.name: info for info in infos}, set(shard_of))
    with ExitStack() as stack:  # what is entered first is published last
        stack.enter_context(create_target(where)).write(own.index)
        places = {}
        for shard, kept, own_metadata in zip(names, own.shards, metadatas, strict=True):
            mine = [info for info in infos if shard_of[info.name] == shard]
            writer = safetensors.write(sibling(where, shard), mine, own_metadata, kept.layout)
            places[shard] = stack.enter_context(writer)

        def place(info: TensorInfo) -> AbstractContextManager[Array]:
            return places[shard_of[info.name]](info)

        yield place
