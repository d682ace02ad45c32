# SPDX-License-Identifier: Apache-2.0
"""port.toml: what is read, and how each mistake is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fvport import spec
from fvport.errors import BlockedError, UsageError

GOOD = """\
schema = 1
[port]
model = "Tiny Wan"
slug = "tiny_wan"
workload_types = ["t2v"]
[official]
library = "diffusers"
weights = "official_weights/tiny_wan"
[official.pipeline]
class = "diffusers:WanPipeline"
call = { height = 64 }
[components.transformer]
kind = "dit"
mode = "port"
official = "diffusers:WanTransformer3DModel"
native = "fastvideo.models.dits.tiny_wan:TinyWanTransformer3DModel"
tolerance = { mode = "calibrated", factor = 3 }
[components.transformer.mapping]
passthrough = ["^blocks"]
[gate]
checks = ["mapping", "keys"]
[[waivers]]
id = "E001"
check = "keys"
reason = "because"
approved_by = "alice"
expires = 2027-01-31
"""


def put(root: Path, text: str) -> Path:
    file = root / "tests/local_tests/tiny_wan/port.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_reads_every_section(tmp_path: Path) -> None:
    """Values arrive typed: nested tables as dataclasses, lists as tuples, whole numbers where a float is meant."""
    put(tmp_path, GOOD)
    port = spec.load(tmp_path)
    transformer = port.components["transformer"]
    assert port.official.pipeline.cls == "diffusers:WanPipeline"
    assert transformer.tolerance.factor == 3.0
    assert transformer.mapping.passthrough == ("^blocks",)
    assert transformer.native_file == "fastvideo/models/dits/tiny_wan.py"
    assert port.test_file(transformer) == "tests/local_tests/transformers/test_tiny_wan_transformer_parity.py"
    assert port.waivers[0].expires.year == 2027
    assert port.root == tmp_path


def test_is_found_from_a_folder_inside_the_port(tmp_path: Path) -> None:
    """Any folder inside the port will do, and port.toml's own folder too."""
    put(tmp_path, GOOD)
    deep = tmp_path / "fastvideo/models"
    deep.mkdir(parents=True)
    assert spec.load(deep).root == tmp_path
    assert spec.load(tmp_path / "tests/local_tests/tiny_wan").root == tmp_path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "dit"', 'knd = "dit"', ["components.transformer.knd", "unknown key", 'Did you mean "kind"']),
        ('mode = "port"', 'mode = "prot"', ["components.transformer.mode", 'Did you mean "port"']),
        ('kind = "dit"', 'kind = "ditt"', ["components.transformer.kind", 'Did you mean "dit"']),
        ("schema = 1", "schema = 2", ["schema", "must be 1"]),
        ('["mapping", "keys"]', '["maping"]', ["gate.checks", 'Did you mean "mapping"']),
        ('["mapping", "keys"]', '"mapping"', ["gate.checks", "must be a list, is str"]),
        ('slug = "tiny_wan"', "slug = 3", ["port.slug", "must be str, is int"]),
        ('slug = "tiny_wan"', 'slug = "other"', ["port.slug", 'the folder is "tiny_wan"']),
        ('"official_weights/tiny_wan"', '"/somewhere"', ["official.weights", "relative"]),
        ("factor = 3", 'factor = 300, reason = "x"', ["tolerance.factor", "between 1 and 10"]),
        ("factor = 3", "factor = 10", ["tolerance.factor", "written reason"]),
        ('mode = "calibrated", factor = 3', 'mode = "fixed", atol = 1.0', ["tolerance", "written reason"]),
        ('["t2v"]', '["t2w"]', ["port.workload_types", 'Did you mean "t2v"']),
        (
            'native = "fastvideo.models.dits.tiny_wan:TinyWanTransformer3DModel"',
            'native = "x"',
            ["native", "module:Class"],
        ),
        ('mode = "port"', 'mode = "passthrough"', ["components.transformer.mode", "passthrough is for a tokenizer"]),
        ('mode = "port"', 'mode = "external"', ["components.transformer.mode", "must be FastVideo's own"]),
        ("[gate]", "[quality]\nthreshold = -1.0\n[gate]", ["quality.threshold", "above 0 and at most 1"]),
        ("[gate]", "[quality]\nthreshold = nan\n[gate]", ["quality.threshold", "above 0 and at most 1"]),
        ("[gate]", '[quality]\nmetric = "sim"\n[gate]', ["quality.metric", 'Did you mean "ssim"']),
        ("[gate]", '[gate]\nrequire_device = "gpuu"', ["gate.require_device", "cuda, cpu"]),
        ("[gate]", "[gate]\nstrength = 3", ["gate.strength", "above 0 and at most 1"]),
        ("[gate]", '[[variants]]\nname = " "\nweights = "w/d"\n[gate]', ["variants[0].name", "must be a name"]),
        ("[gate]", '[[variants]]\nname = "distilled"\n[gate]', ["variants[0].weights", "is missing"]),
        ("[gate]", '[[variants]]\nname = "base"\nweights = "w/d"\n[gate]', ["variants[0].name", "none of base"]),
        (
            "[gate]",
            '[[variants]]\nname = "d"\nweights = "official_weights/tiny_wan"\n[gate]',
            ["variants[0].weights", "is the release of the base"],
        ),
        ("[gate]", "[gaet]", ["gaet", 'Did you mean "gate"']),
        ("expires = 2027-01-31", 'expires = "soon"', ["expires", "must be date, is str"]),
        ('id = "E001"', "", ["waivers[0].id", "is missing"]),
    ],
)
def test_a_mistake_names_file_line_key_and_suggestion(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    """Each mistake is one UsageError with the file, the line it stands on, and the key."""
    text = GOOD.replace(old, new, 1)
    file = put(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        spec.load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    for word in words:
        assert word in message
    line = text.splitlines()[int(message.removeprefix(f"{file}:").split(":")[0]) - 1]
    if "is missing" not in message:
        assert words[0].split(".")[-1] in line


def test_broken_toml_is_one_sentence(tmp_path: Path) -> None:
    """A syntax error tells the place that the TOML parser tells."""
    put(tmp_path, "schema = \n")
    with pytest.raises(UsageError, match=r"not valid TOML.*line 1"):
        spec.load(tmp_path)


def test_no_port_is_blocked_and_says_how_to_bake(tmp_path: Path) -> None:
    """An empty folder has no port: exit 3 and the command that makes one."""
    with pytest.raises(BlockedError, match="fvport new"):
        spec.load(tmp_path)


def test_two_ports_on_one_tree_need_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several ports FVPORT_SLUG chooses; a name that is not there is refused."""
    put(tmp_path, GOOD)
    other = tmp_path / "tests/local_tests/other/port.toml"
    other.parent.mkdir()
    other.write_text(GOOD.replace('slug = "tiny_wan"', 'slug = "other"'))
    with pytest.raises(UsageError, match="FVPORT_SLUG"):
        spec.load(tmp_path)
    monkeypatch.setenv("FVPORT_SLUG", "other")
    assert spec.load(tmp_path).slug == "other"
    monkeypatch.setenv("FVPORT_SLUG", "third")
    with pytest.raises(UsageError, match="third"):
        spec.load(tmp_path)


def test_what_no_check_looks_at_is_said(tmp_path: Path) -> None:
    """Keys that nothing reads are named as risks."""
    text = GOOD.replace('kind = "dit"', 'kind = "dit"\ntiny = { num_layers = 2 }')
    put(tmp_path, text)
    port = spec.load(tmp_path)
    assert any("tiny" in sentence for sentence in port.untested)


def test_a_plain_port_has_nothing_untested(tmp_path: Path) -> None:
    """Defaults of keys that nobody wrote are not said to be declared."""
    put(tmp_path, GOOD)
    assert spec.load(tmp_path).untested == []


def test_a_tokenizer_passes_through(tmp_path: Path) -> None:
    """Tokenizers and processors are copied; an encoder may be external with a reason."""
    more = '[components.tokenizer]\nkind = "tokenizer"\nmode = "passthrough"\n'
    more += '[components.captions]\nkind = "text_encoder"\nmode = "external"\nreason = "accepted"\n[gate]'
    put(tmp_path, GOOD.replace("[gate]", more))
    assert set(spec.load(tmp_path).components) == {"transformer", "tokenizer", "captions"}


def test_every_python_that_is_promised_can_read_toml() -> None:
    """Python 3.10 has no tomllib: what is imported in its place is a dependency there."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.10"' in text
    assert "\"tomli; python_version < '3.11'\"" in text
