"""Kernels: compiled or not they do the same, and the cache of machine code serves neither old code nor nobody."""

import functools
import importlib
import math
import os
import pkgutil
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featherweight
from featherweight import codecs, kernel
from featherweight.codecs import _kernels
from featherweight.codecs._kernels import _floats
from featherweight.errors import FeatherweightError
from featherweight.stage import Recipe
from featherweight.testing import Case, Sealed, arrays_for, cases, mutated, only_our_errors, same, stages

PACKAGE = Path(featherweight.__file__).parent
GOLDEN = Path(__file__).parent / "golden"


def all_kernels() -> list[kernel.Kernel]:
    names = [found.name for found in pkgutil.iter_modules(_kernels.__path__)]
    modules = [importlib.import_module(f"{_kernels.__name__}.{name}") for name in names]
    return list({id(v): v for m in modules for v in vars(m).values() if isinstance(v, kernel.Kernel)}.values())


@contextmanager
def interpreted() -> Iterator[None]:
    """Run every kernel as plain Python, with whatever NumPy warns of as an error."""
    before = [(k, k._run) for k in all_kernels()]
    try:
        for k, _ in before:
            k._run = kernel._interpret(k.python)
        yield
    finally:
        for k, run in before:
            k._run = run


def python(code: str, **env: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    full = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **env}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        env={key: value for key, value in full.items() if value != "(unset)"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert 0 == result.returncode, result.stderr
    return result.stdout.strip()


# The same, compiled or not


@pytest.mark.parametrize("name", codecs.names())
def test_compiled_and_interpreted_kernels_give_the_same_bytes_and_arrays(name: str) -> None:
    # Fitting models and searching trellises takes seconds without machine code.
    @settings(max_examples=10 if name in ("ggd", "trellis") else settings.default.max_examples)
    @given(stages(name).flatmap(lambda s: st.tuples(st.just(s), arrays_for(s, most=200))), st.integers(0, 1 << 32))
    def search(drawn: tuple[Any, Any], seed: int) -> None:
        stage, (x, inputs) = drawn
        refs = {f"r{i}": array for i, array in enumerate(inputs)}
        recipe = Recipe(stage, (), tuple(f"@{ref}" for ref in refs))
        expected = featherweight.encode(x, recipe, refs=refs)
        hostile = Sealed(mutated(Sealed(expected, refs, {}), random.Random(seed)), refs, {})
        whole, decoded = featherweight.decode(expected, refs=refs), only_our_errors(hostile)
        with interpreted():
            assert expected == featherweight.encode(x, recipe, refs=refs)
            assert same(whole, featherweight.decode(expected, refs=refs))
            again = only_our_errors(hostile, 1 << 16)
        assert decoded is None or again is None or same(decoded, again)

    search()


@given(cases())
def test_whole_recipes_give_the_same_frame_compiled_or_interpreted(case: Case) -> None:
    expected = featherweight.encode(case.x, case.recipe, refs=case.refs, threads=1)
    decoded = featherweight.decode(expected, refs=case.refs, threads=1)
    with interpreted():
        assert expected == featherweight.encode(case.x, case.recipe, refs=case.refs, threads=1)
        assert same(decoded, featherweight.decode(expected, refs=case.refs, threads=1))


def test_every_kernel_is_compiled_once_for_its_signature() -> None:
    for k in all_kernels():
        kernel._split(k.signature)
        arguments = k.signature.partition("(")[2]
        assert "[" not in arguments or "[r]" in arguments or "[w]" in arguments or "[:" in arguments
        assert "r]" in arguments or "w]" in arguments


@pytest.mark.parametrize("signature", ["", "u1", "u1(", "u3(u1)", "u1(u1[])", "u1(u1[x])", "i8(object)", "u1(u1[r]"])
def test_a_signature_that_is_not_understood_is_refused_when_it_is_declared(signature: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        kernel.kernel(signature)


_ENVIRONMENT = """
import numpy as np, featherweight
from featherweight import kernel
x = (np.arange(600, dtype=np.float32).reshape(20, 30) - 250) * np.float32(0.01)
frame = featherweight.encode(x, "lossless-small")
assert featherweight.decode(frame).tobytes() == x.tobytes()
print(kernel.compiled(), frame.hex())
"""


def test_the_environment_turns_compilation_off() -> None:
    compiled = python(_ENVIRONMENT, FEATHERWEIGHT_KERNELS="(unset)").split()
    plain = python(_ENVIRONMENT, FEATHERWEIGHT_KERNELS="python").split()
    assert ["True", "False"] == [compiled[0], plain[0]]
    assert compiled[1] == plain[1]


def test_without_numba_frames_are_coded_and_decoded_all_the_same() -> None:
    without = "import sys; sys.modules.update(numba=None, llvmlite=None)\n"
    compiled = python(_ENVIRONMENT, FEATHERWEIGHT_KERNELS="(unset)").split()
    plain = python(without + _ENVIRONMENT, FEATHERWEIGHT_KERNELS="(unset)").split()
    assert ["False", compiled[1]] == plain


def test_decoding_golden_frames_needs_neither_numba_nor_scipy_nor_hypothesis() -> None:
    frames = sorted(GOLDEN.glob("*.fw"))
    assert frames, "there are no golden frames"
    code = f"""
import sys
gone = ("numba", "llvmlite", "scipy", "hypothesis", "pytest", "rich", "typer", "bitarray")
sys.modules.update(dict.fromkeys(gone))
from pathlib import Path
import featherweight
for file in sorted(Path({str(GOLDEN)!r}).glob("*.fw")):
    if not featherweight.inspect(file.read_bytes()).refs:
        featherweight.decode(file.read_bytes())
print("done")
"""
    assert "done" == python(code)


# The cache


_PROBE = """
from featherweight.codecs._kernels.zz_step import step
from featherweight.kernel import kernel

@kernel('i8(u1[r])')
def probe(source):
    total = 0
    for i in range(source.size):
        total += step(source[i])
    return total

@kernel('i8(u1[r])')
def another(source):
    return source.size
"""
_STEP = """
from featherweight.kernel import primitive

@primitive
def step(x):
    return x + 1
"""
_CALL = """
import time
from featherweight.kernel import compiled
assert compiled()
from numba.core import event
listener = event.RecordingListener()
with event.install_listener("numba:compile", listener):
    import numpy as np
    from featherweight.codecs._kernels.zz_probe import probe
    result = probe(np.arange(4, dtype=np.uint8))
print(result, len(listener.buffer) // 2)
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package with a kernel and a primitive, each in a file of its own."""
    if not kernel.compiled():
        pytest.skip("kernels are not compiled here")
    home = tmp_path / "copy"
    shutil.copytree(PACKAGE, home / "featherweight", ignore=shutil.ignore_patterns("__pycache__"))
    inner = home / "featherweight" / "codecs" / "_kernels"
    (inner / "zz_probe.py").write_text(_PROBE)
    (inner / "zz_step.py").write_text(_STEP)
    for path in (tmp_path.parent, tmp_path, *home.rglob("*")):
        path.chmod(path.stat().st_mode | 0o555 if path.is_dir() else 0o644)
    return home


def probe(copied: Path, cache: Path | str, **env: str) -> list[int]:
    """Run the kernel in a fresh process; return its result and how many functions were compiled."""
    out = python(_CALL, PYTHONPATH=str(copied), FEATHERWEIGHT_CACHE_DIR=str(cache), PYTHONDONTWRITEBYTECODE="1", **env)
    return [int(word) for word in out.split()]


def test_the_second_process_compiles_nothing(copied: Path, tmp_path: Path) -> None:
    result, compiled = probe(copied, tmp_path / "cache")
    assert 10 == result
    assert compiled > 0
    assert [10, 0] == probe(copied, tmp_path / "cache")


def test_a_primitive_edited_in_another_file_is_compiled_anew(copied: Path, tmp_path: Path) -> None:
    assert 10 == probe(copied, tmp_path / "cache")[0]
    step = copied / "featherweight" / "codecs" / "_kernels" / "zz_step.py"
    before = step.stat()
    step.write_text(_STEP.replace("x + 1", "x + 2"))
    os.utime(step, ns=(before.st_atime_ns, before.st_mtime_ns))
    result, compiled = probe(copied, tmp_path / "cache")
    assert 14 == result
    assert compiled > 0


def test_eight_processes_that_start_cold_at_once_all_get_it_right(copied: Path, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(copied),
        "FEATHERWEIGHT_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start = functools.partial(subprocess.Popen, [sys.executable, "-c", _CALL], env=env, text=True)
    running = [start(stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    results = [process.communicate(timeout=120) for process in running]
    assert ["10"] * 8 == [out.split()[0] if out else errors for out, errors in results]
    assert [10, 0] == probe(copied, tmp_path / "cache")


@pytest.mark.parametrize("damage", [b"", b"\x80\x04garbage", b"\0" * 1000])
def test_a_damaged_cache_is_compiled_over(copied: Path, tmp_path: Path, damage: bytes) -> None:
    probe(copied, tmp_path / "cache")
    files = [file for file in (tmp_path / "cache").rglob("*") if file.suffix in (".nbi", ".nbc")]
    assert files
    for file in files:
        file.write_bytes(damage)
    assert 10 == probe(copied, tmp_path / "cache")[0]


_OTHER_USER = """
import os
import numpy as np
from featherweight.codecs._kernels.zz_probe import another, probe
probe(np.arange(4, dtype=np.uint8))  # another user may not be able to read what numba imports by and by
for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
    os.environ.pop(name, None)
place, home = os.environ["PLACE"].split(":")
os.environ["FEATHERWEIGHT_CACHE_DIR"] = place
if home:
    os.environ["HOME"] = home
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
print(another(np.arange(4, dtype=np.uint8)))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("home", ["/nonexistent", ""])
def test_a_cache_directory_that_another_user_owns_costs_only_the_cache(copied: Path, tmp_path: Path, home: str) -> None:
    place = tmp_path / "cache"
    place.mkdir(mode=0o755)
    env = {"PYTHONPATH": str(copied), "FEATHERWEIGHT_CACHE_DIR": str(tmp_path / "first"), "PLACE": f"{place}:{home}"}
    assert "4" == python(_OTHER_USER, PYTHONDONTWRITEBYTECODE="1", **env)
    assert [] == list(place.rglob("*"))


def test_a_full_disk_costs_only_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel.compiled():
        pytest.skip("kernels are not compiled here")
    from numba.core.caching import FunctionCache

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FunctionCache, "_save_overload", full)
    fresh = kernel.Kernel(_triple, "i8(u1[r])")
    assert 9 == fresh(np.array([1, 2], np.uint8))


def _triple(source: Any) -> int:
    total = 0
    for i in range(source.size):
        total += source[i] * 3
    return total


def test_an_error_of_ours_is_raised_whether_or_not_kernels_are_compiled() -> None:
    frame = bytearray(featherweight.encode(np.arange(256, dtype=np.uint8).repeat(3), "rans"))
    frame[-1] ^= 1
    for context in (interpreted, nullcontext):
        with context(), pytest.raises(FeatherweightError):
            featherweight.decode(frame)


def test_numba_is_imported_by_one_thread_at_a_time() -> None:
    asked = threading.Thread(target=kernel.features.__wrapped__)
    with kernel._lock:
        asked.start()
        asked.join(0.2)
        assert asked.is_alive() == kernel.compiled()
    asked.join(60)
    assert not asked.is_alive()


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), max_size=400), st.sampled_from(["f4", "f8"]))
def test_dot_products_are_those_of_exact_arithmetic_but_for_rounding(values: list[float], dtype: str) -> None:
    x = np.array(values, dtype)
    y = x[::-1].copy()
    products = [float(a) * float(b) for a, b in zip(x, y, strict=True)]
    found = _floats.dot(x, y)
    with interpreted():
        assert found == _floats.dot(x, y)
    assert found == pytest.approx(math.fsum(products), abs=1e-13 * math.fsum(map(abs, products)))


def test_a_brief_kernel_keeps_the_interpreter_and_another_does_not() -> None:
    if not kernel.compiled():
        pytest.skip("kernels are not compiled here")
    source = np.ones(1 << 26, np.uint8)

    def others(function: Any, *, brief: bool) -> int:
        """Return how often another thread got the interpreter while a kernel ran."""
        counts = kernel.Kernel(function, "i8(u1[r])", brief=brief)
        counts(source[:1])
        turns, done = [0], threading.Event()

        def turn() -> None:
            while not done.is_set():
                turns[0] += 1
                time.sleep(0)

        thread = threading.Thread(target=turn)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(60)  # nobody gets the interpreter who is not given it
        try:
            thread.start()
            before = turns[0]
            counts(source)
            return turns[0] - before
        finally:
            sys.setswitchinterval(interval)
            done.set()
            thread.join()

    assert others(_brief, brief=True) == 0
    assert any(others(_triple, brief=False) for _ in range(50))  # where all cores are busy it may not come up at once


def _brief(source: Any) -> int:  # of its own: what is in the cache for another has its wrapper
    total = 0
    for i in range(source.size):
        total += source[i] * 3
    return total


_OWN = """
from featherweight.kernel import kernel


@kernel("i8(u1[r])")
def times(source):
    total = 0
    for i in range(source.size):
        total += source[i] * {factor}
    return total
"""


def test_a_kernel_of_ones_own_is_compiled_anew_when_its_file_changes(tmp_path: Path) -> None:
    if not kernel.compiled():
        pytest.skip("kernels are not compiled here")
    path = os.pathsep.join(map(str, (tmp_path, PACKAGE.parent)))
    env = {"PYTHONPATH": path, "FEATHERWEIGHT_CACHE_DIR": str(tmp_path / "cache")}
    for factor in (3, 5):  # a constant, of which numba sees nothing in the byte code
        (tmp_path / "own.py").write_text(_OWN.format(factor=factor))
        call = "import numpy as np, own; print(own.times(np.arange(4, dtype=np.uint8)))"
        assert str(6 * factor) == python(call, PYTHONDONTWRITEBYTECODE="1", **env)
