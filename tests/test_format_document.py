"""FORMAT.md is the norm: what it shows must decode, and what it lists must be what there is."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np

import featherweight
from featherweight.codecs import CODECS
from featherweight.dtypes import all_types
from featherweight.recipes import ENCODING

DOCUMENT = (Path(featherweight.__file__).parent / "FORMAT.md").read_text("utf-8")
README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def test_the_example_decodes_to_what_the_document_says():
    (example,) = re.findall(r"```hex\n([0-9a-f\s]+)```", DOCUMENT)
    expected = np.array([1.0, 1.5, -2.0, 0.25], ml_dtypes.bfloat16)
    actual = featherweight.decode(bytes.fromhex(example))
    assert expected.dtype == actual.dtype
    assert expected.tobytes() == actual.tobytes()
    rows = re.findall(r"^\| `([0-9a-f ]+)` \|", DOCUMENT, re.MULTILINE)
    assert bytes.fromhex(example) == bytes.fromhex("".join(rows))


def test_the_document_numbers_the_codecs_and_element_types_as_the_code_does():
    table = DOCUMENT.partition("| number | codec |")[2].partition("\n\n")[0]
    cells = dict(re.findall(r"\| (\d+) \| ([a-z0-9_]+) ", table))
    assert {str(number): name for number, name in CODECS.items()} == cells
    types = {int(number): name for number, name in re.findall(r"\b(\d+) ([A-Z]+\d\w*|BOOL)\b", DOCUMENT)}
    assert {row.id: row.name for row in all_types()} == {n: t for n, t in types.items() if n <= len(all_types())}


def test_the_readme_lists_every_codec():
    listed = re.findall(r"^\| `([a-z0-9_]+)` \|", README.partition("| around stages |")[0], re.MULTILINE)
    assert list(CODECS.values()) == listed


def test_the_readme_lists_what_stands_around_stages():
    table = README.partition("| around stages |")[2].partition("\n\n")[0]
    assert {*ENCODING, "split", "smallest"} == set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE))


def test_what_the_readme_shows_in_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_the_codec_that_the_readme_shows_is_checked_there():
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Steps" in block]
    assert "\ncheck_stage(Steps())\n" in source
