"""The errors: one class for each one at fault, each carrying the place in the graph or the file.

>>> FrameError("payload ends early", path="planes/exponent/huffman")
FrameError('planes/exponent/huffman: payload ends early')
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "ArgumentError",
    "BaseMismatchError",
    "FeatherweightError",
    "FrameError",
    "LimitError",
    "MissingDependencyError",
    "TruncatedError",
    "UnsupportedError",
    "within",
]


class FeatherweightError(Exception):
    """Abstract base of every error the library raises on purpose.

    `path` names the place: stages and streams joined by slashes (``kmeans/index/rans``), after the tensor's name
    and a colon where a checkpoint is worked on.
    """

    def __new__(cls, *_: object, **__: object) -> Self:
        """Refuse to make the abstract base itself."""
        if cls is FeatherweightError:
            raise TypeError("FeatherweightError is abstract: raise the class that says whose fault it is")
        return super().__new__(cls)

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message,), {"path": self.path})


class ArgumentError(FeatherweightError, ValueError):
    """The caller's array, parameter, recipe or output does not fit."""


class FrameError(FeatherweightError, ValueError):
    """The bytes are damaged, hostile or no frame at all."""


class TruncatedError(FrameError):
    """The bytes end before what they announce."""


class LimitError(FrameError):
    """Decoding would exceed the caller's limit on memory."""


class BaseMismatchError(FeatherweightError, ValueError):
    """A reference is missing, or is not the array that the frame was made against."""


class UnsupportedError(FeatherweightError, ValueError):
    """The bytes need a newer version or a codec that is not known here."""


class MissingDependencyError(FeatherweightError, ImportError):  # type: ignore[misc]  # ImportError has a path too
    """A package is needed that is not installed; the message names the extra that brings it."""


class within:  # noqa: N801  (used as a function; one that yields takes four times as long)
    """Put `place` before the path of an error that passes through."""

    __slots__ = ("place", "separator")

    def __init__(self, place: str, separator: str = "/") -> None:
        self.place, self.separator = place, separator

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Change the error, and let it pass."""
        if isinstance(error, FeatherweightError):
            error.path = f"{self.place}{self.separator}{error.path}" if error.path else self.place
