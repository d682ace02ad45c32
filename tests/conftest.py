# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files share: the demo's port, baked and gated once a session, and copies to break."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores, and small tensors everywhere
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))  # examples/ is not a part of the package


# Two workers take whole files in this order. The demo is made in the first; what needs it comes when it is there, and
# the many short files come last, so that no worker is left alone with a long one.
FIRST = ("test_end_to_end.py", "test_parity_oracle.py", "test_archetypes.py", "test_ci_dry_run.py", "test_bake.py")
THEN = ("test_prep_tokens.py", "test_benchmarks.py", "test_end_to_end_faults.py", "test_readme.py")
ORDER = {name: index for index, name in enumerate((*FIRST, *THEN))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.get(item.path.name, len(ORDER)))  # stable: files stay whole


@dataclass(frozen=True)
class Ran:
    """One command as a user sees it."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class PortCopy:
    """A port on disk that a test may break; `restore` brings back the tree and the evidence."""

    root: Path

    def fvport(self, *args: object) -> Ran:
        command = [sys.executable, "-m", "fvport.cli", *map(str, args), "--port", str(self.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def git(self, *args: str) -> str:
        command = ["git", "-C", str(self.root), "-c", "user.name=test", "-c", "user.email=test@example.org", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def edit(self, file: str, old: str, new: str, count: int = 1) -> None:
        """Replace text that must be there, exactly `count` times: a fault that does not apply is no test."""
        path = self.root / file
        text = path.read_text()
        assert text.count(old) == count, f"{file} has {old!r} {text.count(old)} times, not {count}"
        path.write_text(text.replace(old, new))

    def keep(self) -> None:
        """The state that `restore` comes back to."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "as the test found it")
        for name in (".fvport/evidence", "converted_weights"):
            shutil.rmtree(self.root / ".kept" / name, ignore_errors=True)
            shutil.copytree(self.root / name, self.root / ".kept" / name, symlinks=True)

    def restore(self) -> None:
        self.git("reset", "-q", "--hard")
        self.git("clean", "-fdq", "-e", ".kept")
        for name in (".fvport/evidence", "converted_weights"):
            _remove(self.root / name)
            shutil.copytree(self.root / ".kept" / name, self.root / name, symlinks=True)


def _remove(path: Path) -> None:
    path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's port after `make demo`, in a folder of its own; FVPORT_TEST_DEMO names one that is made already."""
    made = os.environ.get("FVPORT_TEST_DEMO")
    if made:
        return Path(made)
    from filelock import FileLock

    from examples import demo

    base = tmp_path_factory.getbasetemp()
    build = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    with FileLock(f"{build}.lock"):  # several workers share one demo; the second finds it done
        assert demo.run(build) == 0, "the demo's gate is not green"
    return build / demo.SLUG


@pytest.fixture(scope="session")
def _breakable(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> PortCopy:
    root = tmp_path_factory.mktemp("broken") / demo_root.name
    shutil.copytree(demo_root, root, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    link = root / "official_weights" / root.name
    if link.is_symlink():  # relative to where the demo was made
        target = (demo_root / "official_weights" / root.name).resolve()
        link.unlink()
        link.symlink_to(target)
    (root / ".git/info/exclude").open("a").write("\n.kept/\n")
    copy = PortCopy(root)
    copy.keep()
    return copy


@pytest.fixture
def port(_breakable: PortCopy):
    """A green port to break. Tree and evidence come back after the test."""
    yield _breakable
    _breakable.restore()
