"""Who may import whom, what `import featherweight` costs, and what a codec file must say."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featherweight
from featherweight import codecs

ROOT = Path(featherweight.__file__).parent

# A module stands on the floor that names it, or its package; it may import what stands below, and its own floor where
# that says so.
FLOORS = [
    {"errors", "dtypes"},
    {"stage", "kernel", "threads"},
    {"codecs", "frame"},
    {"auto", "lossy", "named", "prune", "rough", "smooth", "weights", "recipes"},
    {"linking", "losses"},
    {"decoder", "encoder"},
    {"engine", "lookups"},
    {"formats"},
    {"plan", "goals", "bundles", "writing", "drafts", "reading", "checkpoint", "traffic", "compare", "describe"},
    {"rivals", "testing", "cli", "_cli", "__main__", "pytorch"},
]
HEAVY = ("numba", "llvmlite", "scipy", "torch", "typer", "rich", "hypothesis", "fsspec", "click")


def modules(root: Path = ROOT) -> dict[str, Path]:
    found = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(source: str) -> set[str]:
    """Return the modules of ours that a source imports, anywhere in it but for type checkers."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names} if base else {f".{node.level}"}
    ours = {name for name in found if name.partition(".")[0] in ("featherweight", "")}
    return {name.removeprefix("featherweight").lstrip(".") for name in ours}


def room(module: str) -> str:
    """Return the first part of a module's name; the command line has several files."""
    first = module.partition(".")[0]
    return "cli" if first.startswith("_cli") else first


def floor(module: str) -> int | None:
    return next((i for i, rooms in enumerate(FLOORS) if room(module) in rooms), None)


def violations(module: str, source: str) -> list[str]:
    here, found = floor(module), []
    for name in sorted(imports(source)):
        there = floor(name)
        if there is None or room(name) == "__version__":
            continue
        if room(name) == room(module):
            if room(module) == "codecs" and module != "codecs" and not allowed_in_codecs(module, name):
                found.append(f"{module} imports {name}: a codec imports no other codec")
        elif here is None or there > here:
            found.append(f"{module} imports {name}, which stands above it")
    return found


def allowed_in_codecs(module: str, name: str) -> bool:
    """Allow the table no codec, a codec its kernels and what codecs share; nobody another codec."""
    return name.startswith("codecs._")


def test_every_module_stands_on_a_floor() -> None:
    assert [] == [name for name in modules() if name and floor(name) is None]


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_a_module_imports_only_what_stands_below(module: str) -> None:
    assert [] == violations(module, modules()[module].read_text())


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("codecs._kernels.")])
def test_kernels_see_words_and_nothing_of_the_package_but_kernel_and_primitives(module: str) -> None:
    allowed = {"kernel", "codecs._kernels", "dtypes.Array"}
    others = {name for name in imports(modules()[module].read_text()) if not any(name.startswith(a) for a in allowed)}
    assert set() == others


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "from featherweight import stage"),
        ("dtypes", "from featherweight.kernel import kernel"),
        ("stage", "def f():\n    from featherweight.frame import Frame"),
        ("codecs.raw", "import featherweight.engine"),
        ("codecs.raw", "from featherweight.codecs import huffman"),
        ("codecs.raw", "from featherweight.codecs.huffman import Huffman"),
        ("codecs", "from featherweight.codecs.huffman import Huffman\nfrom featherweight import cli"),
        ("frame", "from featherweight.decoder import run"),
        ("engine", "from featherweight.testing import arrays"),
        ("formats.fw", "from featherweight import checkpoint"),
        ("auto", "from featherweight import engine as anything"),
    ],
)
def test_a_violation_is_caught(module: str, source: str) -> None:
    assert violations(module, source)


def loaded(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def heavy(names: set[str]) -> set[str]:
    ours = {f"featherweight.codecs.{name}" for name in codecs.names()} | {"featherweight.testing", "featherweight.cli"}
    return {name for name in names if name.split(".")[0] in HEAVY or name in ours}


def test_importing_featherweight_loads_nothing_heavy() -> None:
    assert set() == heavy(loaded("import featherweight; dir(featherweight); featherweight.ArgumentError"))


@pytest.mark.parametrize("module", ["engine", "decoder", "encoder", "recipes", "stage", "frame", "kernel", "errors"])
def test_the_engine_loads_codecs_and_compilers_only_when_a_frame_needs_them(module: str) -> None:
    assert set() == heavy(loaded(f"import featherweight.{module}"))


def test_what_is_heavy_is_noticed() -> None:
    assert {"hypothesis"} <= heavy(loaded("import featherweight.testing"))
    assert {"featherweight.codecs.raw"} == heavy(loaded("import featherweight.codecs.raw"))


def test_every_public_name_is_there() -> None:
    for name in featherweight.__all__:
        assert name in dir(featherweight)
        getattr(featherweight, name)
    with pytest.raises(AttributeError):
        featherweight.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", codecs.names())
def test_a_codec_module_is_its_specification(name: str) -> None:
    module = importlib.import_module(f"featherweight.codecs.{name}")
    first, *rest = (module.__doc__ or "").splitlines()
    assert first.endswith((".", ":"))
    for section in ("Wire:", "Streams:", "Decoding:", ">>> "):
        assert any(line.startswith(section) for line in rest), f"{name} says nothing under {section}"
    assert name == module.CODEC.name
    assert codecs.stage_class(name).codec is module.CODEC
    streams = re.split(r"\n(?=[A-Z]\w+:)", module.__doc__)
    section = next(part for part in streams if part.startswith("Streams:"))
    for port in module.CODEC.streams[:2]:
        assert f"`{port.name}`" in section, f"{name} does not describe its stream {port.name}"


def test_the_table_of_codecs_has_every_file_once() -> None:
    files = {info.name for info in pkgutil.iter_modules([str(ROOT / "codecs")]) if not info.name.startswith("_")}
    assert files == set(codecs.CODECS.values())
    assert len(files) == len(codecs.CODECS)
    assert all(0 < number < 128 for number in codecs.CODECS), "a number is one byte on the wire"


def documented() -> list[str]:
    return [name for name, file in modules().items() if ">>>" in file.read_text()]


@pytest.mark.parametrize("name", documented())
def test_examples_run(name: str) -> None:
    module = importlib.import_module(f"featherweight.{name}" if name else "featherweight")
    assert 0 == doctest.testmod(module).failed


@pytest.mark.parametrize("module", [name for name in modules() if room(name) not in ("cli", "__main__")])
def test_only_the_command_line_prints(module: str) -> None:
    calls = (node.func for node in ast.walk(ast.parse(modules()[module].read_text())) if isinstance(node, ast.Call))
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_sums_depend_neither_on_threads_nor_on_a_library_that_has_its_own() -> None:
    """BLAS adds in another order with every number of threads, and its threads keep ours from the processor."""
    names = {f"np.{name}" for name in ("dot", "vdot", "inner", "matmul", "tensordot", "einsum", "linalg")}
    found = set()
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
            if product or (isinstance(node, ast.Attribute) and ast.unparse(node) in names):
                found.add(module)
    assert found == {"codecs.lowrank", "codecs._kernels._vector"}  # which says so, and a kernel's reference in Python
