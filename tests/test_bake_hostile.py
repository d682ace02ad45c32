# SPDX-License-Identifier: Apache-2.0
"""Hostile input is data: nothing of it runs, nothing of it breaks a file, and port.toml holds it exactly."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from bake_helpers import DIT, REPO, WAN, bake, files, release

from fvport import spec
from fvport.scaffold.literals import oneline, pyrepr, tomlrepr

PWNED = "FVPORT_TEST_WAS_HERE"
NAMES = {
    "quotes": 'Tiny "Wan" \'and\' """triple""" \'\'\'',
    "newlines": "Tiny\nWan\r\nimport os\n",
    "backslashes": "Tiny \\ Wan \\n \\u0041 \\",
    "braces": "Tiny {{ 7 * 7 }} {% raw %} {# gone #} {{",
    "endraw": "{% endraw %}{{ cycler.__init__.__globals__.os.environ.update(X='1') }}{% raw %}",
    "python": f"__import__('os').environ.__setitem__('{PWNED}', '1')",
    "breakout": f'"); import os; os.environ["{PWNED}"] = "1"; ("',
    "markdown": "Tiny | Wan <!-- gate: parity --> `x` <script>",
    "unicode": "Tïny Wän 万 \U0001f98a \u2028 \u202e",
    "shell": "$(touch pwned) `touch pwned` ; touch pwned",
    "toml": 'x"\nslug = "evil"\n[gate]\nrequire_device = "none',
    "percent": "100 % %s %(x)s {0} {model}",
}


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(release(tmp_path_factory.mktemp("official") / "wan"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, wan: str) -> dict[str, bytes]:
    """The files of a port with a harmless name."""
    return files(bake(tmp_path_factory.mktemp("plain"), official_weights=wan, model_slug="hostile_one"))


def code(text: bytes) -> str:
    """A Python file's syntax tree with every string emptied."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize("case", NAMES)
def test_model_name_is_data(
    tmp_path: Path, wan: str, plain: dict[str, bytes], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the model is called, every file stays whole and port.toml says the name as it was typed."""
    monkeypatch.chdir(tmp_path)
    root = bake(tmp_path / "out", official_weights=wan, model_name=NAMES[case], model_slug="hostile_one")
    assert spec.load(root).port.model == NAMES[case].strip()
    assert spec.load(root).gate.require_device == "cpu"
    for name, text in files(root).items():
        if name.endswith(".py"):
            assert code(text) == code(plain[name]), name
        if name.endswith(".md"):
            assert b"gate: parity -->" not in text.splitlines()[0]
    assert PWNED not in os.environ
    assert not (tmp_path / "pwned").exists()


def test_cookiecutter_renders_no_answer(tmp_path: Path, wan: str) -> None:
    """Braces in an answer on cookiecutter's own command line are text as well."""
    words = ["model_name=A {{ 7*7 }} {% bad", "model_slug=plain_one", f"official_weights={wan}", "gate_device=cpu"]
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", "-o", ".", str(REPO), *words]
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert spec.load(tmp_path / "plain_one").port.model == "A {{ 7*7 }} {% bad"


@pytest.mark.parametrize("key", ["official_revision", "official_repo", "fastvideo", "official_weights"])
def test_control_characters_are_refused(tmp_path: Path, wan: str, key: str) -> None:
    """A newline in an answer that is an address, a path or a word is refused."""
    from fvport.errors import FvportError

    with pytest.raises(FvportError):
        bake(tmp_path / "out", **{"official_weights": wan, key: "./x\ny"})
    assert not (tmp_path / "out").exists()


def test_hostile_checkpoint(tmp_path: Path) -> None:
    """Strings of a checkpoint's config reach the native config as literals, and no name of it becomes code."""
    config = {**DIT, "note": f'"); import os; os.environ["{PWNED}"] = "1"  # {{{{ 1 }}}}', "a b": 1, "class": 2}
    parts = {**WAN, "transformer": ("diffusers", "NewTransformer3DModel", config, {"a": (1,)})}
    root = bake(tmp_path / "out", official_weights=str(release(tmp_path / "w", components=parts)), components="auto")
    tree = ast.parse((root / "fastvideo/configs/models/dits/tiny_wan.py").read_text())
    fields = (node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign))
    values = {node.target.id: node.value for node in fields if isinstance(node.target, ast.Name)}
    assert ast.literal_eval(values["note"]) == config["note"]
    assert "class" not in values


@pytest.mark.parametrize("cls", ["A:B", "x; import os", "../Evil", "New'Model"])
def test_hostile_class_name_is_refused(tmp_path: Path, cls: str) -> None:
    """A component's class that is no Python name is refused, and nothing is written."""
    from fvport.errors import FvportError

    parts = {**WAN, "transformer": ("diffusers", cls, DIT, {"a": (1,)})}
    with pytest.raises(FvportError):
        bake(tmp_path / "out", official_weights=str(release(tmp_path / "w", components=parts)), components="auto")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pipeline", ["Evil'); import os", "a b", "x\ny", "{{ 7 }}"])
def test_hostile_pipeline_name_is_refused(tmp_path: Path, pipeline: str) -> None:
    """A pipeline class that is no Python name is refused, and nothing is written."""
    from fvport.errors import FvportError

    with pytest.raises(FvportError):
        bake(tmp_path / "out", official_weights=str(release(tmp_path / "w", pipeline)))
    assert not (tmp_path / "out").exists()


VALUES = [
    "plain",
    "quo\"te's\n\t\\ \x00\x7f\u2028 万 \U0001f98a {{",
    [1, 2.5, True, "x"],
    ["long word " * 3] * 20,
    {"a": [1, 2], "b c": {"d": "e" * 60, "f": "g" * 60}},
    (1,),
    (),
    [],
    {},
    -0.0,
    1e-6,
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_literals_read_back(value: object) -> None:
    """pyrepr and tomlrepr give text that reads back as the value, within 120 columns where words allow it."""
    text = pyrepr(value, 4, 20)
    assert ast.literal_eval(text) == value
    assert max(map(len, f"{' ' * 20}{text}".splitlines())) <= 120 or isinstance(value, str)
    read = tomllib.loads(f"x = {tomlrepr(value)}")["x"]
    assert read == json.loads(json.dumps(value))


def test_oneline() -> None:
    """Free text becomes one line that closes no docstring, comment or table cell."""
    text = oneline('a\n"""b\\ | <!-- `x` {{ }}')
    assert not set(text) & set('\n"\\|<>`{}')
    assert oneline("\n\t") == "model"
