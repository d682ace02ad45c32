# SPDX-License-Identifier: Apache-2.0
"""Every rule of `boundary` red for its reason, and green on a clean port."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import gate_support as g
import pytest

from fvport import gate, spec
from fvport.checks import Options, boundary, run_check
from fvport.checks import _imports as imports
from fvport.spec import Port

NATIVE = "fastvideo/models/dits/toy.py"
CONFIG = "fastvideo/configs/models/dits/toy.py"
TEST = "tests/local_tests/transformers/test_toy_transformer_parity.py"


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return g.make(tmp_path)


def red(port: Port) -> dict[str, str]:
    """{rule: first reason} of everything red."""
    found: dict[str, str] = {}
    for item in boundary.run(spec.load(port.root), Options()).items:
        if item.verdict != "pass":
            found.setdefault(item.name.split()[0], item.reason)
    return found


def test_green(port: Port) -> None:
    """A clean port passes every rule, and each rule has an item of its name."""
    record = run_check(port, "boundary")
    assert record.verdict == "pass", [i.reason for i in record.items if i.verdict != "pass"]
    assert [item.name for item in record.items] == boundary.expected(port)
    assert all(item.reason for item in record.items)


IMPORTS = {
    "plain": "from diffusers import AutoencoderKL",
    "in a function": "def f():\n    from transformers import T5EncoderModel\n    return T5EncoderModel",
    "submodule": "from diffusers.models.transformers import WanTransformer3DModel",
    "modelling": "from transformers.models.t5.modeling_t5 import T5Stack",
    "import module": "import transformers.models.t5.modeling_t5",
    "attribute": "import diffusers\nX = diffusers.AutoencoderKL",
    "alias": "import diffusers as d\nX = d.AutoencoderKL",
    "getattr": 'import diffusers\nX = getattr(diffusers, "AutoencoderKL")',
    "getattr of a variable": "import diffusers\nname = 'x'\nX = getattr(diffusers, name)",
    "getattr of no name": "import diffusers\nX = getattr(diffusers, 3)",
    "importlib": 'import importlib\nX = importlib.import_module("diffusers").AutoencoderKL',
    "import_module renamed": 'from importlib import import_module as im\nX = im("transformers")',
    "import_module of a variable": "import importlib\nn = 'a'\nX = importlib.import_module(n)",
    "import_module of no name": "import importlib\nX = importlib.import_module(3)",
    "dunder": 'X = __import__("diffusers")',
    "sys.modules": 'import sys\nX = sys.modules["diffusers"]',
    "sys.modules of no name": "import sys\nX = sys.modules[3]",
    "star": "from transformers import *",
    "auto": "from transformers import AutoModel",
    "exec": "exec('import diffusers')",
    "hub": "import torch\nX = torch.hub.load('a', 'b')",
    "zoo": "from torchvision.models import resnet50",
    "remote code": "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained('x', trust_remote_code=True)",
    "file": "import importlib.util\nX = importlib.util.spec_from_file_location('a', 'b')",
}


@pytest.mark.parametrize("case", IMPORTS)
def test_foreign_model(port: Port, case: str) -> None:
    """FV301: every way of reaching another library's model class is red, with the component."""
    g.edit(port, NATIVE, "EntryClass", f"{IMPORTS[case]}\nEntryClass")
    found = boundary.run(port, Options()).items
    item = next(item for item in found if item.name.startswith("FV301 "))
    assert (item.verdict, item.component) == ("fail", "transformer")
    assert f"{NATIVE}:" in item.reason


@pytest.mark.parametrize(
    "text",
    [
        "from transformers import AutoTokenizer, T5TokenizerFast, CLIPImageProcessor, T5Config",
        "from diffusers.utils.torch_utils import randn_tensor",
        "from diffusers.configuration_utils import ConfigMixin, register_to_config",
        "from diffusers.schedulers.scheduling_utils import SchedulerMixin",
        "from diffusers.video_processor import VideoProcessor",
        "import diffusers.utils\nx = diffusers.utils.logging",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from diffusers import AutoencoderKL",
        "import torch.nn.functional as F\nx = getattr(F, 'silu')",
        "import importlib\nx = importlib.import_module('json')",
    ],
)
def test_allowed_imports(text: str) -> None:
    """FV301: tokenizers, processors, configurations, helpers and names for type checkers are fine."""
    assert list(imports.runtime_imports(ast.parse(text))) == []


def test_official_repository(port: Port) -> None:
    """FV301: the official repository's own package is foreign as well."""
    g.edit(
        port, "tests/local_tests/toy/port.toml", 'library = "diffusers"', 'repo = "https://example.org/a/toylib.git"'
    )
    g.edit(port, NATIVE, "EntryClass", "from toylib.model import Net\nEntryClass")
    assert "toylib" in red(port)["FV301"]


HF = "hf_" + "Ab3dEf6hIj9kLmNoPqRs"  # put together here, so that no file of this repository holds one
FAULTS = [
    ("FV300", NATIVE, "class ToyNative", "class class ToyNative", "does not parse"),
    ("FV302", NATIVE, "EntryClass", "import fvport\nEntryClass", "imports fvport"),
    ("FV302", NATIVE, "EntryClass", "import sys\nsys.path.insert(0, '.')\nEntryClass", "sys.path"),
    (
        "FV303",
        "tests/local_tests/toy/oracle.py",
        "import torch",
        "from fastvideo.models import x\nimport torch",
        "fastvideo",
    ),
    ("FV303", "tests/local_tests/toy/oracle.py", "import torch", "import fvport.parity\nimport torch", "fvport"),
    ("FV303", "tests/local_tests/toy/oracle.py", "import torch", "from . import helper\nimport torch", "imports ."),
    ("FV304", "docs/inference/toy.md", "## Usage", f"{HF}\n\n## Usage", "a Hugging Face token"),
    ("FV304", NATIVE, "EntryClass", f'KEY = "AKIA{"A1B2" * 4}"\nEntryClass', "an AWS key"),
    ("FV304", NATIVE, "EntryClass", "# -----BEGIN " + "PRIVATE KEY-----\nEntryClass", "a private key"),
    ("FV304", NATIVE, "EntryClass", 'api_key = "q8Zt0' + 'Lw3Xn7Vb2Mc9Rk5"\nEntryClass', "secret"),
    ("FV306", NATIVE, "EntryClass", "# FVPORT-DECIDE: the scale\nEntryClass", "FVPORT-DECIDE"),
    ("FV306", NATIVE, "EntryClass", "# TODO later\nEntryClass", "TODO"),
    ("FV306", NATIVE, "    pass", "    def f(self):\n        raise NotImplementedError", "NotImplementedError"),
    ("FV306", "tests/local_tests/toy/README.md", "# Toy", "# <family>", "<family>"),
    ("FV307", "docs/inference/toy.md", "## Usage", "Look in /home/" + "ann/weights.\n\n## Usage", "/home/"),
    (
        "FV309",
        CONFIG,
        "dits.base import DiTConfig",
        "encoders.base import TextEncoderConfig as DiTConfig",
        "TextEncoderConfig",
    ),
    ("FV310", NATIVE, "ToyNative(BaseDiT)", "ToyNative(torch.nn.Module)", "not from BaseDiT"),
    ("FV310", NATIVE, "class ToyNative", "class Renamed", "has no class ToyNative"),
    ("FV311", NATIVE, "EntryClass = ToyNative", "Entry = ToyNative", "has no EntryClass"),
    ("FV311", "fastvideo/pipelines/basic/toy/toy_pipeline.py", "EntryClass", "Entry", "no file says EntryClass"),
    ("FV312", "fastvideo/configs/models/dits/__init__.py", '"ToyConfig"', "", "__all__ does not list"),
    (
        "FV312",
        "fastvideo/configs/models/dits/__init__.py",
        "import ToyConfig",
        "import Other as ToyConfig2",
        "does not import",
    ),
    ("FV313", TEST, "def test", "import pytest\n\n\n@pytest.mark.skip\ndef test", "pytest.mark.skip"),
    ("FV313", TEST, "def test", "import pytest\n\n\n@pytest.mark.xfail\ndef test", "xfail"),
    ("FV313", TEST, "    parity", "    import pytest\n    pytest.skip('no')\n    parity", "pytest.skip"),
    ("FV313", TEST, "    parity", "    return\n    parity", "returns before"),
    ("FV313", TEST, "    parity", "    if False:\n        parity", "no test calls parity.compare"),
    ("FV313", TEST, '"transformer", ', '"other", ', "no test calls parity.compare"),
    ("FV313", TEST, "(**case))", "(**case), atol=1)", "sets atol"),
    ("FV313", TEST, "def test_", "def tst_", "no test calls parity.compare"),
    (
        "FV318",
        NATIVE,
        "EntryClass",
        "import os\nX = os.environ.get('FVPORT_DEVICE')\nEntryClass",
        "names 'FVPORT_DEVICE'",
    ),
    ("FV318", NATIVE, "EntryClass", "import inspect\nX = inspect.stack()\nEntryClass", "uses inspect.stack"),
    ("FV315", NATIVE, "EntryClass", "x = torch.nn.functional.scaled_dot_product_attention\nEntryClass", "scaled_dot"),
    ("FV315", NATIVE, "EntryClass", "x = LocalAttention\nEntryClass", "DistributedAttention"),
    (
        "FV315",
        NATIVE,
        "EntryClass",
        "# no DistributedAttention: x\nx = LocalAttention\nEntryClass",
        "DistributedAttention",
    ),
]


@pytest.mark.parametrize(("rule", "path", "old", "new", "said"), FAULTS)
def test_fault(port: Port, rule: str, path: str, old: str, new: str, said: str) -> None:
    """Each rule goes red for its own reason and says where."""
    g.edit(port, path, old, new)
    found = red(port)
    assert said in found.get(rule, f"{rule} is green, red are {found}")


def test_a_reason_stands_for_the_layer_that_is_not_needed(port: Port) -> None:
    """FV315: a linear-attention transformer says in a line why LocalAttention is its only layer; torch's stay red."""
    line = "# no DistributedAttention: the attention over the sequence is linear"
    g.edit(port, NATIVE, "EntryClass", f"{line}\nx = LocalAttention\nEntryClass")
    assert "FV315" not in red(port)
    assert any("the attention over the sequence is linear" in note for note in run_check(port, "boundary").notes)
    g.edit(port, NATIVE, line, f"{line}\ny = torch.nn.functional.scaled_dot_product_attention")
    assert "SDPAMetadata" in next(i.todo for i in run_check(port, "boundary").items if i.name.startswith("FV315 "))


def test_secret_is_not_repeated(port: Port) -> None:
    """FV304: the record never holds the secret itself."""
    g.edit(port, NATIVE, "EntryClass", f"# {HF}\nEntryClass")
    record = run_check(port, "boundary")
    assert record.verdict == "fail"
    assert HF not in str(record.to_json())


@pytest.mark.parametrize(
    "line",
    [
        'tokenizer_path = "official_weights/toy/tokenizer_2"',
        "pad_token_id: int = 0",
        'digest = "blake3:1f0c"',
        "max_token_length = 226",
        "hf_model_paths=[]",
        "token_embedding = self.text_embedding_projection_1(x)",
    ],
)
def test_no_false_secret(line: str) -> None:
    """FV304: ordinary code about tokens is no secret."""
    assert boundary.secret(line) == ""


def test_weights(port: Port) -> None:
    """FV305: a weights file or a file over 1 MiB is red."""
    (port.folder / "w.safetensors").write_bytes(b"x")
    (port.folder / "big.json").write_bytes(b" " * (boundary.MOST_BYTES + 1))
    names = [item.name for item in boundary.run(port, Options()).items if item.name.startswith("FV305 ")]
    assert len(names) == 2


def test_wrong_bucket(port: Port) -> None:
    """FV308: a DiT among the encoders is red."""
    toml = "tests/local_tests/toy/port.toml"
    g.edit(port, toml, "fastvideo.configs.models.dits.toy", "fastvideo.configs.models.encoders.toy")
    assert "fastvideo/configs/models/dits/" in red(port)["FV308"]


def test_missing_test(port: Port) -> None:
    """FV313: a component without its parity test is red, a reused one too."""
    (port.root / "tests/local_tests/schedulers/test_toy_scheduler_parity.py").unlink()
    assert "is not there" in red(port)["FV313"]


EXTERNAL = """
[components.caption]
kind = "text_encoder"
mode = "external"
reason = "accepted by the maintainers"
path = "fastvideo/models/encoders/toy_caption.py"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "names no wrapper file"),
        ("from transformers import AutoModel\n", "when it is imported"),
        ("def load():\n    from transformers import AutoModel\n    return AutoModel\n", ""),
    ],
)
def test_external(port: Port, text: str | None, said: str) -> None:
    """FV314: an external wrapper is one file that imports the other library inside functions only."""
    g.edit(port, "tests/local_tests/toy/port.toml", "[presets.default]", EXTERNAL + "[presets.default]")
    if text is not None:
        path = port.root / "fastvideo/models/encoders/toy_caption.py"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    found = red(port)
    assert "FV301" not in found
    assert said in found.get("FV314", "") if said else "FV314" not in found


def git(root: Path, *args: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *args], check=True, capture_output=True)


def test_changed_fastvideo_file_counts(tmp_path: Path) -> None:
    """In a git tree the changed lines of FastVideo's own files count, its other lines do not, nor does its own code."""
    stage = tmp_path / "fastvideo/pipelines/stages/denoising.py"
    stage.parent.mkdir(parents=True)
    stage.write_text("from diffusers import OldModel\nx = 1\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "FastVideo")
    port = g.make(tmp_path)
    (tmp_path / ".git/info/exclude").write_text("official_weights/\nconverted_weights/\n.fvport/\n", encoding="utf-8")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "port")
    assert "FV301" not in red(port)
    stage.write_text("from diffusers import OldModel\nx = 1\nfrom diffusers import NewModel\n", encoding="utf-8")
    assert "NewModel" in red(port)["FV301"]
    (tmp_path / "fastvideo/models/helper.py").write_text("from transformers import AutoModel\n", encoding="utf-8")
    names = [i.name for i in boundary.run(port, Options()).items if i.name.startswith("FV301 ")]
    assert any("models/helper.py" in name for name in names)


# --- what git tells --------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Port:
    """A port committed onto a FastVideo of two files."""
    root = tmp_path / "tree"
    for name, text in (("old.py", "x = 1\n"), ("stage.py", "name = 'größe'\n")):
        file = root / "fastvideo/pipelines" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1"))
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "FastVideo")
    port = g.make(root)
    (root / ".git/info/exclude").write_text("official_weights/\nconverted_weights/\n.fvport/\n", encoding="utf-8")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "port")
    return port


def test_a_history_that_is_cut_off(tree: Port, tmp_path: Path) -> None:
    """In a shallow clone nobody can tell which files of FastVideo the port changed: blocked, and the gate too."""
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tree.root}", str(tmp_path / "cut"))
    port = spec.load(tmp_path / "cut")
    record = run_check(port, "boundary")
    assert record.verdict == "blocked"
    assert "shallow" in record.items[0].reason
    assert "fetch-depth: 0" in record.items[0].todo
    row = gate.decide(port).row("boundary")
    assert row is not None
    assert row.verdict == "blocked"
    assert any("shallow" in reason for reason in row.reasons)


def test_a_port_in_the_first_commit(tmp_path: Path) -> None:
    """Where no commit comes before the port, its changes of FastVideo cannot be told either."""
    port = g.make(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "all")
    assert run_check(port, "boundary").verdict == "blocked"


def test_a_deleted_file_of_fastvideo(tree: Port) -> None:
    """FV316: a file of FastVideo that the port deletes is red."""
    assert "FV316" not in red(tree)
    (tree.root / "fastvideo/pipelines/old.py").unlink()
    assert "fastvideo/pipelines/old.py: is FastVideo's" in red(tree)["FV316"]


def test_a_changed_file_in_another_encoding(tree: Port) -> None:
    """A byte that is no UTF-8 in a changed file of FastVideo is read over, and its other lines still count."""
    file = tree.root / "fastvideo/pipelines/stage.py"
    file.write_bytes(file.read_bytes() + "other = 'groß'\n".encode("latin-1"))
    assert set(red(tree)) == {"FV319"}


def test_a_file_of_fastvideos_own_is_changed_with_a_reason(tree: Port) -> None:
    """FV319: red with its name until port.toml says why; what registration edits is no such file."""
    file = tree.root / "fastvideo/pipelines/stage.py"
    file.write_bytes(file.read_bytes() + b"other = 1\n")
    assert "fastvideo/pipelines/stage.py" in red(tree)["FV319"]
    toml = tree.root / "tests/local_tests/toy/port.toml"
    declared = '[fastvideo]\nedits = { "fastvideo/pipelines/stage.py" = "a hook the model needs" }\n'
    text = toml.read_text()
    toml.write_text(text.replace("[fastvideo]\n", declared) if "[fastvideo]" in text else text + "\n" + declared)
    assert "FV319" not in red(spec.load(tree.root))


def test_outputs_are_not_the_port(tree: Port) -> None:
    """Untracked outputs neither make the record stale nor count as weights and media; what is committed does."""
    assert run_check(tree, "boundary").verdict == "pass"
    before = boundary.inputs(tree)
    for name in ("outputs/a.mp4", "collected/parity/a.json", "gate-out/x.xml", "notes.txt", "examples/outputs/b.mp4"):
        (tree.root / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.root / name).write_text("x")
    assert boundary.inputs(tree) == before
    (tree.root / "fastvideo/helper.py").write_text("x = 1\n")
    assert "file:fastvideo/helper.py" in boundary.inputs(tree)
    git(tree.root, "add", "-f", "outputs/a.mp4", "official_weights/toy/model_index.json")
    git(tree.root, "commit", "-qm", "media")
    assert "file:official_weights/toy/model_index.json" in boundary.inputs(tree)
    assert "outputs/a.mp4" in red(tree)["FV305"]


def test_a_rule_that_raises(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that cannot be looked at is blocked by itself; the others are looked at all the same."""
    rule = next(rule for rule in boundary.RULES if rule.id == "FV305")
    monkeypatch.setitem(rule.__dict__, "check", lambda s: 1 // 0)
    record = run_check(port, "boundary")
    found = next(item for item in record.items if item.verdict != "pass")
    assert (found.name, found.verdict) == ("FV305 itself", "blocked")
    assert "ZeroDivisionError" in found.reason
    assert len(record.items) == len(boundary.RULES)


# --- FV317 -----------------------------------------------------------------------------------------------------------

CALL = "lambda native, case: native(**case)"
WAYS = {
    "the official library": ("def test", "import diffusers\n\n\ndef test", "imports diffusers"),
    "a name of it": ("def test", "from transformers import T5Config\n\n\ndef test", "imports transformers"),
    "the oracle": ("def test", "from fvport.parity import oracle\n\n\ndef test", "imports fvport.parity"),
    "oracle.py": ("def test", "from tests.local_tests.toy import oracle\n\n\ndef test", "imports tests.local_tests"),
    "a helper beside": ("def test", "from .helper import call\n\n\ndef test", "imports .helper"),
    "by name": ("def test", "import importlib\n\n\ndef test", "imports importlib"),
    "another native": ("def test", "from fastvideo.models.dits import toy\n\n\ndef test", "another object"),
    "a file": (CALL, "lambda native, case: (native(**case), torch.load('out.pt'))[1]", "calls torch.load"),
    "not native": (CALL, "lambda native, case: case['sample'] * 2", "never computes with native"),
    "no function": (CALL, "__import__('x').call", "no function of this file"),
    "rebinding": (CALL, "lambda native, case: (native := case['m'])(native)", "in place of native"),
    "another parity": ("def test", "class parity:\n    compare = print\n\n\ndef test", "another parity"),
    "its compare": ("    parity", "    parity.compare = print\n    parity", "another parity"),
    "monkeypatch": ("(parity)", "(parity, monkeypatch)", "takes monkeypatch"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_parity_test_without_the_native_side(port: Port, way: str) -> None:
    """FV317: a parity test that can reach the official outputs without the native object is red, with its component."""
    old, new, said = WAYS[way]
    g.edit(port, TEST, old, new)
    items = [i for i in boundary.run(port, Options()).items if i.name.startswith("FV317 ")]
    assert any(said in item.reason and item.component == "transformer" for item in items), items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import pytest\n\n\n@pytest.fixture(name='parity')\ndef mine():\n    return 1\n", "another parity"),
        ("def pytest_runtest_makereport(item):\n    return 1\n", "pytest_runtest_makereport"),
        ("import diffusers\n", "imports diffusers"),
    ],
)
def test_a_conftest_of_the_port(tree: Port, text: str, said: str) -> None:
    """FV317: a conftest.py that the port brings stands before every parity test."""
    (tree.root / "tests/local_tests/conftest.py").write_text(text)
    assert said in red(tree)["FV317"]


def test_the_shipped_parity_tests_pass() -> None:
    """FV317: nothing in the template's parity tests is a way around the native object."""
    from fvport.checks import _native_side

    files = list((Path(boundary.__file__).parents[1] / "scaffold/archetypes").glob("*/parity_test.py.jinja"))
    assert files
    for file in files:
        text = re.sub(r"\{%.*?%\}\n?|\{#.*?#\}\n?", "", file.read_text(), flags=re.DOTALL)
        text = re.sub(r"(?<=[\w)\]])\{\{.*?\}\}", "", text)  # a suffix that some models have
        text = re.sub(r"\{\{.*?\}\}", "x", text)
        assert list(_native_side.problems(ast.parse(text))) == [], file
