# SPDX-License-Identifier: Apache-2.0
"""The second demo: a port of a repository whose classes no library has."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prep_support import git

from examples import demo as first
from examples.reference import demo

PORT = demo.HERE / "port"


def baked(tmp_path: Path) -> Path:
    """The port as the bake leaves it, from the inspection of a release that lies elsewhere."""
    for name in ("transformer", "text_encoder", "vae"):
        (tmp_path / "w" / name).mkdir(parents=True)
        (tmp_path / "w" / name / "config.json").write_text("{}")
    index = {
        "_class_name": "MistSampler",
        "transformer": ["mist", "MistDenoiser"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    index |= {
        "text_encoder": ["mist", "MistTextEncoder"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    index |= {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]}
    for name in ("scheduler", "tokenizer"):
        (tmp_path / "w" / name).mkdir()
    (tmp_path / "w/model_index.json").write_text(json.dumps(index))
    answers = demo.answers(tmp_path / "w", "1" * 40)
    command = first.fvport("new", "--no-input", "--output-dir", tmp_path / "out", *answers)
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "out" / demo.SLUG


def test_the_repository_is_the_same_commit_everywhere(tmp_path):
    """Made twice, the reference is one commit; another line in it is another one."""
    one, two = demo.repository(tmp_path / "a/mist_repo"), demo.repository(tmp_path / "b/mist_repo")
    assert one == two
    assert git(tmp_path / "a/mist_repo", "status", "--porcelain") == ""
    assert demo.repository(tmp_path / "a/mist_repo") == one


def test_the_hand_written_files_fill_what_the_bake_left_open(tmp_path):
    """Each checked-in file replaces one of the bake's, no decision stays open, and port.toml pins the commit."""
    port = baked(tmp_path)
    names = [p.relative_to(PORT) for p in PORT.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert [name for name in names if not (port / name).is_file()] == []
    demo.write_by_hand(port, "2" * 40)
    texts = {p: p.read_text("utf-8") for p in port.rglob("*") if p.suffix in (".py", ".toml", ".md") and p.is_file()}
    assert [str(p) for p, text in texts.items() if "FVPORT-" + "DECIDE" in text and "AGENTS" not in p.name] == []
    assert f'commit = "{"2" * 40}"' in (port / "tests/local_tests/mist/port.toml").read_text()
    for path, text in texts.items():
        if path.suffix == ".py":
            ast.parse(text)


def test_every_name_of_the_release_has_a_rule(tmp_path):
    """The hand-written rules take every tensor that make_weights writes, each by exactly one rule."""
    copy = tmp_path / "repo"
    shutil.copytree(demo.HERE / "repository", copy)
    script = "import json; from mist import MistDenoiser as d, MistTextEncoder as t; "
    script += "print(json.dumps([list(c().state_dict()) for c in (d, t)]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=True)
    for kind, names in zip(("dits", "encoders"), json.loads(done.stdout), strict=True):
        text = (PORT / f"fastvideo/configs/models/{kind}/mist.py").read_text("utf-8")
        rules = re.findall(r'r"(\^[^"]+\$)"', text)
        taken = {name: [rule for rule in rules if re.match(rule, name)] for name in names}
        assert {name: found for name, found in taken.items() if len(found) != 1} == {}
        assert [rule for rule in rules if not any(re.match(rule, name) for name in names)] == []


@pytest.mark.heavy
def test_from_bare_folder_to_green_gate(tmp_path):
    """The whole way: repository, weights, bake, hand-written files, prep, workspace, every check, gate."""
    assert demo.run(tmp_path / "build") == 0
