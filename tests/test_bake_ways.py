# SPDX-License-Identifier: Apache-2.0
"""Every way to the same port: fvport new, cookiecutter from a path or a git address, a replay, a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from bake_helpers import REPO, answers, bake, files, release

TEMPLATE = ("cookiecutter.json", "bake_ext.py", "hooks", "{{cookiecutter.model_slug}}", "src")
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(release(tmp_path_factory.mktemp("official") / "wan"))


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, wan: str) -> dict[str, bytes]:
    """The files of `fvport new`."""
    return files(bake(tmp_path_factory.mktemp("direct"), official_weights=wan))


def run(cwd: Path, *words: str, python: str = sys.executable) -> str:
    """One command in `cwd` with a home of its own and this machine's fvport not on the path; its output."""
    env = {**os.environ, "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([python, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy(folder: Path) -> Path:
    """The template as somebody else's checkout."""
    folder.mkdir(parents=True)
    for name in TEMPLATE:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=CACHES)
        else:
            shutil.copy(source, folder / name)
    return folder


def git(folder: Path, *words: str) -> None:
    user = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *user, *words], check=True, capture_output=True)


def test_cookiecutter_dot(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """`cookiecutter .` in the template's folder equals fvport new, and prints the next steps."""
    here = copy(tmp_path / "template")
    out = run(here, "cookiecutter", ".", "--no-input", "-o", "../out", *answers(official_weights=wan))
    assert files(tmp_path / "out" / "tiny_wan") == direct
    assert "Next:" in out
    assert "nox -s prep workspace" in out


def test_cookiecutter_relative_path(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """A relative path to the template and a relative path to the weights."""
    copy(tmp_path / "a" / "template")
    (tmp_path / "work").mkdir()
    shutil.copytree(wan, tmp_path / "work" / "weights" / "wan")
    words = answers(official_weights="weights/wan")
    run(tmp_path / "work", "cookiecutter", "../a/template", "--no-input", *words)
    root = tmp_path / "work" / "tiny_wan"
    assert files(root) == direct
    assert (root / "official_weights/tiny_wan").resolve() == (tmp_path / "work/weights/wan").resolve()


def test_cookiecutter_git_address_and_replay(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """A git address, then a replay of it: the same bytes, with no second question."""
    source = copy(tmp_path / "fv-port-template")
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "template")
    run(tmp_path, "cookiecutter", f"file://{source}", "--no-input", "-o", "one", *answers(official_weights=wan))
    assert files(tmp_path / "one" / "tiny_wan") == direct
    run(tmp_path, "cookiecutter", str(source), "--no-input", "-o", "two", *answers(official_weights=wan))
    run(tmp_path, "cookiecutter", str(source), "--replay", "-o", "three")
    assert files(tmp_path / "two" / "tiny_wan") == files(tmp_path / "three" / "tiny_wan") == direct


def test_replay_is_checked(tmp_path: Path, wan: str) -> None:
    """A replay file with an evil slug is refused before a folder is made."""
    source = copy(tmp_path / "template")
    run(tmp_path, "cookiecutter", str(source), "--no-input", "-o", "one", *answers(official_weights=wan))
    replay = tmp_path / ".cookiecutter_replay" / "template.json"
    data = json.loads(replay.read_text())
    data["cookiecutter"]["model_slug"] = "../evil"
    replay.write_text(json.dumps(data))
    command = [sys.executable, "-m", "cookiecutter", str(source), "--replay", "-o", "two/deep"]
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "model_slug: '../evil' is no slug" in done.stdout
    assert not (tmp_path / "two").exists()


def test_interactive(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """Asked one by one, with choices by number, the same answers make the same port."""
    given = [
        "Tiny Wan",
        "",
        wan,
        "",
        "",
        "",
        "2",
        "transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "",
        "2",
    ]
    env = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "cookiecutter", "--default-config", str(REPO)]
    text = "\n".join(given) + "\n"
    done = subprocess.run(command, input=text, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What goes in and what comes out" in done.stdout
    assert files(tmp_path / "tiny_wan") == direct


def test_fvport_new_json(tmp_path: Path, wan: str) -> None:
    """--json prints one document with the files, the modes and what was inferred."""
    out = run(tmp_path, "fvport.cli", "new", "--no-input", "--json", *answers(official_weights=wan))
    data = json.loads(out)
    assert data["components"]["transformer"]["mode"] == "port"
    assert "tests/local_tests/tiny_wan/port.toml" in data["files"]
    assert Path(data["root"]).name == "tiny_wan"


def test_from_an_installed_package(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """As the wheel lays it out (fvport/_template), both fvport new and cookiecutter find template and package."""
    site = tmp_path / "site"
    shutil.copytree(REPO / "src" / "fvport", site / "fvport", ignore=CACHES)
    for name in TEMPLATE[:-1]:
        source, target = REPO / name, site / "fvport" / "_template" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target, ignore=CACHES) if source.is_dir() else shutil.copy(source, target)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from fvport.scaffold import new\n"
        f"assert str(new.template_root()).startswith({str(site)!r}), new.template_root()\n"
        f"new.bake({answers(official_weights=wan)!r}, output_dir='out', no_input=True)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert files(tmp_path / "out" / "tiny_wan") == direct


def test_hook_never_overwrites(tmp_path: Path, wan: str) -> None:
    """The hook's step stops at a file with another content, names it, and writes nothing."""
    from fvport.scaffold import finish

    (tmp_path / "a.py").write_text("mine\n")
    given = {"files": {"a.py": "theirs\n", "b.py": "new\n"}, "checkpoint": "", "weights": "w", "summary": {}}
    assert finish.run(given, tmp_path) == 1
    assert (tmp_path / "a.py").read_text() == "mine\n"
    assert not (tmp_path / "b.py").exists()


def test_hook_and_extension_are_small() -> None:
    """Under 60 lines each, without a deletion or a network call, in the standard library and jinja2."""
    for name in ("bake_ext.py", "hooks/post_gen_project.py"):
        text = (REPO / name).read_text()
        assert len(text.splitlines()) < 60
        assert not any(word in text for word in ("rmtree", "unlink", "urllib", "requests", "subprocess", "socket"))


@pytest.mark.slow
def test_cookiecutter_alone(tmp_path: Path, wan: str, direct: dict[str, bytes]) -> None:
    """An environment with cookiecutter and nothing else of ours bakes the same port."""
    source = copy(tmp_path / "template")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python), "cookiecutter"]
    subprocess.run(install, check=True, capture_output=True)
    run(
        tmp_path,
        "cookiecutter",
        str(source),
        "--no-input",
        "-o",
        "out",
        *answers(official_weights=wan),
        python=str(python),
    )
    assert files(tmp_path / "out" / "tiny_wan") == direct
