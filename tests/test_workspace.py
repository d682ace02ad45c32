# SPDX-License-Identifier: Apache-2.0
"""The workspace: wheel, worktree and clone with real git; nothing that exists is overwritten, a rerun finishes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from workspace_helpers import git, make_port, small_fastvideo, snapshot, write

from fvport import workspace
from fvport.errors import BlockedError, UsageError
from fvport.workspace import git as fgit
from fvport.workspace import registration, sources, tree, upstream_tests


@pytest.fixture(autouse=True)
def no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where git knows nobody, and where a stray GIT_DIR points elsewhere."""
    for key in ("NAME", "EMAIL"):
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.delenv(f"GIT_{who}_{key}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))


@pytest.fixture(scope="session")
def quick_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed `fastvideo` 0.2.1 of a few files, as a wheel's record lists it."""
    site = small_fastvideo(tmp_path_factory.mktemp("site packages"), docs=False)
    write(site, {"fastvideo/__init__.py": "", "tests/local_tests/__init__.py": "", "fastvideo/x.pyc": "no"})
    info = "Metadata-Version: 2.1\nName: fastvideo\nVersion: 0.2.1\n"
    record = "".join(f"{name},,\n" for name in snapshot(site)) + "../../bin/fastvideo,,\n"
    write(site, {"fastvideo-0.2.1.dist-info/METADATA": info, "fastvideo-0.2.1.dist-info/RECORD": record})
    return site


@pytest.fixture
def wheel(quick_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(quick_wheel), *sys.path])
    return quick_wheel


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FastVideo checkout with one commit, its own .gitignore, and uncommitted work in it."""
    monkeypatch.delenv("GIT_DIR")
    root = small_fastvideo(tmp_path / "my code" / "FastVideo")
    write(root, {".gitignore": "**.txt\nofficial_weights/\nPLAN.md\n", "tracked.py": "old\n"})
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "FastVideo")
    write(root, {"tracked.py": "my work\n", "staged.py": "staged\n", "new.py": "untracked\n"})
    git(root, "add", "staged.py")
    return root


def test_wheel_becomes_a_tree_in_three_commits(wheel: Path, tmp_path: Path) -> None:
    """FastVideo alone, then the pure template, then the registration; a clean tree on the port's own branch."""
    port = make_port(tmp_path / "my port")
    write(
        port.root,
        {"official_weights/tiny_wan/x.bin": "w", ".fvport/evidence/x": "e", "fastvideo/__pycache__/a.pyc": "c"},
    )
    template = {k for k in snapshot(port.root) if not k.startswith("official_weights") and not k.endswith(".pyc")}
    result = workspace.make(port)
    root = port.root
    assert result.did == "created"
    assert [line.split()[1] for line in result.commits] == ["FastVideo", "template", "registration"]
    assert result.branch.startswith("port/tiny_wan-2")
    log = git(root, "log", "--format=%an", "HEAD").splitlines()
    assert log == ["fvport"] * 3
    first = set(git(root, "ls-tree", "-r", "--name-only", "HEAD~2").splitlines())
    assert first == set(tree.wheel_files("0.2.1"))
    assert set(git(root, "diff", "--name-only", "HEAD~2", "HEAD~1").splitlines()) == template
    assert git(root, "diff", "--diff-filter=AD", "--name-only", "HEAD~1", "HEAD") == ""
    assert git(root, "status", "--porcelain") == ""
    assert not registration.check(root, port)
    assert {".fvport/", "official_weights/", "converted_weights/"} <= set(
        (root / ".git/info/exclude").read_text().splitlines()
    )


def test_second_run_changes_nothing_and_repairs_registration(wheel: Path, tmp_path: Path) -> None:
    """Ready is said and nothing moves; after an undo the missing registrations are made again."""
    port = make_port(tmp_path / "p")
    workspace.make(port)
    before, head = snapshot(port.root), git(port.root, "rev-parse", "HEAD")
    again = workspace.make(port)
    assert (again.did, again.commits, again.files) == ("ready", [], [])
    assert "nothing was changed" in again.text()
    undone = workspace.undo(port)
    assert undone.did == "undone"
    assert git(port.root, "diff", "HEAD~1", "--stat") == ""
    assert workspace.make(port).did == "registered"
    assert snapshot(port.root) == before
    assert git(port.root, "rev-parse", "HEAD") == head
    assert workspace.undo(port).to_json()["files"]
    assert "no registration edit was found" in workspace.undo(port).text()


def test_undo_in_a_fresh_clone_of_the_branch(wheel: Path, tmp_path: Path) -> None:
    """Another machine that cloned the branch can undo, and is told that the workspace is ready."""
    port = make_port(tmp_path / "p")
    workspace.make(port)
    there = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", str(port.root), str(there))
    cloned = sources.port_at(port, there)
    assert workspace.make(cloned).did == "ready"
    assert workspace.undo(cloned).files
    assert git(there, "diff", "HEAD~1", "--stat") == ""


def test_second_port_on_the_same_tree(wheel: Path, tmp_path: Path) -> None:
    """A second port on the first one's tree gets its own commits; both are registered, foreign files stay out."""
    port = make_port(tmp_path / "p")
    workspace.make(port)
    other = make_port(port.root, "wan")
    write(port.root, {"notes.md": "mine\n"})
    result = workspace.make(other)
    assert result.did == "created"
    assert not registration.check(port.root, port)
    assert not registration.check(port.root, other)
    assert git(port.root, "status", "--porcelain") == "?? notes.md"
    assert workspace.make(other).did == "ready"
    assert workspace.make(port).did == "ready"


def test_weights_of_a_second_port_stay_out_of_a_clone(wheel: Path, tmp_path: Path) -> None:
    """A clone of the tree has no exclude lines of its own: weights that are there already are not committed."""
    port = make_port(tmp_path / "p")
    workspace.make(port)
    there = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(port.root), str(there))
    other = make_port(there, "wan")
    write(there, {"converted_weights/wan/vae/model.safetensors": "x", "official_weights/wan/model_index.json": "{}"})
    assert workspace.make(other).did == "created"
    assert git(there, "ls-files", "--", "converted_weights", "official_weights") == ""
    assert git(there, "status", "--porcelain") == ""


def test_collisions_are_all_listed_before_anything_is_written(wheel: Path, tmp_path: Path) -> None:
    """Every file in the way is named, equal bytes are none, and nothing was written."""
    port = make_port(tmp_path / "p")
    write(
        port.root,
        {"fastvideo/registry.py": "mine", "fastvideo/configs/models/vaes": "a file", "fastvideo/__init__.py": ""},
    )
    before = snapshot(port.root)
    with pytest.raises(UsageError) as caught:
        workspace.make(port)
    assert "2 file(s)" in str(caught.value)
    assert "fastvideo/registry.py" in str(caught.value)
    assert "fastvideo/configs/models/vaes/__init__.py" in str(caught.value)
    assert snapshot(port.root) == before
    assert not (port.root / ".git").exists()
    assert not (port.root / ".fvport").exists()


def test_wrong_or_absent_wheel_is_blocked(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version, or none, is said with the command that installs it; FastVideo is not imported for that."""
    port = make_port(tmp_path / "p", fastvideo='version = "0.2.0"')
    with pytest.raises(BlockedError, match=r"asks for fastvideo 0\.2\.0, but 0\.2\.1 is installed"):
        workspace.make(port)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BlockedError, match="not installed"):
        tree.wheel_files("0.2.1")
    assert not (port.root / ".git").exists()


def test_a_repository_of_the_users_own_is_not_touched(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that lies in a git repository of its own keeps its history: the wheel source stops with what to do."""
    monkeypatch.delenv("GIT_DIR")
    port = make_port(tmp_path / "p")
    git(port.root, "init", "-q")
    with pytest.raises(UsageError, match="git repository of its own"):
        workspace.make(port)


def test_port_inside_another_repository(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port below another repository gets a repository of its own; the one around it stays as it was."""
    monkeypatch.delenv("GIT_DIR")
    git(tmp_path, "init", "-q")
    port = make_port(tmp_path / "build" / "p")
    assert workspace.make(port).did == "created"
    assert git(tmp_path, "ls-files") == ""
    assert (port.root / ".git").is_dir()


@pytest.mark.parametrize("stop", [3, 12, 20, 24])
def test_interrupted_wheel_is_finished_by_a_rerun(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Killed at any git command, the next run finishes with the same three commits and no file lost."""
    port = make_port(tmp_path / "p")
    mine = snapshot(port.root)
    _stop_after(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        workspace.make(port)
    monkeypatch.setattr(fgit, "run", REAL_RUN)
    assert all(snapshot(port.root)[name] == data for name, data in mine.items())
    assert workspace.make(port).did in ("finished", "created", "ready")  # ready: killed after the last step
    assert git(port.root, "rev-list", "--count", "HEAD") == "3"
    assert git(port.root, "status", "--porcelain") == ""
    assert not registration.check(port.root, port)
    assert workspace.make(port).did == "ready"


REAL_RUN = fgit.run


def _stop_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    count = 0

    def run(*args: object, **keys: object) -> object:
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return REAL_RUN(*args, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(fgit, "run", run)


def test_worktree_beside_a_dirty_checkout(checkout: Path, tmp_path: Path) -> None:
    """The new folder holds HEAD and the port; the checkout's files, index, branch and HEAD are as they were."""
    port = make_port(tmp_path / "port dir", fastvideo='source = "worktree"')
    state = [
        git(checkout, *words)
        for words in (("status", "--porcelain"), ("rev-parse", "HEAD"), ("branch", "--show-current"))
    ]
    files, index = snapshot(checkout), (checkout / ".git/index").read_bytes()
    result = workspace.make(port, checkout=checkout)
    root = Path(result.root)
    assert root.parent == checkout.parent
    assert root.name.startswith("FastVideo-tiny_wan-2")
    assert f"cd {root}" in result.text()
    assert any("uncommitted changes" in note for note in result.notes)
    assert (root / "tracked.py").read_text() == "old\n"
    assert not (root / "new.py").exists()
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "ls-files", "tests/local_tests/tiny_wan/PLAN.md")
    assert not registration.check(root, sources.port_at(port, root))
    words = (("status", "--porcelain"), ("rev-parse", "HEAD"), ("branch", "--show-current"))
    assert [git(checkout, *word) for word in words] == state
    assert snapshot(checkout) == files
    assert (checkout / ".git/index").read_bytes() == index
    assert workspace.make(port, checkout=checkout).did == "ready"
    assert workspace.make(sources.port_at(port, root), checkout=checkout).did == "ready"
    assert workspace.make(port).root == str(root)


def test_worktree_collisions_and_bad_checkouts(checkout: Path, tmp_path: Path) -> None:
    """A file of the base with other bytes stops it, and so do a wrong ref and a folder without git."""
    port = make_port(tmp_path / "p", fastvideo='source = "worktree"')
    write(port.root, {"tracked.py": "other\n", "mkdocs.yml": (checkout / "mkdocs.yml").read_text()})
    with pytest.raises(UsageError, match=r"1 file\(s\) of the port exist with other content: tracked\.py"):
        workspace.make(port, checkout=checkout)
    assert git(checkout, "branch", "--list", "port/*") == ""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BlockedError, match="no git checkout"):
        workspace.make(port, checkout=tmp_path / "empty")
    wrong = make_port(tmp_path / "q", fastvideo='source = "worktree"\nref = "nope"')
    with pytest.raises(BlockedError, match='no commit "nope"'):
        workspace.make(wrong, checkout=checkout)
    with pytest.raises(UsageError, match="needs a FastVideo checkout"):
        workspace.make(wrong)


@pytest.mark.parametrize("stop", [9, 16, 18, 20])
def test_interrupted_worktree_is_finished_by_a_rerun(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Killed at any git command, the next run finishes in the same folder."""
    port = make_port(tmp_path / "p", fastvideo='source = "worktree"')
    _stop_after(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        workspace.make(port, checkout=checkout)
    monkeypatch.setattr(fgit, "run", REAL_RUN)
    result = workspace.make(port, checkout=checkout)
    assert git(Path(result.root), "status", "--porcelain") == ""
    assert len(list(checkout.parent.glob("FastVideo-*"))) == 1
    assert git(Path(result.root), "rev-list", "--count", "HEAD") == "3"


def test_two_ports_one_after_the_other_by_worktree(checkout: Path, tmp_path: Path) -> None:
    """A second port on the first one's branch: equal gate-only files are no collision, other bytes are."""
    first = make_port(tmp_path / "a", fastvideo='source = "worktree"')
    root = Path(workspace.make(first, checkout=checkout).root)
    second = make_port(tmp_path / "b", "big_wan", fastvideo='source = "worktree"')
    both = Path(workspace.make(second, checkout=root).root)
    for port in (first, second):
        assert not registration.check(both, sources.port_at(port, both))
    third = make_port(tmp_path / "c", "third_wan", fastvideo='source = "worktree"')
    write(third.root, {"noxfile.py": "# changed\n"})
    with pytest.raises(UsageError, match=r"noxfile\.py"):
        workspace.make(third, checkout=root)


def test_clone_at_a_ref(checkout: Path, tmp_path: Path) -> None:
    """A clone of a local address at a named commit, on the port's branch; the base is written down as a commit."""
    ref = git(checkout, "rev-parse", "HEAD")
    keys = f'source = "clone"\nrepo = "{checkout}"\nref = "{ref[:10]}"'
    port = make_port(tmp_path / "p", fastvideo=keys)
    result = workspace.make(port)
    root = Path(result.root)
    assert root.parent == tmp_path
    assert result.base == ref
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "branch", "--show-current") == result.branch
    assert workspace.make(port).did == "ready"
    assert not (port.root / ".fvport/tmp").exists()


def test_clone_that_cannot_be_made_leaves_nothing(checkout: Path, tmp_path: Path) -> None:
    """A wrong address, a wrong ref and a collision are one sentence each, with no folder left behind."""
    for keys, error, says in (
        (f'repo = "{tmp_path}/nothing"', BlockedError, "fastvideo.repo"),
        (f'repo = "{checkout}"\nref = "v9"', BlockedError, 'no commit "v9"'),
        (f'repo = "{checkout}"', UsageError, "tracked.py"),
        ("", UsageError, "needs fastvideo.repo"),
    ):
        port = make_port(tmp_path / "p", fastvideo=f'source = "clone"\n{keys}')
        write(port.root, {"tracked.py": "other\n"})
        with pytest.raises(error, match=says):
            workspace.make(port)
        assert not list(tmp_path.glob("FastVideo-*"))


def test_undo_without_a_workspace_is_blocked(tmp_path: Path) -> None:
    """There is nothing to undo on a folder that is no workspace."""
    with pytest.raises(BlockedError, match="fvport workspace"):
        workspace.undo(make_port(tmp_path / "p"))


def test_regressions_name_each_test() -> None:
    """Only a test that passed before and does not now is a regression; a test that is gone is one, too."""
    before = {"a": "passed", "b": "failed", "c": "passed", "d": "passed"}
    after = {"a": "passed", "b": "failed", "c": "error", "new": "failed"}
    assert upstream_tests.regressions(before, after) == ["c: passed before, error now", "d: passed before, gone now"]


def test_upstream_run_reads_outcomes(tmp_path: Path) -> None:
    """Outcomes are read per node id, a file that cannot be collected is an error, an empty tree is blocked."""
    text = "import pytest\n\ndef test_a(): pass\n\ndef test_b(): assert 0\n\n@pytest.fixture\ndef f(): 1/0\n\ndef test_c(f): pass\n"  # noqa: E501
    write(tmp_path, {"fastvideo/tests/api/test_x.py": text, "fastvideo/tests/api/test_y.py": "import nothing_there\n"})
    found = upstream_tests.run(tmp_path)
    path = "fastvideo/tests/api/test_x.py::test_"
    assert (found[path + "a"], found[path + "b"], found[path + "c"]) == ("passed", "failed", "error")
    assert found["fastvideo/tests/api/test_y.py"] == "error"
    with pytest.raises(BlockedError):
        upstream_tests.run(tmp_path / "fastvideo")
