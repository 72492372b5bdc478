"""The command line: what it prints, what it leaves on the disk, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import featherweight
from featherweight import dtypes
from featherweight.cli import app, reports, screen, text
from featherweight.cli.coding import _Clock
from featherweight.cli.options import bytes_of
from featherweight.compare import compare, damages
from featherweight.describe import describe
from featherweight.errors import ArgumentError
from featherweight.formats import open_checkpoint, tensor_info, write_checkpoint
from featherweight.frame import FLAT, Frame, Node, Program

RAW = "split(raw)"
COMMAND = [sys.executable, "-m", "featherweight"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featherweight.__file__).parents[1])}
LONG = "transformer." + "x" * 80 + ".weight"
BF16 = dtypes.of("BF16").dtype


def run(*arguments, code=0, **more):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **more)
    assert result.exit_code == code, result.output
    return result


def spawn(*arguments, **more):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, timeout=60, check=False, **more
    )


def write(path, tensors, metadata=None):
    infos = [tensor_info(name, dtypes.of(array.dtype), array.shape) for name, array in tensors.items()]
    with write_checkpoint(path, infos, metadata=metadata) as out:
        for name, array in tensors.items():
            out.put(name, array)
    return path


def make_tensors(seed=0):
    random = np.random.default_rng(seed)
    return {
        "bias": np.linspace(0, 1, 7, dtype=np.float32),
        LONG: random.standard_normal((30, 40)).astype(BF16),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(2.5, np.float64),
    }


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "model.safetensors", make_tensors(), {"format": "pt"})


@pytest.fixture
def coded(source):
    run("encode", source, "-r", RAW)
    return source.with_name("model.fw")


def make_sharded(folder):
    tensors = make_tensors()
    names = {
        name: f"model-{number:05}-of-00002.safetensors" for name, number in zip(tensors, (1, 2, 2, 1), strict=True)
    }
    for shard in set(names.values()):
        write(folder / shard, {name: array for name, array in tensors.items() if names[name] == shard})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


# --- encode and decode ---------------------------------------------------------------------------------------------


def test_there_and_back_is_the_same_file(source, tmp_path):
    said = run("encode", source, "-r", RAW).stdout
    size = source.with_name("model.fw").stat().st_size
    assert re.fullmatch(
        rf".*model\.fw: {text.size(size)} from \S+ \w+, ratio \d\.\d+, [\d.]+ bits per weight, [\d.]+ s( \(.*/s\))?\n",
        said,
    )
    original = source.read_bytes()
    source.unlink()
    assert "model.safetensors: " in run("decode", tmp_path / "model.fw").stdout
    assert source.read_bytes() == original


def test_a_directory_as_target(source, tmp_path):
    (tmp_path / "out").mkdir()
    run("encode", source, tmp_path / "out", "-r", RAW)
    run("decode", tmp_path / "out" / "model.fw", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == source.read_bytes()


def test_nothing_is_overwritten_without_force(source, coded):
    before = coded.read_bytes()
    for command, path in (("encode", source), ("decode", coded)):
        refused = run(command, path, code=2).stderr
        assert re.fullmatch(r"featherweight: .*model\.\w+: it exists already: .*--force\n", refused)
    assert coded.read_bytes() == before
    run("encode", source, coded, "-r", RAW, "--force")
    run("decode", coded, "-f")


def test_quiet_says_nothing(source, coded):
    for arguments in (("encode", source, "-r", RAW, "-qf"), ("decode", coded, "-qf"), ("verify", coded, source, "-q")):
        assert run(*arguments).output == ""


def test_npz_and_other_formats(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.arange(6.0).reshape(2, 3))
    run("encode", tmp_path / "a.npz", "-r", RAW)
    said = run("verify", tmp_path / "a.fw", tmp_path / "a.npz").stdout
    assert "bit for bit" in said
    assert "written canonically" in said
    assert "byte for byte" not in said
    (tmp_path / "a.npz").unlink()
    run("decode", tmp_path / "a.fw")
    run("decode", tmp_path / "a.fw", tmp_path / "b.safetensors")
    run("diff", tmp_path / "a.npz", tmp_path / "b.safetensors")


def test_a_sharded_checkpoint(tmp_path):
    index = make_sharded(tmp_path)
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert f"from {text.size(total)}," in run("encode", index, "-r", RAW).stdout
    assert "byte for byte" in run("verify", tmp_path / "model.fw", index).stdout
    copy = tmp_path / "copy"
    copy.mkdir()
    (tmp_path / "model.fw").rename(copy / "model.fw")
    shard = copy / "model-00001-of-00002.safetensors"
    shard.write_bytes(b"something else")
    assert str(shard) in run("decode", copy / "model.fw", code=2).stderr
    assert [path.name for path in copy.iterdir() if path != shard] == ["model.fw"]
    run("decode", copy / "model.fw", "--force")
    for path in copy.glob("*.json"), copy.glob("*.safetensors"):
        for file in path:
            assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_rules(source):
    said = run("encode", source, "-r", RAW, "--rule", "bias=constant(value=raw)", "--rule", "bais*=raw", "-f", code=2)
    assert "featherweight: warning: rule 'bais*=raw' fits no tensor" in said.stderr
    assert "bias: constant: " in said.stderr.splitlines()[1]
    run("encode", source, "-r", RAW, "--rule", "b*=planes", "--rule", "[bn]*=constant", "--rule", "none=raw")
    report = json.loads(run("inspect", source.with_name("model.fw"), "--json").stdout)
    found = {tensor["name"]: tensor["recipe"] for tensor in report["tensors"]}
    assert found == {"bias": "planes", "none": "constant", LONG: "raw", "scalar": "raw"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "bias"], r"rule 'bias': expected 'pattern=recipe', such as '\*.bias=raw'"),
        (
            ["-r", "huffmann"],
            r"recipe 'huffmann', at .*0: no recipe or stage is called 'huffmann'; did you mean 'huffman'\?",
        ),
        (["-r", "split(planes(zzz=raw))"], r"recipe '.*', at .*\d+: .*planes .*'zzz'.*exponent"),
        (["-r", "split(raw"], r"recipe 'split\(raw', at .*9: expected ','"),
        (["--threads", "0"], r"Invalid value for '--threads'.* 1 \(see: featherweight encode --help\)"),
    ],
)
def test_bad_recipes_and_options(source, arguments, message):
    assert re.match(f"featherweight: {message}", run("encode", source, *arguments, code=2).stderr)
    assert not source.with_name("model.fw").exists()


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (("--snr", "20"), r"SNR 20\.0 dB"),
        (("--nmse", "0.01"), r"NMSE 0\.00?99\d*, SNR 20\.\d dB"),
        (("--max-error", "0.1"), r"Largest error of all tensors: 0\.(100|09\d+)"),
        (("--bits", "8", "-r", "deep-compression(sparsity=0.5)"), r"but for 1 tensor, whose knobs are their own\."),
    ],
)
def test_a_goal(source, goal, met):
    said = run("encode", source, "-r", "ecsq", *goal).stdout
    assert re.search(met, " ".join(said.split())), said


def test_a_file_far_below_the_size_that_was_asked_for_is_told_as_that(source):
    said = " ".join(run("encode", source, "-r", "deep-compression(sparsity=0.5)", "--bits", "12").stdout.split())
    assert re.search(r"The file is \d+% below what was asked for: no value of bits was found that comes nearer\.", said)
    for near in ("--bits=9", "--nmse=1e-3"):
        assert "below what was asked for" not in run("encode", source, "-f", "-r", "ecsq", near).stdout


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_table_of_errors_names_its_tensors_on_any_terminal(width, capsys, monkeypatch):
    names = [f"layers.{i}.attention.output.weight" for i in range(3)]
    rows = [
        [name, "F32", "300x784", "dct(coefficients=levels)", "1.239", "53.1 %", "0.0123", "0.011", "19.6"]
        for name in names
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    screen.print_table((*reports.INSPECT, *reports.LOSSES), rows)
    table, _, note = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).partition("Left out, since ")
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    second = re.search(r"tensor +", lines[0]).end()
    assert "".join(line[:second].strip() for line in lines[2:]) == "".join(names)
    assert all(any(value in line for line in lines) for value in ("NMSE", "0.011", "1.239"))
    assert ("SNR dB" in note) == (width < 140)


def test_sensitivities(source):
    fits = f"{LONG[:9]}*=16"
    options = ("-r", "ecsq", "--bits", "6", "--sensitivity", fits, "--sensitivity", "x*=2", "--force")
    said = run("encode", source, *options)
    assert "warning: sensitivity 'x*=2' fits no tensor of this file" in said.stderr
    assert fits not in said.stderr
    assert re.search(r"The recipe is ecsq\(.*\), but for 1 tensor, whose knobs are their own\.", said.stdout)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (("--snr", "nan"), "snr=nan: expected a number"),
        (("--snr", "inf"), "snr=inf: expected a number"),
        (("--snr", "-10"), r"snr=-10\.0: expected a number above 0"),
        (("--snr", "1e9"), r"snr=1000000000\.0: expected decibels, 3,000 at most"),
        (("--snr", "20", "--nmse", "0.01"), "--nmse and --snr: a file is encoded for one goal"),
        (("--sensitivity", "a=2"), "--sensitivity says how a goal is met: name one, such as --bits 3"),
        (("--bits", "3", "--sensitivity", "a"), "--sensitivity 'a': expected 'pattern=number'"),
        (("--bits", "3", "--sensitivity", "a=much"), "--sensitivity 'a=much': expected 'pattern=number'"),
        (("--bits", "3", "--sensitivity", "a=-1"), r"sensitivity a=-1\.0: expected a number above 0"),
    ],
)
def test_a_goal_that_is_none(source, goal, message):
    assert re.match(f"featherweight: {message}", run("encode", source, *goal, code=2).stderr)
    assert not source.with_name("model.fw").exists()


def test_a_base(tmp_path, source):
    other = make_tensors()
    other["bias"] = other["bias"].copy()
    other["bias"][3] = 9
    tuned = write(tmp_path / "tuned.safetensors", other)
    run("encode", tuned, "--base", source, "--rule", "bias=delta(given=@base)", "-r", RAW)
    coded = tmp_path / "tuned.fw"
    assert "--base" in run("inspect", coded).stdout
    said = run("decode", coded, tmp_path / "out.safetensors", code=2).stderr
    assert re.search(r"tuned\.fw: bias: .*base", said)
    wrong = run("decode", coded, tmp_path / "out.safetensors", "--base", tuned, code=2).stderr
    assert re.search("not .* this was encoded against", wrong)
    assert not (tmp_path / "out.safetensors").exists()
    run("decode", coded, tmp_path / "out.safetensors", "--base", source)
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()
    run("verify", coded, tuned, "--base", source)
    assert "encoded against" in run("verify", coded, code=2).stderr
    run("diff", tuned, coded, "--base", source)
    said = run("encode", tuned, coded, "--force", "--base", source, "--bits", "9").stderr
    assert "warning: --base is for lossless, lossless-small and recipes given @base" in said


def test_the_source_and_the_base_are_never_the_target(tmp_path, source, coded):
    before = source.read_bytes(), coded.read_bytes()
    linked = tmp_path / "linked.fw"
    linked.symlink_to(source)
    again = tmp_path / "again.safetensors"
    again.hardlink_to(coded)
    base = tmp_path / "base.fw"
    base.symlink_to(coded)
    for command, where, target, more in (
        ("encode", source, source, ()),
        ("encode", source, linked, ()),
        ("encode", coded, coded, ()),
        ("decode", coded, again, ()),
        ("encode", source, base, ("--base", coded)),
    ):
        said = run(command, where, target, "--force", *more, code=2).stderr
        assert f"{target}: the target is the {'base' if more else 'source'} itself: name another" in said
    assert before == (source.read_bytes(), coded.read_bytes())


def test_shards_are_never_the_target(tmp_path):
    index = make_sharded(tmp_path)
    run("encode", index, tmp_path / "model.fw", "-r", RAW)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    before = shard.read_bytes()
    assert "the source itself" in run("encode", index, shard, "-f", code=2).stderr
    assert "the base itself" in run("decode", tmp_path / "model.fw", "-f", "--base", index, code=2).stderr
    assert shard.read_bytes() == before


def test_the_name_says_what_is_in_it(tmp_path, source, coded):
    for name in ("y.safetensors", "y.NPZ", "y.safetensors.index.json"):
        said = run("encode", source, tmp_path / name, code=2).stderr
        assert said == f"featherweight: a .fw file named {name} would mislead: let its name end in .fw\n"
    said = run("decode", coded, tmp_path / "y.txt", code=2).stderr
    assert all(known in said for known in ("y.txt", ".safetensors, ", ".npz"))
    run("decode", coded, tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == source.read_bytes()
    run("decode", coded, f"{tmp_path}/new/")
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == source.read_bytes()


def test_a_sharded_checkpoint_into_a_directory(tmp_path):
    index = make_sharded(tmp_path)
    run("encode", index, "-r", RAW)
    (tmp_path / "here").mkdir()
    for folder in ("here", "there/"):
        run("decode", tmp_path / "model.fw", f"{tmp_path}/{folder}")
        for path in tmp_path.glob("model*.safetensors*"):
            assert (tmp_path / folder / path.name).read_bytes() == path.read_bytes()
    run("decode", tmp_path / "model.fw", tmp_path / "one")
    run("diff", tmp_path / "one", index)


def test_npz_goes_without_metadata(tmp_path):
    path = write(tmp_path / "m.safetensors", {"w": np.arange(6, dtype=np.float32)}, {"format": "pt"})
    run("encode", path, "-r", RAW)
    said = run("decode", tmp_path / "m.fw", tmp_path / "m.npz").stderr
    assert said == "featherweight: warning: npz holds no metadata: left out\n"
    with np.load(tmp_path / "m.npz") as arrays:
        assert arrays["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_speed_is_told_when_it_means_something(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("featherweight.cli.coding.time.perf_counter", lambda: now[0])

    def told(*steps):
        now[0] = 0.0
        clock = _Clock(sum(nbytes for _, nbytes in steps), lambda _name, _size: None)
        for at, nbytes in steps:
            now[0] = at
            clock("w", nbytes)
        return clock.read()

    assert told((0.5, 10**6)) == "0.50 s"
    assert told((1.5, 10**6), (2, 9 * 10**6)) == "2.00 s"
    assert told((0.5, 10**6), (2, 9 * 10**6)) == "2.00 s (5.00 MB/s)"
    assert told((2, 10**7)) == "2.00 s (5.00 MB/s)"


def test_urls(source, coded):
    pytest.importorskip("fsspec")
    url = "memory://cli/model.fw"
    run("encode", source, url, "-r", RAW)
    assert "it exists already" in run("encode", source, url, "-r", RAW, code=2).stderr
    assert "bit for bit" in run("verify", url, source).stdout
    run("decode", url, "memory://cli/model.safetensors")
    run("diff", source, "memory://cli/model.safetensors")


def test_stdin_and_stdout(source, tmp_path):
    coded = spawn("encode", "-", "-r", RAW, input=source.read_bytes())
    assert b"stdout" not in coded.stdout
    assert re.match(rb"featherweight: \S+ \w*B from ", coded.stderr)
    back = spawn("decode", "-", input=coded.stdout)
    assert back.stdout == source.read_bytes()
    assert spawn("encode", source, "/dev/null", "-r", RAW).returncode == 0


def test_max_bytes(coded, tmp_path):
    refused = run("decode", coded, tmp_path / "out.safetensors", "--max-bytes", "1kB", code=2).stderr
    assert re.match(rf"featherweight: .*model\.fw: {LONG}: decoding needs \d+ bytes, max_bytes allows 1000", refused)
    assert "such as 16GB" in run("decode", coded, tmp_path / "x", "--max-bytes", "much", code=2).stderr
    assert [bytes_of(t) for t in ("5", "1.5k", "2MiB", "16 GB", "1e9")] == [5, 1500, 2 << 20, 16 * 10**9, 10**9]
    with pytest.raises(ArgumentError):
        bytes_of("-1")


# --- inspect -------------------------------------------------------------------------------------------------------


def test_inspect_prints_whole_names_and_no_escapes(source, coded):
    for path in (source, coded):
        result = spawn("inspect", path)
        said = result.stdout.decode()
        assert LONG in said
        assert "\x1b" not in said
        assert text.shape((30, 40)) in said
        assert f"{path}: " in said
        assert ("ratio" in said) == (path == coded)
        assert not result.stderr


def test_inspect_json_counts_everything(coded, source):
    report = json.loads(run("inspect", coded, "--json").stdout)
    totals = report["totals"]
    assert (report["format"], report["origin"], report["metadata"]) == ("fw", "safetensors", {"format": "pt"})
    assert totals["bytes"] + totals["index_bytes"] == totals["file_bytes"] == coded.stat().st_size
    assert totals["tensors"] == len(report["tensors"]) == 4
    assert totals["bits_per_weight"] == 8 * totals["file_bytes"] / totals["weights"]
    by_name = {tensor["name"]: tensor for tensor in report["tensors"]}
    assert by_name[LONG]["shape"] == [30, 40]
    assert by_name[LONG]["bits_per_weight"] == 16
    assert by_name["none"]["bits_per_weight"] is None
    assert by_name["bias"]["recipe"] == "raw"
    plain = json.loads(run("inspect", source, "--json").stdout)
    assert {tensor["recipe"] for tensor in plain["tensors"]} == {None}
    assert set(plain) == set(report)


def test_inspect_names_the_recipe_and_the_others(tmp_path):
    values = np.zeros((4, 1000), np.float32)
    values[3] = np.random.default_rng(0).standard_normal(1000)
    source = write(tmp_path / "m.safetensors", {"w": values})
    run("encode", source, "-r", "split(auto, size=1000)")
    (tensor,) = json.loads(run("inspect", tmp_path / "m.fw", "--json").stdout)["tensors"]
    assert tensor["recipe"] == "constant"
    assert [found["pieces"] for found in tensor["recipes"]] == [3, 1]
    assert tensor["recipes"][1]["recipe"].startswith("planes(")
    assert "constant + 1 other" in run("inspect", tmp_path / "m.fw").stdout


def test_inspect_is_brief_in_the_table_and_whole_in_json(tmp_path):
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    recipe = "planes(exponent=huffman, mantissa=rans(given=exponent), low=huffman, low2=planes(exponent=rans))"
    featherweight.save_file({"w": values}, tmp_path / "m.fw", recipe)
    (tensor,) = json.loads(run("inspect", tmp_path / "m.fw", "--json").stdout)["tensors"]
    assert tensor["recipe"] == recipe
    assert " planes(exponent=huffman, mantissa=rans, low=huffman, …) " in run("inspect", tmp_path / "m.fw").stdout


def test_hostile_programs_are_described_in_bounded_time():
    # Every node reads the one before twice: written out it would be 2^1000 of them.
    nodes = [Node(4, (0, 0), (), ())] + [Node(4, (number, number)) for number in range(1, 1000)]
    unknown = Node(999, (1000,), given=(0,))
    program = Program(((FLAT, 2),), (*nodes, unknown), ((2, 1),) * 1000)
    (branch,) = describe(Frame((2, 1), program, (0, 1)))
    assert len(branch.recipe) < 10_000
    assert branch.recipe.startswith("codec-999(given=")


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    write(tmp_path / "m.safetensors", {"a\x1b[2Jb\nc": np.zeros(3, np.float32)})
    said = run("inspect", tmp_path / "m.safetensors").stdout
    assert r"a\x1b[2Jb\nc" in said
    assert "\x1b" not in said


def test_inspect_starts_without_what_it_does_not_need(coded):
    code = f"import sys; sys.argv[1:] = ['inspect', {str(coded)!r}]\nfrom featherweight.cli import main\n"
    code += "unwanted = 'numba', 'scipy', 'torch', 'rich.table', 'fsspec'\n"
    code += "try: main()\nfinally: print([name for name in unwanted if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, timeout=60, check=True)
    assert found.stdout.decode().splitlines()[-1] == "[]"


# --- verify and diff -----------------------------------------------------------------------------------------------


def test_verify_tells_when_it_is_the_same_file(source, coded):
    assert "4 tensors decoded, every checksum matches." in run("verify", coded).stdout
    assert "same file, byte for byte" in run("verify", coded, source).stdout


def test_verify_names_what_is_damaged(source, coded):
    data = bytearray(coded.read_bytes())
    data[20] ^= 1
    coded.write_bytes(data)
    for arguments in ((), (source,)):
        said = run("verify", coded, *arguments, code=1).stderr
        assert re.match(r"featherweight: .*model\.fw: \S+: .*damaged", said)
    assert "1 of 4 tensors cannot be decoded" in run("verify", coded, code=1).stderr
    for cut in (0, 7, 100, len(data) - 1):
        coded.write_bytes(data[:cut])
        assert run("verify", coded, code=1).stderr.startswith(f"featherweight: {coded}: ")
    run("verify", source.with_name("missing.fw"), code=2)


def test_verify_wants_checksums(source):
    said = run("verify", source, code=2).stderr
    assert said == f"featherweight: {source}: has no checksums to verify: verify takes a .fw file\n"


def test_verify_calls_stdin_by_its_name(coded):
    assert spawn("verify", "-", input=coded.read_bytes()).stdout.startswith(b"stdin: 4 tensors decoded")
    assert spawn("verify", "-", input=coded.read_bytes()[:50]).stderr.startswith(b"featherweight: stdin: ")


def test_verify_blames_a_bad_source_and_not_the_file(source, coded):
    source.write_bytes(source.read_bytes()[:-1])
    assert str(source) in run("verify", coded, source, code=2).stderr


@pytest.mark.parametrize("change", ["value", "shape", "dtype", "missing", "more", "metadata", "header"])
def test_verify_against_another_source(tmp_path, source, coded, change):
    tensors, metadata = make_tensors(), {"format": "pt"}
    if change == "value":
        tensors["bias"][2] += 1
    elif change == "shape":
        tensors["bias"] = tensors["bias"].reshape(7, 1)
    elif change == "dtype":
        tensors["scalar"] = tensors["scalar"].astype("f4")
    elif change == "missing":
        del tensors["none"]
    elif change == "more":
        tensors["other"] = tensors["bias"]
    elif change == "metadata":
        metadata = {"format": "np"}
    other = write(tmp_path / "other.safetensors", tensors, metadata)
    if change == "header":
        data = source.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        raw = json.dumps(json.loads(data[8:end]), indent=1).encode()
        other.write_bytes(len(raw).to_bytes(8, "little") + raw + data[end:])
        assert "written canonically" in run("verify", coded, other).stdout
        return
    said = run("verify", coded, other, code=1).stderr
    assert said.startswith(f"featherweight: {coded}: ")
    if change != "metadata":
        assert "featherweight diff" in said


def test_diff_of_equal_files(source, coded):
    assert run("diff", source, coded).stdout == "4 tensors in both, equal bit for bit.\n"
    assert LONG in run("diff", source, coded, "--all").stdout
    assert json.loads(run("diff", source, coded, "--json").stdout)["equal"] is True


def test_diff_measures(tmp_path):
    first = {
        "same": np.float32([1, np.nan]),
        "w": np.float32([3, 4, 0]),
        "sign": np.float32([0.0]),
        "big": np.int64([2**62, -(2**62)]),
        "nan": np.float32([1, 2]),
        "type": np.float32([1, 2]),
        "shape": np.zeros((2, 2), np.float32),
        "old": np.zeros(1, np.float32),
        "complex": np.complex64([3 + 4j]),
    }
    second = first | {
        "w": np.float32([3, 4.5, 0]),
        "sign": np.float32([-0.0]),
        "big": np.int64([2**62 + 1, 2**62]),
        "nan": np.float32([np.nan, 2]),
        "type": np.float64([1, 2.5]),
        "shape": np.zeros((4,), np.float32),
        "complex": np.complex64([3]),
        "new": np.zeros(1, np.float32),
    }
    del second["old"]
    a, b = write(tmp_path / "a.safetensors", first), write(tmp_path / "b.safetensors", second, {"k": "v"})
    report = json.loads(run("diff", a, b, "--json", code=1).stdout)
    found = {each["name"]: each for each in report["tensors"]}
    keys = ("status", "changed", "max_abs_error", "nmse")
    assert [found["same"][key] for key in keys] == ["equal", 0, 0, 0]
    assert [found["w"][key] for key in keys] == ["changed", 1, 0.5, 0.01]
    assert found["w"]["snr_db"] == pytest.approx(20)
    assert [found["sign"][key] for key in keys] == ["changed", 1, 0, 0]
    assert [found["big"][key] for key in keys[:3]] == ["changed", 2, 2.0**63]
    assert [found["nan"][key] for key in keys] == ["changed", 1, None, None]
    assert [found["type"][key] for key in keys] == ["dtype", 1, 0.5, 0.05]
    assert [found["complex"][key] for key in keys] == ["changed", 1, 4, 0.64]
    assert {name: found[name]["status"] for name in ("shape", "old", "new")} == {
        "shape": "shape",
        "old": "first only",
        "new": "second only",
    }
    assert not report["equal"]
    assert not report["same_metadata"]
    said = run("diff", a, b, code=1).stdout
    for part in (
        "only in A",
        "only in B",
        f"{text.shape((2, 2))} → 4",
        "F32 → F64",
        "9 of 10 tensors differ",
        "The metadata differ.",
    ):
        assert part in said


def test_blocks_are_cut_alike_and_large_tensors_compared_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("featherweight.compare.BLOCK", 1000)
    monkeypatch.setattr("featherweight.compare.LARGE", 500)
    values = np.random.default_rng(0).standard_normal((70, 33)).astype(np.float32)
    featherweight.save_file({"w": values, "v": values}, tmp_path / "a.fw", "split(raw, size=700)")
    other = values.copy()
    other[[0, 40, 69], 5] += 1
    featherweight.save_file({"w": other, "v": values}, tmp_path / "b.fw", "raw")
    told = []
    with featherweight.open(tmp_path / "a.fw") as a, featherweight.open(tmp_path / "b.fw") as b:
        first, second = compare(a, b, 2, lambda _name, size: told.append(size))
        assert (first.changed, second.changed) == (3, 0)
        assert first.largest == pytest.approx(1)
        assert sum(told) == 2 * values.nbytes
        step = a.fw.entries["w"].frame.splits[0].step
        assert 1 < step <= 700
        assert max(block.size for block in a.blocks("w", 2 * step + 1)) == 2 * step
        assert sum(block.size for block in a.blocks("w", 2 * step + 1)) == values.size
        assert list(damages(a)) == list(damages(b)) == []


# --- bench and recipes ---------------------------------------------------------------------------------------------


def test_bench(source):
    report = json.loads(run("bench", source, "-r", RAW, "-s", 0, "--rounds", 1, "--json").stdout)
    (group,) = [group for group in report["groups"] if group["dtype"] == "BF16"]
    rows = {row["name"]: row for row in group["rows"]}
    assert rows["copy"]["ratio"] == 1
    assert rows[f"featherweight {RAW}"]["bits_per_weight"] > 16
    assert "BF16, " in run("bench", source, "-r", RAW, "-s", 0, "--rounds", 1).stdout
    assert "no recipe or stage" in run("bench", source, "-r", "none", code=2).stderr


def test_recipes_lists_and_describes():
    listed = run("recipes").stdout
    for part in ("lossless-small", "planes", "exponent", "given: ", "mode=auto"):
        assert part in listed
    planes = run("recipes", "planes").stdout
    assert "Decoding: " in planes
    assert "widths=[]" in planes
    assert "= split(auto" in run("recipes", "lossless").stdout
    assert "did you mean 'planes'?" in run("recipes", "plane", code=2).stderr
    assert "\n  states=8: of the trellis: 4, 8, " in run("recipes", "tcq").stdout
    assert (
        "\n  bits=4: of an index, or of an integer; goals turn it among 2 … 8\n" in run("recipes", "weightless").stdout
    )
    assert "``" not in listed + run("recipes", "auto").stdout + run("recipes", "huffman").stdout
    split = run("recipes", "split").stdout
    assert "whole rows" in split
    assert "size=1,048,576" in split
    own = run("recipes", "split(planes([8, 4, 4], exponent=huffman))").stdout
    assert "= split(planes(widths=[8, 4, 4], exponent=huffman))" in own
    assert all(f"\n  {name} " in own for name in ("split", "planes", "huffman"))
    assert "no recipe or stage" in run("recipes", "planes(exponent=hufman)", code=2).stderr


# --- the program ---------------------------------------------------------------------------------------------------


def test_help_and_version():
    assert run("--version").stdout == f"featherweight {featherweight.__version__}\n"
    assert "Examples" in run("--help").stdout
    for command in ("encode", "decode", "inspect", "verify", "diff", "bench", "recipes"):
        said = run(command, "--help", terminal_width=200).stdout
        assert said.count(f"featherweight {command}") >= 3
        assert "<bool>" not in said
        assert "range>" not in said
    assert "Usage" in run(code=2).output
    assert "Exit codes: 0 fine; 1 " in run("--help", terminal_width=200).stdout
    assert "bits are the same, and 1 if not" in " ".join(run("diff", "--help", terminal_width=200).stdout.split())


def test_slips_are_answered():
    assert re.search("No such command 'encod'. Did you mean 'encode'", run("encod", code=2).stderr)
    assert "Did you mean 'encode'? (see: featherweight --help)" in run("encodee", code=2).stderr
    assert run("xyz", code=2).stderr == "featherweight: No such command 'xyz' (see: featherweight --help)\n"
    assert "--recipe" in run("encode", "x", "--recip", "y", code=2).stderr
    assert "SOURCE" in run("encode", code=2).stderr


def test_errors_are_one_line(tmp_path):
    foreign = tmp_path / "foreign.bin"
    foreign.write_bytes(b"\x7fELF" * 10)
    (tmp_path / "bad.fw").write_bytes(b"\x89FWF" + bytes(100))
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    for command in ("encode", "decode", "inspect", "bench"):
        for name in ("missing.fw", "foreign.bin", "bad.fw", "bad.safetensors", "."):
            said = run(command, tmp_path / name, code=2).stderr
            assert said.count("\n") == 1
            assert said.startswith(f"featherweight: {tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.fw", "bad.safetensors", "foreign.bin"]


def test_a_traceback_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_TRACEBACK", "")  # so that what --traceback sets is taken back
    assert "Traceback" not in run("inspect", tmp_path / "no", code=2).stderr
    assert "Traceback" in run("--traceback", "inspect", tmp_path / "no", code=2).stderr
    monkeypatch.setenv("FEATHERWEIGHT_TRACEBACK", "")
    assert "Traceback" in run("inspect", tmp_path / "no", "--traceback", code=2).stderr


def test_an_unwritable_target(source, tmp_path):
    said = run("encode", source, tmp_path / "no" / "x.fw", "-r", RAW, code=2).stderr
    assert said == f"featherweight: {tmp_path}/no/x.fw: No such file or directory\n"
    if Path("/dev/full").exists():
        full = run("encode", source, "/dev/full", "-r", RAW, code=2).stderr
        assert full == "featherweight: /dev/full: No space left on device\n"
    if Path("/proc/version").exists():
        assert run("encode", source, "/proc/x.fw", "-r", RAW, code=2).stderr.startswith("featherweight: /proc/x.fw: ")


def test_head_has_seen_enough(tmp_path):
    path = write(tmp_path / "many.safetensors", {f"t{number}": np.zeros(1, np.float32) for number in range(2000)})
    shell = f"{' '.join(COMMAND)} inspect {path} --json | head -c 1"
    found = subprocess.run(["sh", "-c", shell], env=ENVIRONMENT, capture_output=True, timeout=60, check=True)
    assert (found.stdout, found.stderr) == (b"{", b"")
    with subprocess.Popen(
        [*COMMAND, "inspect", str(path)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


INTERRUPTIONS = ["SIGINT", "SIGTERM", "SIGHUP"]


def heed_signals():
    """Undo what whoever runs the tests has told signals: nohup ignores one, a shell another behind an ampersand."""
    for name in INTERRUPTIONS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def start_encoding(tmp_path):
    """Start to encode what takes a while, over an old file, and wait until it is under way."""
    size = 600 << 22
    raw = json.dumps({"w": {"dtype": "F32", "shape": [600, 1 << 20], "data_offsets": [0, size]}}).encode()
    raw += b" " * (-len(raw) % 8)
    with (tmp_path / "big.safetensors").open("wb") as file:  # zeros that take no space
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + size)
    target = tmp_path / "big.fw"
    target.write_bytes(b"old")
    arguments = ["encode", tmp_path / "big.safetensors", target, "-r", RAW, "--force", "--threads", "2"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=heed_signals if os.name == "posix" else None,  # noqa: PLW1509  # it takes no lock
    )
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if any(path.stat().st_size > 1 << 20 for path in tmp_path.glob(".featherweight-*")):
            return process, target
        time.sleep(0.005)
    raise AssertionError(process.communicate())


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_interrupted_leaves_the_old_file_and_nothing_else(tmp_path, name):
    process, target = start_encoding(tmp_path)
    number = getattr(signal, name)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said == (b"featherweight: interrupted\n" if number == signal.SIGINT else b"")
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.fw", "big.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_killed_leaves_the_old_file(tmp_path):
    process, target = start_encoding(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert target.read_bytes() == b"old"


# --- how things are written ----------------------------------------------------------------------------------------


def test_numbers_are_written_for_people():
    assert [text.size(n) for n in (0, 999, 1000, 1234, 999_499, 999_500, 5 * 10**12)] == [
        "0 B", "999 B", "1.00 kB", "1.23 kB", "999 kB", "1.00 MB", "5.00 TB",
    ]  # fmt: skip
    assert [text.significant(v) for v in (0, 0.001234, 9.999, 99.99, float("inf"))] == [
        "0.00",
        "0.00123",
        "10.0",
        "100",
        "∞",
    ]
    assert text.count(1, "tensor") == "1 tensor"
    assert text.seconds(125) == "2 min 5 s"


def test_a_table_is_as_wide_as_its_names():
    columns = (text.Column("name"), text.Column("n", right=True))
    assert text.plain(columns, [["x" * 100, "1"], ["y", "100"]]).splitlines()[2] == "y".ljust(102) + "100"


def inspect_in_a_terminal(path, columns):
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    environment = {**ENVIRONMENT, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(
        [*COMMAND, "inspect", str(path)], env=environment, stdout=follower, stderr=follower
    ) as process:
        process.wait(60)
    os.close(follower)
    said = re.sub(r"\x1b\[[0-9;]*m", "", os.read(leader, 1 << 20).decode())
    os.close(leader)
    assert process.returncode == 0
    return said


def test_a_terminal_gets_recipes_cut_and_names_whole(tmp_path):
    name = "model.layers.0.mlp.weight"
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    recipe = "planes(exponent=huffman, mantissa=rans(given=exponent), low=huffman)"
    featherweight.save_file({name: values}, tmp_path / "m.fw", recipe)
    row = next(line for line in inspect_in_a_terminal(tmp_path / "m.fw", 80).splitlines() if name in line)
    assert re.search(r" planes\(expon\S*… ", row)
    assert row.rstrip().endswith("%")


def test_a_terminal_gets_a_table_with_whole_names(coded):
    said = inspect_in_a_terminal(coded, 60)
    column = said.splitlines()[0].index("dtype")
    assert LONG in "".join(line[:column].strip() for line in said.splitlines())


def test_open_checkpoint_knows_the_size_of_all_shards(tmp_path):
    index = make_sharded(tmp_path)
    with open_checkpoint(index) as checkpoint:
        assert checkpoint.size == sum(path.stat().st_size for path in tmp_path.iterdir())
