"""Compile the hot loops with numba when it is there, run them as plain Python when it is not.

A kernel is a module-level function that loops over NumPy arrays of unsigned integers, allocates nothing, raises
nothing and stays inside its arrays whatever bytes they hold::

    @kernel("i8(u1[r], u1[w])")
    def copy(source, target): ...

The signature is explicit, so each kernel is compiled exactly once: scalars are ``u1 u2 u4 u8 i1 i2 i4 i8 f4 f8``,
arrays are contiguous and one-dimensional, ``[r]`` for read-only inputs and ``[w]`` for outputs (``[:,r]`` and
``[:,w]`` are two-dimensional). A *primitive* is a function that kernels call::

    @primitive
    def rotate(x, n): ...

    @primitive(twin=_load64_twin)         # `twin(*types)` returns what numba compiles in its place
    def load64(array, position): ...

``FEATHERWEIGHT_KERNELS=python`` runs everything uncompiled: that is the reference the compiled code is tested against.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np

__all__ = ["Kernel", "compiled", "features", "kernel", "primitive"]

_SCALARS = {
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "f4": "float32",
    "f8": "float64",
}
_ARGUMENT = re.compile(r"\s*(u1|u2|u4|u8|i1|i2|i4|i8|f4|f8)(\[(:,)?([rw])\])?\s*")
_primitives: list[tuple[Callable[..., Any], Callable[..., Any] | None]] = []
_lock = threading.RLock()


@functools.cache
def compiled() -> bool:
    """Return whether kernels are compiled: numba is installed and ``FEATHERWEIGHT_KERNELS`` is not ``python``."""
    wanted = os.environ.get("FEATHERWEIGHT_KERNELS", "numba")
    return wanted != "python" and find_spec("numba") is not None


@functools.cache
def features() -> frozenset[str]:
    """Return the features (``"avx512f"``, …) of the processor that numba compiles for; none where it does not."""
    if not compiled():
        return frozenset()
    with _lock:  # two threads that import numba at once, this one and one that compiles, find it half made
        from numba.core import codegen, config

    if config.CPU_NAME == "generic":
        return frozenset()
    text = config.CPU_FEATURES if config.CPU_FEATURES is not None else codegen.get_host_cpu_features()
    return frozenset(name[1:] for name in text.split(",") if name.startswith("+"))


class Kernel:
    """A function that is compiled the first time it is called."""

    def __init__(self, function: Callable[..., Any], signature: str, *, brief: bool = False) -> None:
        functools.update_wrapper(self, function)
        self.python = function
        self.signature = signature
        self.brief = brief
        self._run: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Run, compiled if kernels are."""
        run = self._run
        if run is None:
            run = self._prepare()
        return run(*args)

    def _prepare(self) -> Callable[..., Any]:
        with _lock:
            if self._run is None:
                self._run = _compile(self.python, self.signature, self.brief) if compiled() else _interpret(self.python)
            return self._run


def kernel(signature: str, *, brief: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a kernel by its signature; see the module's docstring for the notation.

    One that is `brief` takes microseconds however large the tensor is, and keeps the interpreter meanwhile: to get it
    back from other threads takes longer.
    """
    _split(signature)
    return lambda function: Kernel(function, signature, brief=brief)


@overload
def primitive(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def primitive(*, twin: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def primitive(function: Callable[..., Any] | None = None, /, *, twin: Callable[..., Any] | None = None) -> Any:
    """Let kernels call `function`; with `twin`, numba compiles what ``twin(*types)`` returns instead of its body."""

    def register(plain: Callable[..., Any]) -> Callable[..., Any]:
        _primitives.append((plain, twin))
        return plain

    return register if function is None else register(function)


def _split(signature: str) -> tuple[str, list[re.Match[str]]]:
    head, _, tail = signature.partition("(")
    parts = [_ARGUMENT.fullmatch(part) for part in re.split(r",(?![rw]\])", tail.rstrip(")")) if part.strip()]
    if not tail.endswith(")") or head not in {*_SCALARS, "void"} or not all(parts):
        raise ValueError(f"kernel signature {signature!r} is not understood")
    return head, [part for part in parts if part]


def _interpret(function: Callable[..., Any]) -> Callable[..., Any]:
    # Kernels compute modulo 2^n on purpose; NumPy's scalars warn about it.
    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*args)

    return run


def _register_primitives() -> None:
    from numba.extending import overload as numba_overload

    # Only kernels call primitives: they need no wrapper for Python, which would be half of what is compiled.
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    while _primitives:
        plain, twin = _primitives.pop()
        register = numba_overload(plain, jit_options=options, inline="never", strict=False)
        register(twin or (lambda *_, plain=plain: plain))


def _compile(function: Callable[..., Any], signature: str, brief: bool) -> Callable[..., Any]:
    import numba
    from numba import types

    _register_primitives()
    result, parts = _split(signature)
    arguments = []
    for part in parts:
        scalar = getattr(types, _SCALARS[part[1]])
        if part[2]:
            scalar = types.Array(scalar, 2 if part[3] else 1, "C", readonly=part[4] == "r")
        arguments.append(scalar)
    returns = types.void if result == "void" else getattr(types, _SCALARS[result])
    dispatcher = numba.njit(nogil=not brief, error_model="numpy")(function)
    cache = _cache(function, brief)
    if cache is not None:
        dispatcher._cache = cache  # noqa: SLF001  (numba's own way takes no other place)
    dispatcher.compile(returns(*arguments))
    dispatcher.disable_compile()
    run: Callable[..., Any] = dispatcher
    return run


@functools.cache
def _fingerprint() -> str:
    """Hash what machine code depends on and numba does not watch: this file, every kernel file, numba's version."""
    import llvmlite
    import numba

    here = Path(__file__).parent
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version}".encode())
    for file in [Path(__file__), *sorted((here / "codecs" / "_kernels").glob("*.py"))]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _stamp(file: str) -> str:
    """Return a hash of a file with kernels of somebody else's, of which numba sees only the byte code."""
    if Path(file).parent == Path(__file__).parent / "codecs" / "_kernels":
        return ""
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return ""


def _cache_directory() -> Path | None:
    """Return a writable directory for machine code, or None: then every process compiles for itself."""
    import tempfile

    named = os.environ.get("FEATHERWEIGHT_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    homes = [Path(named)] if named else []
    with contextlib.suppress(RuntimeError):  # a user without a home
        homes.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
    for home in homes:
        place = home / "featherweight" / _fingerprint()
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    return None


def _cache(function: Callable[..., Any], brief: bool) -> Any:
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

    place = _cache_directory()
    if place is None:
        return None

    class Locator(_CacheLocator):
        def get_cache_path(self) -> str:
            return str(place)

        def get_source_stamp(self) -> str:
            return _fingerprint() + _stamp(function.__code__.co_filename)

        def get_disambiguator(self) -> str:
            return f"{function.__module__}{'.brief' * brief}"

        @classmethod
        def from_function(cls, *_: Any) -> Any:
            return cls()

    class Impl(CompileResultCacheImpl):
        _locator_classes = (Locator,)

    class Cache(FunctionCache):
        _impl_class = Impl

        def _save_overload(self, *args: Any) -> None:
            # A full disk or a directory taken away must not fail the caller's work: run uncached.
            try:
                super()._save_overload(*args)
            except OSError:
                self.disable()

        def _load_overload(self, *args: Any) -> Any:
            try:
                return super()._load_overload(*args)
            except Exception:  # noqa: BLE001 - damaged pickles raise anything; a cache is never worth an error
                with contextlib.suppress(OSError):
                    self.flush()
                return None

    return Cache(function)
