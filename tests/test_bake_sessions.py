# SPDX-License-Identifier: Apache-2.0
"""A port's noxfile and Makefile, and the facts about FastVideo and diffusers that a bake reads."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from bake_helpers import bake, release

from fvport.scaffold import facts

SESSIONS = [
    "env", "prep", "workspace", "prototype", "mapping", "keys", "config", "conversion", "parity", "strength", "trace",
    "smoke", "pipeline", "ssim",
    "example", "docs", "boundary", "gate", "report", "plan",
]  # fmt: skip
STUB = '#!/bin/sh\necho "$@" >> calls\necho slug=$FVPORT_SLUG >> calls\n'


@pytest.fixture
def port(tmp_path: Path) -> Path:
    """A port whose environment holds an fvport that only writes down how it was called."""
    root = bake(tmp_path / "out", official_weights=str(release(tmp_path / "wan")))
    stub = tmp_path / "env" / "bin" / "fvport"
    stub.parent.mkdir(parents=True)
    stub.write_text(STUB)
    stub.chmod(0o755)
    return root


def nox(port: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    here = {**os.environ, "FVPORT_ENV": str(port.parent.parent / "env"), **env}
    command = [sys.executable, "-m", "nox", *words]
    return subprocess.run(command, cwd=port, env=here, capture_output=True, text=True, check=False)


def test_table_of_contents(port: Path) -> None:
    """`nox -l` lists the steps in order, each with one sentence, and a bare `nox` asks for the verdict."""
    text = nox(port, "-l").stdout
    listed = re.findall(r"^[*-] (\w+) -> (.*)$", text, re.MULTILINE)
    assert [name for name, _ in listed] == SESSIONS
    assert all(re.fullmatch(r"[A-Z].{20,110}\.", sentence) for _, sentence in listed)
    assert re.findall(r"^\* (\w+)", text, re.MULTILINE) == ["gate"]


def test_sessions_are_short(port: Path) -> None:
    """No session of the noxfile is longer than ten lines, decorator and docstring included."""
    tree = ast.parse((port / "noxfile.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            assert node.end_lineno - node.decorator_list[0].lineno + 1 <= 10, node.name
            assert ast.get_docstring(node)


def test_arguments_go_on(port: Path) -> None:
    """Everything after -- reaches fvport, and the sessions name the check."""
    assert nox(port, "-s", "parity", "--", "transformer", "--device", "cpu").returncode == 0
    assert nox(port, "-s", "gate", "prep", FVPORT_SLUG="tiny_wan").returncode == 0
    assert (port / "calls").read_text().splitlines() == [
        "check parity --port . transformer --device cpu",
        "slug=",
        "gate --port .",
        "slug=tiny_wan",
        "prep --port .",
        "slug=tiny_wan",
    ]


def test_a_red_check_is_a_red_session(port: Path) -> None:
    """The command's failure is the session's."""
    stub = port.parent.parent / "env" / "bin" / "fvport"
    stub.write_text("#!/bin/sh\nexit 3\n")
    assert nox(port, "-s", "keys").returncode == 1


def test_without_a_source_it_says_what_to_do(port: Path) -> None:
    """An environment that is not there and cannot be built ends in one sentence."""
    done = nox(port, "-s", "keys", FVPORT_ENV="", FVPORT_SOURCE="")
    assert done.returncode == 1
    assert "FVPORT_SOURCE=" in done.stderr
    done = nox(port, "-s", "keys", FVPORT_ENV="/nowhere/env")
    assert done.returncode == 1
    assert "has no bin/fvport" in done.stderr


def second(port: Path) -> None:
    """Another port on the same tree, whose gate asks for the other device."""
    folder = port / "tests" / "local_tests" / "other_model"
    folder.mkdir()
    text = (folder.parent / "tiny_wan" / "port.toml").read_text()
    (folder / "port.toml").write_text(re.sub(r'(require_device = )"\w+"', r'\1"cuda"', text))


def test_two_ports_on_a_tree_are_chosen_by_name(port: Path) -> None:
    """With two ports a session runs for the one that FVPORT_SLUG names, and else says which there are."""
    second(port)
    done = nox(port, "-s", "keys", FVPORT_SLUG="")
    assert done.returncode == 1
    assert "several ports on this tree (other_model, tiny_wan)" in done.stderr
    assert "FVPORT_SLUG" in done.stderr
    done = nox(port, "-s", "keys", FVPORT_SLUG="tiny")
    assert done.returncode == 1
    assert "FVPORT_SLUG is tiny, which is no port of this tree (other_model, tiny_wan)" in done.stderr
    assert not (port / "calls").exists()
    assert nox(port, "-s", "keys", FVPORT_SLUG="tiny_wan").returncode == 0
    assert "slug=tiny_wan" in (port / "calls").read_text()


@pytest.mark.parametrize(("slug", "device"), [("tiny_wan", "cpu"), ("other_model", "cuda")])
def test_environment_is_of_the_chosen_ports_device(port: Path, slug: str, device: str, tmp_path: Path) -> None:
    """The lock is the one of the device that the chosen port's gate asks for, not of the first port found."""
    second(port)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/uv\n')
    uv.chmod(0o755)
    path = f"{uv.parent}{os.pathsep}{os.environ['PATH']}"
    done = nox(port, "-s", "env", FVPORT_ENV="", FVPORT_SOURCE="somewhere", FVPORT_SLUG=slug, PATH=path)
    assert done.returncode == 0, done.stderr
    assert f"gate-{device}.lock" in (tmp_path / "uv").read_text()


def test_make_has_the_same_names(port: Path) -> None:
    """Each session is a make target."""
    words = (port / "Makefile").read_text().split("SESSIONS :=")[1].splitlines()[0].split()
    assert words == SESSIONS


def test_facts_are_of_the_locked_versions() -> None:
    """The data files equal what the installed FastVideo and diffusers say."""
    site = Path(sysconfig.get_paths()["purelib"])
    known = facts.fastvideo()
    assert facts.read_fastvideo(site / "fastvideo", known["version"]) == known
    assert (site / f"fastvideo-{known['version']}.dist-info").is_dir()
    other = facts.pipelines()
    assert facts.read_diffusers(site / "diffusers", other["version"]) == other
    assert (site / f"diffusers-{other['version']}.dist-info").is_dir()
