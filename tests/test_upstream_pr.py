# SPDX-License-Identifier: Apache-2.0
"""`fvport pr`: a branch with the port and its registration only, a text from evidence, and nothing moved or pushed."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspace_helpers import git, make_port, small_fastvideo, write

from fvport import gate, upstream, workspace
from fvport.errors import BlockedError, UsageError
from fvport.spec import CHECKS, Port
from fvport.upstream import branch, proof
from fvport.verdict import Row, Verdict
from fvport.workspace import sources

TEMPLATE = """\
<!-- PR title must start with a type tag -->

## Purpose

<!-- What for? -->
Fixes #

## Changes

-

## Test Plan

## Test Results

## Checklist

- [ ] I ran the pre-commit set
- [ ] I updated documentation
- [ ] I verified SSIM regression tests pass
- [ ] I updated the support matrix
- [ ] I considered memory
"""
TESTS = "def test_a():\n    assert True\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a checkout of a small FastVideo, the port in a worktree of it), made once and copied for each test."""
    top = tmp_path_factory.mktemp("pr")
    checkout = small_fastvideo(top / "FastVideo")
    write(checkout, {".github/PULL_REQUEST_TEMPLATE.md": TEMPLATE, "fastvideo/tests/api/test_one.py": TESTS})
    write(checkout, {"fastvideo/models/loader.py": "X = 1\n"})
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "FastVideo")):
        git(checkout, *words)
    port = make_port(top / "port", fastvideo='source = "worktree"')
    write(port.root, {"noxfile.py": "", "docker/alignment-gate/Dockerfile": "FROM x\n", "notes.md": "mine\n"})
    return checkout, Path(workspace.make(port, checkout=checkout).root)


@pytest.fixture
def port(made: tuple[Path, Path], tmp_path: Path) -> Port:
    from fvport import spec

    root = tmp_path / "clone"
    git(made[1].parent, "clone", "-q", str(made[1]), str(root))
    return spec.load(root)


def green(monkeypatch: pytest.MonkeyPatch, **red: str) -> None:
    rows = [
        Row(name, name, verdict=red.get(name, "pass"), state="current", device="cpu", scale="full") for name in CHECKS
    ]
    for row in rows:
        row.reasons = [f"{row.check} is red"] if row.check in red else []
    verdict = Verdict("tiny_wan", "Tiny", rows, requires={"device": "cpu", "scale": "full"})
    monkeypatch.setattr(gate, "decide", lambda port, demand=None: verdict)


def state(root: Path) -> tuple[str, ...]:
    return tuple(git(root, *words) for words in (("status", "--porcelain"), ("rev-parse", "HEAD"), ("branch", "-a")))


def test_the_branch_is_the_port_and_its_registration(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit on FastVideo: upstream paths and registration; gate-only files and notes stay; nothing else moves."""
    green(monkeypatch)
    before = state(port.root)
    pr = upstream.make(port)
    assert state(port.root)[:2] == before[:2]
    changed = git(port.root, "diff", "--name-status", f"{pr.branch}~", pr.branch).splitlines()
    assert {line[0] for line in changed} == {"A", "M"}
    new = {line[2:] for line in changed if line[0] == "A"}
    assert {line[2:] for line in changed if line[0] == "M"} == set(pr.edited)
    assert "fastvideo/registry.py" in pr.edited
    assert "tests/local_tests/tiny_wan/port.toml" in new
    assert all(path.startswith(branch.UPSTREAM) for path in new)
    assert pr.left_out == ["docker/alignment-gate/Dockerfile", "notes.md", "noxfile.py"]
    for path in (*pr.files, *pr.edited):
        assert git(port.root, "show", f"{pr.branch}:{path}") == (port.root / path).read_text().strip()
    assert git(port.root, "log", "-1", "--format=%s", pr.branch) == pr.title == "[new-model] Add Tiny: TinyWan"
    assert upstream.make(port).commit  # a second time the branch is made again
    assert not pr.pushed


def test_the_text_follows_fastvideos_template(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its headings in its order, ours where it has none, and a tick only where evidence says so."""
    green(monkeypatch, ssim="fail")
    text = Path(upstream.make(port, draft=True).body).read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    names = ("Purpose", "Changes", "Test Plan", "Test Results", "Environment", "Checklist")
    assert headings == [f"## {name}" for name in names]
    assert "<!--" not in text
    assert "Fixes #" not in text
    ticks = {line[6:]: line[3] for line in text.splitlines() if line.startswith("- [")}
    assert [key for key, tick in ticks.items() if tick == "x"] == [
        "I updated documentation",
        "I updated the support matrix",
    ]
    assert "- ssim: ssim is red" in text
    assert "nox -s parity" in text
    assert "not run here" in text


def test_a_red_gate_makes_no_pull_request(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocked, with what to do; no branch is there."""
    green(monkeypatch, keys="fail")
    with pytest.raises(BlockedError, match="gate is not green"):
        upstream.make(port)
    assert "pr-" not in git(port.root, "branch")


def test_another_edit_of_fastvideo_is_refused(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file, and a line in the registry that is no registration, are named; --with carries them on purpose."""
    green(monkeypatch)
    registry = port.root / "fastvideo/registry.py"
    registry.write_text(registry.read_text() + "\n# mine\n")
    (port.root / "fastvideo/models/loader.py").write_text("X = 2\n")
    with pytest.raises(BlockedError, match="uncommitted work"):
        upstream.make(port)
    git(port.root, "commit", "-q", "-a", "-m", "More")
    with pytest.raises(UsageError, match=r"fastvideo/models/loader\.py, fastvideo/registry\.py"):
        upstream.make(port)
    pr = upstream.make(port, also=("fastvideo/models/loader.py", "fastvideo/registry.py"))
    assert git(port.root, "show", f"{pr.branch}:fastvideo/models/loader.py") == "X = 2"
    (port.root / "fastvideo/models/loader.py").unlink()
    git(port.root, "commit", "-q", "-a", "-m", "Gone")
    with pytest.raises(UsageError, match=r"fastvideo/models/loader\.py"):
        upstream.make(port, also=("fastvideo/registry.py",))


@pytest.mark.parametrize("target", ["file", "folder", "missing"])
@pytest.mark.parametrize("path", ["docs/inference/tiny_wan.md", "fastvideo/models/loader.py"])
def test_a_link_is_refused_and_its_target_is_not_read(
    port: Port, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, target: str
) -> None:
    """A committed link to a file of this machine, to a folder or to nothing: one sentence, and no branch."""
    green(monkeypatch)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/netrc").write_text("machine here password hidden\n")
    link = port.root / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / {"file": "secrets/netrc", "folder": "secrets", "missing": "nowhere"}[target])
    git(port.root, "add", "-f", path)
    git(port.root, "commit", "-q", "-m", "Link")
    with pytest.raises(UsageError, match=rf"links or submodules: {path}"):
        upstream.make(port, also=(path,) if path.startswith("fastvideo") else ())
    assert "pr-" not in git(port.root, "branch")


def test_an_executable_stays_one(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode on the branch is HEAD's, whatever the working tree has."""
    green(monkeypatch)
    write(port.root, {"examples/inference/run_tiny.sh": "true\n"})
    git(port.root, "add", "-f", "examples/inference/run_tiny.sh")
    git(port.root, "update-index", "--chmod=+x", "examples/inference/run_tiny.sh")
    git(port.root, "commit", "-q", "-m", "Run")
    (port.root / "examples/inference/run_tiny.sh").chmod(0o755)
    pr = upstream.make(port)
    assert git(port.root, "ls-tree", pr.branch, "examples/inference/run_tiny.sh").startswith("100755 ")


def test_onto_another_commit_of_fastvideo(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registration is made anew in that commit's files, whose other changes stay; a taken path is refused."""
    green(monkeypatch)
    start = branch.base(port)
    here = git(port.root, "branch", "--show-current")
    git(port.root, "checkout", "-q", "-b", "newer", start)
    write(port.root, {"fastvideo/models/loader.py": "X = 9\n"})
    registry = port.root / "fastvideo/registry.py"
    registry.write_text(registry.read_text() + "\n# newer\n")
    git(port.root, "commit", "-q", "-a", "-m", "Newer")
    git(port.root, "checkout", "-q", here)
    pr = upstream.make(port, onto="newer")
    text = git(port.root, "show", f"{pr.branch}:fastvideo/registry.py")
    assert "# newer" in text
    assert "TinyWanPipelineConfig" in text
    assert git(port.root, "show", f"{pr.branch}:fastvideo/models/loader.py") == "X = 9"
    with pytest.raises(BlockedError, match="is no commit of FastVideo"):
        upstream.make(port, onto="no-such")
    git(port.root, "checkout", "-q", "newer")
    write(
        port.root, {"docs/inference/tiny_wan.md": "another\n", "fastvideo/configs/pipelines/tiny_wan.py": "# other\n"}
    )
    git(port.root, "add", "-A")
    git(port.root, "commit", "-q", "-m", "Taken")
    git(port.root, "checkout", "-q", here)
    with pytest.raises(UsageError, match=r"fastvideo/configs/pipelines/tiny_wan\.py"):
        upstream.make(port, onto="newer")


def test_pushed_only_where_a_remote_is_named(port: Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --push the branch, and only it, is on the remote."""
    green(monkeypatch)
    git(tmp_path, "init", "-q", "--bare", "theirs.git")
    git(port.root, "remote", "add", "theirs", str(tmp_path / "theirs.git"))
    upstream.make(port)
    assert git(tmp_path / "theirs.git", "branch") == ""
    pr = upstream.make(port, push="theirs")
    assert git(tmp_path / "theirs.git", "branch", "--format=%(refname:short)") == pr.branch
    assert pr.command.startswith("gh pr create --head")


def test_a_second_port_on_the_tree_stays_out(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files and its registration are not in the first one's branch; a base that holds another port is refused."""
    green(monkeypatch)
    monkeypatch.setenv("FVPORT_SLUG", "tiny_wan")
    other = make_port(port.root, "big_wan")
    from fvport.workspace import registration

    registration.apply(port.root, other)
    git(port.root, "add", "-A")
    git(port.root, "commit", "-q", "-m", "Second")
    pr = upstream.make(port)
    assert not [path for path in pr.files if "big_wan" in path]
    assert "BigWan" not in git(port.root, "show", f"{pr.branch}:fastvideo/registry.py")
    monkeypatch.setenv("FVPORT_SLUG", "big_wan")
    with pytest.raises(UsageError, match=r"holds another one \(tiny_wan\)"):
        upstream.make(other)


def test_without_a_workspace(tmp_path: Path) -> None:
    """A folder that is none says to make one."""
    with pytest.raises(BlockedError, match="fvport workspace"):
        upstream.make(make_port(tmp_path / "p"))


def test_what_fastvideo_says_of_the_branch(port: Port, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its pre-commit set where it has one and the tool is here; its tests before and after; scratch trees are gone."""
    green(monkeypatch)
    monkeypatch.setattr(
        proof.upstream_tests, "run", lambda root, suites=(): {"a": "failed" if _has(root) else "passed"}
    )
    pr = upstream.make(port, check=True)
    assert pr.proof["pre-commit"].startswith("not run: this FastVideo has no")
    assert pr.proof["tests"] == "fail: 1 no longer pass: a: passed before, failed now"
    assert len(git(port.root, "worktree", "list").splitlines()) == 1
    (tmp_path / "pre-commit").write_text('#!/bin/sh\nfor f; do [ "$f" != notes.md ] || exit 9; done\nexit "$CODE"\n')
    (tmp_path / "pre-commit").chmod(0o755)
    monkeypatch.setattr(proof.shutil, "which", lambda name: str(tmp_path / name))
    tree = tmp_path / "tree"
    write(tree, {proof.CONFIG: "repos: []\n"})
    made = branch.Made("b", "c", ["a.py"], ["b.py"])
    for code, said in (("0", "pass"), ("1", "fail: ")):
        monkeypatch.setenv("CODE", code)
        assert proof._pre_commit(tree, made).startswith(said)


def _has(root: Path) -> bool:
    return (root / "tests/local_tests/tiny_wan/port.toml").is_file()


def test_ready_root_is_the_clone(port: Port) -> None:
    """The tests above speak of the clone, not of the worktree that it came from."""
    assert sources.ready_root(port) == port.root.resolve()
