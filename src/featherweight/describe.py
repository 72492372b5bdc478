"""What the programs of a frame say, written as recipes are."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

from featherweight import codecs as codec_table
from featherweight.errors import UnsupportedError
from featherweight.frame import GIVEN, REFERENCE, SPLIT, Frame, Node, Program

__all__ = ["Branch", "describe"]

MOST_NODES = 64  # of a program are written out, then dots: programs may be hostile
MOST_STREAMS = 3  # of a stage are named in brief


class Branch(NamedTuple):
    """A recipe, how many pieces were coded with it, and its beginning: what the first streams went into."""

    recipe: str
    pieces: int
    brief: str


def describe(frame: Frame) -> list[Branch]:
    """Return what a frame's array was coded with, the most frequent first.

    Streams that are stored as they are go unmentioned. What encoders were told is not in a frame, so that these are the
    recipes of stages with their defaults.
    """
    root = frame.root
    if not root.nodes and root.leaves[-1][0] == SPLIT:
        return _branches(frame, len(frame.splits) - 1)
    return [Branch(_Writer(frame, root).whole(), 1, _Writer(frame, root).brief())]


def _branches(frame: Frame, split: int) -> list[Branch]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for number, count in collections.Counter(piece[0] for piece in frame.splits[split].pieces).items():
        program = frame.branches[number]
        counts[_Writer(frame, program).whole(), _Writer(frame, program).brief()] += count
    return [Branch(recipe, pieces, brief) for (recipe, brief), pieces in counts.most_common()]


class _Writer:
    def __init__(self, frame: Frame, program: Program) -> None:
        self.frame, self.program, self.left = frame, program, MOST_NODES
        self.names = {
            edge: port for node in program.nodes for edge, port in zip(node.streams, _ports(node), strict=False)
        }

    def whole(self) -> str:
        """Write the program's result."""
        return self.edge(len(self.program.leaves) + len(self.program.nodes) - 1)

    def brief(self) -> str:
        """Write no more than one level of it, and of that not what is constant."""
        if not self.program.nodes:
            return self.whole()
        node, first = self.program.nodes[-1], len(self.program.leaves)
        parts = [
            f"{port}={_name(self.program.nodes[edge - first])}" for port, edge in self.streams(node) if edge >= first
        ]
        parts = [part for part in parts if not part.endswith("=constant")]
        if len(parts) > MOST_STREAMS:
            parts[MOST_STREAMS:] = ["…"]
        return f"{_name(node)}({', '.join(parts)})" if parts else _name(node)

    def edge(self, number: int, depth: int = 0) -> str:
        leaves = self.program.leaves
        if number < len(leaves):
            return self.leaf(number)
        self.left -= 1
        if self.left < 0 or depth > 32:
            return "…"
        node = self.program.nodes[number - len(leaves)]
        arguments = [f"{port}={self.edge(edge, depth + 1)}" for port, edge in self.streams(node)]
        if node.given:
            names = [self.given(edge) for edge in node.given]
            arguments.insert(0, f"given={names[0] if len(names) == 1 else '[' + ', '.join(names) + ']'}")
        return f"{_name(node)}({', '.join(arguments)})" if arguments else _name(node)

    def streams(self, node: Node) -> Iterator[tuple[str, int]]:
        for port, edge in zip(_ports(node), node.streams, strict=False):
            stored = edge < len(self.program.leaves) and self.program.leaves[edge][0] not in (SPLIT, REFERENCE, GIVEN)
            if not stored and self.left > 0:
                yield port, edge

    def given(self, number: int) -> str:
        leaf = self.program.leaves[number] if number < len(self.program.leaves) else ()
        if leaf and leaf[0] == REFERENCE:
            return f"@{self.frame.refs[leaf[1]]}"
        if leaf and leaf[0] == GIVEN:
            return _Writer(self.frame, self.frame.root).names.get(leaf[1], str(leaf[1]))
        return self.names.get(number, str(number))

    def leaf(self, number: int) -> str:
        leaf = self.program.leaves[number]
        if leaf[0] in (REFERENCE, GIVEN):
            return self.given(number)
        if leaf[0] != SPLIT:
            return "raw"
        split = sum(other[0] == SPLIT for other in self.program.leaves[:number])
        branches = _branches(self.frame, split)
        return f"split({branches[0].recipe})" if branches else "split(raw)"


def _name(node: Node) -> str:
    return codec_table.CODECS.get(node.codec, f"codec-{node.codec}") if isinstance(node.codec, int) else node.codec


def _ports(node: Node) -> list[str]:
    try:
        return (
            [port.name for port in codec_table.codec(node.codec).streams]
            if isinstance(node.codec, int)
            else _unnamed(node)
        )
    except UnsupportedError:
        return _unnamed(node)


def _unnamed(node: Node) -> list[str]:
    return [f"stream{number}" for number in range(len(node.streams))]
