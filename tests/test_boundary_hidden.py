# SPDX-License-Identifier: Apache-2.0
"""`boundary` sees what git was told not to show, what shadows a package, and code that looks for its judge."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gate_support as g
import pytest

from fvport import spec
from fvport.checks import Options, boundary
from fvport.spec import Port
from fvport.workspace import tree as files

OLD = "fastvideo/pipelines/old.py"
NATIVE = "fastvideo/models/dits/toy.py"


def git(root: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", "-C", str(root), *who, *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def port(tmp_path: Path) -> Port:
    """A port committed onto a FastVideo of one file."""
    file = tmp_path / OLD
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\ny = 2\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "FastVideo")
    port = g.make(tmp_path)
    (tmp_path / ".git/info/exclude").write_text("official_weights/\nconverted_weights/\n.fvport/\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "port")
    return port


def red(port: Port, rule: str) -> str:
    """Everything that a rule says is wrong."""
    items = boundary.run(spec.load(port.root), Options()).items
    return "\n".join(i.reason for i in items if i.verdict != "pass" and i.name.split()[0] == rule)


def test_green(port: Port) -> None:
    """A clean port in a git tree passes, with what Python caches and an ignored output lying about."""
    for path in ("fastvideo/__pycache__/a.cpython-311.pyc", "outputs/a.txt", ".venv/lib/a.py"):
        (port.root / path).parent.mkdir(parents=True, exist_ok=True)
        (port.root / path).write_bytes(b"x")
    items = boundary.run(port, Options()).items
    assert [i.reason for i in items if i.verdict != "pass"] == []


@pytest.mark.parametrize("flag", ["skip-worktree", "assume-unchanged"])
def test_index_flags(port: Port, flag: str) -> None:
    """FV319: a FastVideo file that the index hides is named, with what hides it, and its new lines are looked at."""
    git(port.root, "update-index", f"--{flag}", OLD)
    (port.root / OLD).write_text("x = 1\nfrom diffusers import AutoencoderKL\n")
    assert flag in red(port, "FV319")
    assert "is FastVideo's own and is changed" in red(port, "FV319")
    assert f"{OLD}:2" in red(port, "FV301")


def test_filter(port: Port) -> None:
    """FV319: a clean filter that shows git the old bytes hides nothing."""
    (port.root / ".git/info/attributes").write_text(f"{OLD} filter=old\n")
    git(port.root, "config", "filter.old.clean", f"git cat-file blob HEAD:{OLD}")
    (port.root / OLD).write_text("x = 3\ny = 2\n")
    assert OLD in red(port, "FV319")


def test_replaced_commit(port: Port) -> None:
    """FV319: `git replace` does not make an edit part of the commit before the port."""
    base, told = git(port.root, "rev-list", "HEAD").split()[::-1]
    (port.root / OLD).write_text("x = 3\n")
    git(port.root, "add", OLD)
    git(port.root, "commit", "-qm", "edit")
    edited = git(port.root, "commit-tree", "-m", "FastVideo", "HEAD^{tree}").strip()
    git(port.root, "replace", base, edited)
    assert told
    assert f"{OLD}: is FastVideo's own and is changed" in red(port, "FV319")


def test_grafts(port: Port) -> None:
    """FV319: a grafts file is a finding."""
    (port.root / ".git/info/grafts").write_text("# nothing\n")
    assert "info/grafts" in red(port, "FV319")


def test_commit_is_not_the_wheel(port: Port, tmp_path_factory: pytest.TempPathFactory, monkeypatch: object) -> None:
    """FV319: an edit that the commit before the port holds already is named, and an equal file is not."""
    wheel = tmp_path_factory.mktemp("wheel")
    (wheel / "old.py").write_text("x = 1\ny = 2\n")
    g.edit(port, "tests/local_tests/toy/port.toml", 'source = "worktree"', 'source = "wheel"')
    monkeypatch.setattr(files, "wheel_files", lambda version: {OLD: wheel / "old.py"})  # type: ignore[attr-defined]
    assert red(port, "FV319") == ""
    (wheel / "old.py").write_text("x = 1\ny = 1\n")
    assert f"{OLD}: is in the commit before the port other than in FastVideo" in red(port, "FV319")


@pytest.mark.parametrize("hide", [".git/info/exclude", "fastvideo/layers/.gitignore", "nested"])
def test_ignored_helper(port: Port, hide: str) -> None:
    """FV301: a helper under fastvideo/ counts, whatever ignores it."""
    helper = port.root / "fastvideo/layers/ropehelp.py"
    helper.parent.mkdir(parents=True)
    helper.write_text("from diffusers import WanTransformer3DModel\n")
    if hide == "nested":
        git(helper.parent, "init", "-q")
    else:
        with open(port.root / hide, "a") as file:
            file.write("ropehelp.py\n.gitignore\n")
    assert "fastvideo/layers/ropehelp.py:1" in red(port, "FV301")


PACKAGES = ["wanref/__init__.py", "einops/a/b.py", "sitecustomize.py", "outputs/help.py", "__pycache__/help.pyc"]


@pytest.mark.parametrize("path", PACKAGES)
@pytest.mark.parametrize("ignored", [False, True])
def test_package_at_the_root(port: Port, path: str, ignored: bool) -> None:
    """FV319: a module or package at the root is named, committed, untracked or ignored."""
    (port.root / path).parent.mkdir(parents=True, exist_ok=True)
    (port.root / path).write_text("x = 1\n")
    if ignored:
        (port.root / ".git/info/exclude").write_text(f"/{path.split('/')[0]}\n")
    assert path.split("/")[0] + ": is " in red(port, "FV319")


def test_what_nox_leaves_at_the_root_is_no_package(port: Port) -> None:
    """FV319: the bytecode that Python keeps of noxfile.py is imported by no name; it is there after any session."""
    kept = port.root / "__pycache__" / "noxfile.cpython-311.pyc"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"x")
    assert red(port, "FV319") == ""


def test_root_file_counts(port: Port) -> None:
    """FV304: an untracked Python file in a folder at the root is a file of the port."""
    (port.root / "wanref").mkdir()
    (port.root / "wanref/a.py").write_text("t = 'hf_" + "Ab3dEf6hIj9kLmNoPqRs" + "'\n")
    assert "wanref/a.py:1" in red(port, "FV304")


JUDGES = [
    "import sys\nX = '_pytest' in sys.modules",
    "import sys\nX = 'pluggy' in sys.modules",
    "import sys\nX = 'fvport.checks' in sys.modules",
    "import sys\nX = any(m.startswith('py' + 'test') for m in sys.modules)",
    "import sys as s\nX = list(s.modules)",
    "import os\nX = any(k.startswith('FVP') for k in os.environ)",
    "import os\nX = [k for k in os.environ if 'V' in k]",
    "import os\nX = os.environ.copy()",
    "import posix\nX = posix.environ",
    "X = open('/proc/self/environ').read()",
    "import os\nX = list(os.environ.items())",
    "from os import environ\nX = list(environ.keys())",
    "import os\nX = dict(os.environ)",
    "import os\nk = 'A'\nX = os.environ.get(k)",
    "import os\nX = os.getenv('FV' + 'PORT_RUN')",
    "import os\nk = 'A'\nX = os.getenv(k)",
    "import torch\nX = torch.are_deterministic_algorithms_enabled()",
    "from torch import are_deterministic_algorithms_enabled as d\nX = d()",
    "import sys\nX = sys.argv[0]",
    "from pathlib import Path\nX = Path('.fvport').is_dir()",
    "from pathlib import Path\nX = Path('a/.fvport/evidence').is_dir()",
    "import pluggy",
    "from scripts.checkpoint_conversion import x",
]


@pytest.mark.parametrize("code", JUDGES)
def test_judge_looked_for(tmp_path: Path, code: str) -> None:
    """FV318: every way of asking who runs the code is red where it stands."""
    port = g.make(tmp_path)
    g.edit(port, NATIVE, "EntryClass", f"{code}\nEntryClass")
    assert f"{NATIVE}:" in red(port, "FV318")


@pytest.mark.parametrize(
    "code",
    [
        "import os\nX = os.environ.get('FASTVIDEO_ATTENTION_BACKEND', 'a')",
        "import os\nos.environ['A'] = '1'\nX = os.getenv('B')",
        "import os\nX = 'A' in os.environ",
        "import sys\nX = sys.modules[__name__]",
        "X = 'a test of fvport and pytest in words'",
    ],
)
def test_judge_left_alone(tmp_path: Path, code: str) -> None:
    """FV318: reading one named variable of one's own is fine."""
    port = g.make(tmp_path)
    g.edit(port, NATIVE, "EntryClass", f"{code}\nEntryClass")
    assert red(port, "FV318") == ""
