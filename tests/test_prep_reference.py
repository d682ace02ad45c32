# SPDX-License-Identifier: Apache-2.0
"""The official code: cloned at its pinned commit, and refused when it is anything else. Real git, local repos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prep_support import git, repository
from weights_support import PORT, make_port

from fvport import evidence as ev
from fvport import spec
from fvport.checks import locked_weights
from fvport.errors import BlockedError, UsageError
from fvport.weights import prep
from fvport.workspace import reference, tree

MODEL = {"model/__init__.py": "X = 1\n", "README.md": "a model\n"}


def with_repo(root: Path, repo: object, commit: str, more: str = "") -> spec.Port:
    """The demo port with official code in a repository."""
    text = f'library = "diffusers"\nrepo = "{repo}"\ncommit = "{commit}"{more}'
    return make_port(root, PORT.replace('library = "diffusers"', text))


@pytest.fixture
def source(tmp_path):
    """(repository beside the port, its first commit, its second commit)"""
    place = tmp_path / "upstream/model_repo"
    return place, repository(place, MODEL), repository(place, {"model/__init__.py": "X = 2\n"}, "two")


def test_a_clone_is_made_at_its_commit(tmp_path, source):
    """Not at the newest commit but at the pinned one; the lock has it, and git is told never to commit the clone."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    git(port.root, "init", "-q")
    result = prep.run(port)
    assert (port.reference / "model/__init__.py").read_text() == "X = 1\n"
    assert "cloned now" in result.code
    assert first in result.code
    assert ev.lock(port)["official"] == {"repo": "../upstream/model_repo", "commit": first}
    assert "/model_repo/" in (port.root / ".git/info/exclude").read_text().splitlines()
    assert not [path for path in tree.port_files(port) if path.startswith("model_repo")]
    assert port.import_root == port.reference


def test_a_clone_that_is_there_is_left_as_it_is(tmp_path, source):
    """The second run reports remote and HEAD and touches nothing, untracked notes included."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first, '\nimport_root = "model"')
    prep.run(port)
    (port.reference / "notes.txt").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in port.reference.rglob("*") if ".git" not in p.parts}
    said = prep.run(port).code
    assert "already there" in said
    assert f"HEAD {first}" in said
    assert "model_repo" in said
    assert "notes.txt" in said
    assert before == {p: p.stat().st_mtime_ns for p in port.reference.rglob("*") if ".git" not in p.parts}
    assert port.import_root == port.reference / "model"


def test_another_head_is_refused(tmp_path, source):
    """A clone at another commit: both are named with the command, and prep and every check stop."""
    _, first, second = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", second)
    prep.run(port)
    git(port.reference, "fetch", "-q", "origin", first)
    git(port.reference, "checkout", "-q", first)
    for job in (prep.run, prep.check_code, lambda port: locked_weights(port, ["weights:transformer"])):
        with pytest.raises(BlockedError, match=rf"is at {first}, and port.toml pins {second}.*checkout {second}"):
            job(port)
    assert git(port.reference, "rev-parse", "HEAD") == first


def test_a_new_pin_is_not_checked_out_over_the_old_one(tmp_path, source):
    """port.toml pins another commit than the clone has: said, with the commands; the clone stays."""
    _, first, second = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    prep.run(port)
    port.file.write_text(port.file.read_text().replace(first, second))
    with pytest.raises(BlockedError, match=rf"fetch origin {second} && git -C model_repo checkout {second}"):
        prep.run(spec.load(port.root))
    assert git(port.reference, "rev-parse", "HEAD") == first


def test_a_lock_of_another_commit_is_refused(tmp_path, source):
    """Clone and pin agree, but the lock was made with other code: checks say so until prep locks again."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    prep.run(port)
    lock = port.folder / "port.lock.json"
    lock.write_text(lock.read_text().replace(first, "0" * 40))
    with pytest.raises(BlockedError, match=r"port\.lock\.json was made with 0{40}.*fvport prep"):
        prep.check_code(port)


CHANGES = {
    "a tracked file": lambda clone: (clone / "model/__init__.py").write_text("X = 9\n"),
    "a new module": lambda clone: (clone / "model/extra.py").write_text("Y = 1\n"),
    "a deleted file": lambda clone: (clone / "README.md").unlink(),
    "a staged file": lambda clone: ((clone / "a.py").write_text("A = 1\n"), git(clone, "add", "a.py")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_clone_is_refused(tmp_path, source, name):
    """Code that is not the commit's is named, whatever was done to it."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    prep.run(port)
    CHANGES[name](port.reference)
    with pytest.raises(BlockedError, match=rf"not those of commit {first}: .*stash"):
        prep.run(port)


def test_what_python_leaves_behind_is_no_change(tmp_path, source):
    """Byte code and an editable install's folder do not count."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    prep.run(port)
    for name in ("model/__pycache__/x.cpython-311.pyc", "model.egg-info/PKG-INFO"):
        (port.reference / name).parent.mkdir(parents=True, exist_ok=True)
        (port.reference / name).write_bytes(b"x")
    assert "note" not in prep.run(port).code


def test_a_clone_of_something_else_is_refused(tmp_path, source):
    """Another remote, no remote, no repository, a file: each is named and left as it is."""
    _place, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    prep.run(port)
    git(port.reference, "remote", "set-url", "origin", "https://someone:secretpassword@example.org/other.git")
    with pytest.raises(BlockedError, match=r"is a clone of https://example\.org/other\.git at ") as caught:
        prep.run(port)
    assert "secretpassword" not in str(caught.value)
    git(port.reference, "remote", "remove", "origin")
    with pytest.raises(BlockedError, match="no remote origin"):
        prep.run(port)
    port.reference.rename(tmp_path / "away")
    port.reference.mkdir()
    (port.reference / "mine.py").write_text("1")
    with pytest.raises(BlockedError, match=r"is there and is no clone of \.\./upstream/model_repo; it is not over"):
        prep.run(port)
    assert (port.reference / "mine.py").read_text() == "1"


SAME = [
    ("https://github.com/Org/Model.git", "git@github.com:org/model", True),
    ("ssh://git@github.com:22/org/model/", "https://github.com/org/model", True),
    ("https://github.com/org/model", "https://github.com/org/model2", False),
    ("https://github.com/org/model", "https://gitlab.com/org/model", False),
    ("", "https://github.com/org/model", False),
]


@pytest.mark.parametrize(("one", "other", "same"), SAME)
def test_addresses_of_one_repository(tmp_path, one, other, same):
    """https, ssh and short forms of one repository are one; another name or host is another."""
    assert reference.same_address(one, other, tmp_path) is same


def test_a_pin_must_be_a_commit(tmp_path, source):
    """No pin, a branch, a tag: refused, and the line to write is given."""
    _, _, second = source
    for pin, words in (("", "official.commit is not set"), ("main", 'official.commit is "main", which is no commit')):
        port = with_repo(tmp_path / f"port{len(pin)}", "../upstream/model_repo", pin)
        with pytest.raises(UsageError, match=rf'{words}.*commit = "{second}"'):
            prep.run(port)
        assert not port.reference.exists()


def test_a_short_pin(tmp_path, source):
    """A short pin is taken where it names one commit, and the full one is said; the lock has all digits."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first[:9])
    assert f'write official.commit = "{first}"' in prep.run(port).code
    assert ev.lock(port)["official"]["commit"] == first


def test_an_ambiguous_pin(tmp_path, source, monkeypatch):
    """A start that two commits share is refused with both (git's list of them is made up: no two are at hand)."""
    place, first, second = source
    port, real = with_repo(tmp_path / "port", "../upstream/model_repo", first), reference.git.run

    def run(root, *args, **more):
        done = real(root, *args, **more)
        done.stdout = f"{first}\n{second}\n".encode() if "--disambiguate" in str(args) else done.stdout
        return done

    monkeypatch.setattr(reference.git, "run", run)
    with pytest.raises(UsageError, match=r"begins 2 commits of .*all 40 digits"):
        reference.resolve(place, first[:7], port)


def test_a_commit_that_the_remote_does_not_have(tmp_path, source):
    """The remote is asked; what it does not have is said, and no clone is left behind."""
    port = with_repo(tmp_path / "port", "../upstream/model_repo", "1" * 40)
    with pytest.raises(BlockedError, match=r"the remote does not have the commit 1{40}.*official\.commit"):
        prep.run(port)
    assert not port.reference.exists()
    assert not list((port.state / "tmp").iterdir())


def test_a_remote_that_is_not_there(tmp_path):
    """Offline, moved or private: exit 3, git's own words, and the commands to run elsewhere."""
    port = with_repo(tmp_path / "port", "../nowhere", "1" * 40)
    with pytest.raises(BlockedError, match=r"could not be cloned \(.*git clone \.\./nowhere nowhere &&") as caught:
        prep.run(port)
    assert caught.value.exit_code == 3
    assert not port.reference.exists()


def test_checks_ask_for_the_clone(tmp_path, source):
    """A tree where prep has not run yet: the check is blocked with the command."""
    _, first, _ = source
    port = with_repo(tmp_path / "port", "../upstream/model_repo", first)
    with pytest.raises(BlockedError, match=r"is not cloned yet.*fvport prep"):
        locked_weights(port, ["weights:transformer"])


def test_a_name_that_a_tree_has_already(tmp_path):
    """A repository called `tests` does not land among the tree's own tests; a root outside the code is refused."""
    assert spec.reference_name("https://example.org/a/tests.git") == "tests_official"
    assert spec.reference_name("git@example.org:b/Model.git") == "Model"
    assert spec.reference_name("") == ""
    with pytest.raises(UsageError, match=r"official\.import_root: must lie inside"):
        with_repo(tmp_path / "port", "x", "1" * 40, '\nimport_root = "../../etc"')


def test_a_password_in_the_address(tmp_path):
    """An address with a password is refused, and the password is not repeated."""
    port = with_repo(tmp_path / "port", "https://me:secretpassword@example.org/m.git", "1" * 40)
    with pytest.raises(UsageError, match="holds a password or token") as caught:
        prep.run(port)
    assert "secretpassword" not in str(caught.value)


def test_a_package_is_recorded_with_its_version(tmp_path):
    """Official code that is installed: the lock has its import name and version."""
    port = make_port(tmp_path)
    prep.run(port)
    official = ev.lock(port)["official"]
    assert official["import"] == "diffusers"
    assert official["version"]
    assert json.loads((port.folder / "port.lock.json").read_text())["source"]["folder"] == "official_weights/demo"
