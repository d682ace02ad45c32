# SPDX-License-Identifier: Apache-2.0
"""A port follows its template by cruft, through two versions, without the checkpoint; people's edits stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bake_helpers import answers, files, release
from test_bake_ways import copy, git

pytestmark = pytest.mark.heavy  # four bakes by cruft's own command line
PLAN = "tests/local_tests/tiny_wan/PLAN.md"
PART = "src/fvport/scaffold/archetypes/t5_encoder/native.py.jinja"
NATIVE = "fastvideo/models/encoders/tiny_wan.py"


def cruft(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-m", "cruft", *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def commit(root: Path, subject: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", subject)


@pytest.fixture
def port(tmp_path: Path) -> Path:
    """A port by `cruft create` from version one of the template, committed; its checkpoint is gone."""
    template = copy(tmp_path / "template")
    git(template, "init", "-q", "-b", "main")
    commit(template, "one")
    wan = release(tmp_path / "wan")
    context = json.dumps(dict(item.split("=", 1) for item in answers(official_weights=str(wan))))
    work = tmp_path / "work"
    work.mkdir()
    done = cruft(work, "create", str(template), "--no-input", "--extra-context", context)
    assert done.returncode == 0, done.stdout + done.stderr
    root = work / "tiny_wan"
    git(root, "init", "-q")
    commit(root, "port")
    shutil.rmtree(wan)
    return root


def test_a_port_follows_its_template(port: Path, tmp_path: Path) -> None:
    """check is green, red after a new version; update brings it, also what the package renders, and keeps our lines."""
    template = tmp_path / "template"
    assert cruft(port, "check").returncode == 0
    before = files(port)
    noxfile = template / "{{cookiecutter.model_slug}}" / "noxfile.py"
    noxfile.write_text(noxfile.read_text() + "\n# version two\n")
    (template / PART).write_text((template / PART).read_text() + "\n# version two of the part\n")
    commit(template, "two")
    assert cruft(port, "check").returncode == 1
    (port / PLAN).write_text((port / PLAN).read_text() + "\nOur own line.\n")
    (port / "ours.py").write_text("OURS = 1\n")
    commit(port, "ours")
    done = cruft(port, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    after = files(port)
    changed = {name for name in after if not name.startswith(".git/") and after[name] != before.get(name)}
    assert b"# version two\n" in after["noxfile.py"]
    assert b"# version two of the part" in after[NATIVE]
    assert after[PLAN].endswith(b"\nOur own line.\n")
    assert after["ours.py"] == b"OURS = 1\n"
    inspection = "tests/local_tests/tiny_wan/inspection.json"
    assert after[inspection] == before[inspection]  # the update read it in place of the checkpoint
    assert {"noxfile.py", NATIVE, PLAN, "ours.py"} <= changed <= {"noxfile.py", NATIVE, PLAN, "ours.py", ".cruft.json"}
    assert cruft(port, "check").returncode == 0
