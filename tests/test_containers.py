# SPDX-License-Identifier: Apache-2.0
"""The image's Dockerfile, and how `make gate-docker` builds and runs it. (`nox -s image` really does both.)"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ci import base, container, template_copies

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = {
    "ours": (ROOT / "docker" / "Dockerfile").read_text(),
    "port": (template_copies.TEMPLATE / "docker" / "alignment-gate" / "Dockerfile").read_text(),
}
both = pytest.mark.parametrize("name", DOCKERFILES)


def stage(text: str, name: str) -> str:
    """The lines of one stage."""
    return re.split(r"^FROM ", text[text.index(f" AS {name}\n") :], flags=re.MULTILINE)[0]


@both
def test_base_is_an_argument_pinned_by_digest(name: str) -> None:
    """BASE_IMAGE can be replaced, and its default names a digest."""
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}$", DOCKERFILES[name], re.MULTILINE)


@both
def test_environment_layer_knows_no_code(name: str) -> None:
    """The environment's stage is made from the lock alone, so no change of code builds it again."""
    copied = re.findall(r"^COPY (.+)$", stage(DOCKERFILES[name], "env"), re.MULTILINE)
    assert len(copied) == 1
    assert copied[0].endswith("gate-${DEVICE}.lock /lock/gate.lock")
    assert "--require-hashes" in stage(DOCKERFILES[name], "env")


def test_environment_is_the_same_for_a_port_and_for_us() -> None:
    """Base and environment stage of a port's image differ from ours in one path only."""
    for part in ("base", "env"):
        assert stage(DOCKERFILES["ours"], part).replace("docker/gate-", "gate-") == stage(DOCKERFILES["port"], part)


@both
def test_last_stage_is_not_root_and_proves_it(name: str) -> None:
    """The image's user is not root; a step after it fails where the user is root, can write, or finds a compiler."""
    last = stage(DOCKERFILES[name], "gate")
    user, probe = last.index("USER ${GATE_UID}"), last.index('if [ "$(id -u)" -eq 0 ]')
    assert user < probe
    assert "ARG GATE_UID=10001" in last
    assert all(word in last[probe:] for word in ("gcc", "nvcc", ".probe", "/root/.cache"))
    assert f"GATE_UID={container.GATE_UID}" in last


@both
def test_steps_stop_at_the_first_failure(name: str) -> None:
    """A step of several commands says `set -eu` itself: SHELL is ignored in images of OCI format."""
    steps = re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILES[name], re.MULTILINE)
    several = [step for step in steps if ";" in step]
    assert several
    assert [step for step in several if "set -eu" not in step] == []
    assert "SHELL [" not in DOCKERFILES[name]


@both
def test_labels_and_entry(name: str) -> None:
    """The image says what it is and of which revision, and runs the gate's entry script, which gets signals."""
    last = stage(DOCKERFILES[name], "gate")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}" in last
    assert 'ENTRYPOINT ["/opt/fvport/bin/gate.sh"]' in last
    assert "STOPSIGNAL SIGTERM" in last


def test_context_holds_only_what_is_copied() -> None:
    """.dockerignore leaves out everything but what a COPY of the Dockerfile names."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == {
        *("docker/*.lock", "pyproject.toml", "README.md", "LICENSE", "cookiecutter.json", "bake_ext.py"),
        *("hooks", "src", "ci/gate.sh", "{{cookiecutter.model_slug}}"),
    }


# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command that would run, in place of running it; images do not exist, everything succeeds."""
    seen: list[list[str]] = []

    def fake(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, 1 if "inspect" in command else 0, stdout="", stderr="")

    monkeypatch.setattr(container.subprocess, "run", fake)
    monkeypatch.setattr(container.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(container, "chown", lambda *arguments: seen.append(["chown", *map(str, arguments[1:])]))
    return seen


@pytest.fixture
def port(tmp_path: Path) -> Path:
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "noxfile.py").touch()
    return tmp_path / "port"


def test_missing_image_is_built_then_run(commands: list[list[str]], port: Path) -> None:
    """The image of these sources is looked for, built from docker/Dockerfile, and the sessions go to the script."""
    assert container.main(["--engine", "podman", "--device", "cpu", "--port", str(port), "keys", "gate"]) == 0
    build = next(command for command in commands if "build" in command)
    assert build[0] == "podman"
    assert "--build-arg=DEVICE=cpu" in build
    assert build[-1] == "."
    assert any(
        command[1:2] == [str(ROOT / "ci" / "in-image.sh")] and command[2:] == ["keys", "gate"] for command in commands
    )


def test_engine_that_is_not_there_is_named(port: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without the engine hears which one was looked for and how to name another."""
    assert container.main(["--engine", "no-such-engine", "--port", str(port), "keys"]) == 2
    assert "no-such-engine is not on this machine" in capsys.readouterr().err


def test_folder_that_is_no_port_is_refused(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is built for a folder that cannot be gated; it says `make demo`."""
    assert container.main(["--engine", "podman", "--port", str(tmp_path), "keys"]) == 2
    assert "make demo" in capsys.readouterr().err
    assert commands == []


@pytest.mark.parametrize("code", [0, 1, 3])
def test_verdict_of_the_sessions_is_the_drivers(
    code: int, port: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    """What the sessions ended with is passed on; a root caller's files are the caller's again."""
    done = subprocess.CompletedProcess([], code)
    monkeypatch.setattr(container.subprocess, "run", lambda command, **options: done)
    assert container.main(["--engine", "podman", "--image", "some:tag", "--port", str(port), "keys"]) == code
    lent = [command for command in commands if command[0] == "chown"]
    owner = port.stat()
    assert lent in ([], [["chown", "10001", "10001"], ["chown", str(owner.st_uid), str(owner.st_gid)]])
    assert bool(lent) == (os.getuid() == 0)


def test_other_text_other_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tag follows every file that the image is made from, the device and the base."""
    for name in [*(name.format(device="cpu") for name in container.MADE_FROM), "src/a.py", "hooks/h.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(container, "ROOT", tmp_path)
    before = container.digest("cpu", "")
    assert container.digest("cpu", "debootstrap") != before
    (tmp_path / "src" / "a.py").write_text("two")
    assert container.digest("cpu", "") != before


def test_linked_weights_are_mounted_once(port: Path, tmp_path: Path) -> None:
    """Folders outside the port that its weights link to are found, an inner one not beside its outer one."""
    outside = tmp_path / "weights"
    (outside / "vae").mkdir(parents=True)
    (outside / "model.safetensors").touch()
    (port / "official_weights").mkdir()
    (port / "official_weights" / "some_model").symlink_to(outside)
    (port / "converted_weights").mkdir()
    (port / "converted_weights" / "vae").symlink_to(outside / "vae")
    (port / "converted_weights" / "inside").symlink_to(port)
    assert list(container.linked_to(port)) == [outside]


def test_base_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the archive of an earlier run nothing but the import is done."""
    (tmp_path / "bookworm.tar").touch()
    seen = []

    def fake(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1 if "inspect" in command else 0)

    monkeypatch.setattr(base.subprocess, "run", fake)
    assert base.make(["podman"], tmp_path) == base.TAG
    assert [command[1] for command in seen] == ["image", "import"]


def in_image(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """ci/in-image.sh in a folder, with an engine that only says how it was called."""
    engine = folder.parent / "engine"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    engine.chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("FVPORT_", "RUNNER_"))}
    given = {**clean, "DEVICE": "cpu", **env, "DOCKER": str(engine), "IMAGE": "some:tag"}
    command = ["bash", str(ROOT / "ci" / "in-image.sh"), *words]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("codes", "ended", "tries"),
    [
        ("125 0", 0, 2),  # the engine's own trouble passes
        ("125 125 125 0", 125, 3),  # twice again at most
        ("1 0", 1, 1),  # a red check is not asked again
        ("3 0", 3, 1),
        ("125 1 0", 1, 2),
        ("137 0", 137, 1),  # killed while it ran: its code, its memory, its time
    ],
)
def test_only_the_engines_own_trouble_is_tried_again(port: Path, codes: str, ended: int, tries: int) -> None:
    """125 says that no container came to be: again, twice at most, and said. Whatever ran inside has its one try."""
    engine, left, summary = (port.parent / name for name in ("engine", "left", "summary"))
    engine.write_text('#!/bin/sh\nset -- $(cat "$LEFT")\necho run\ncode=$1\nshift\necho "$@" > "$LEFT"\nexit "$code"\n')
    engine.chmod(0o755)
    left.write_text(codes)
    given = {**os.environ, "DEVICE": "cpu", "DOCKER": str(engine), "IMAGE": "some:tag", "LEFT": str(left)}
    given |= {"FVPORT_RETRY_SECONDS": "0", "GITHUB_STEP_SUMMARY": str(summary)}
    command = ["bash", str(ROOT / "ci" / "in-image.sh"), "keys"]
    done = subprocess.run(command, cwd=port, env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("run")) == (ended, tries)
    assert done.stderr.count("before anything of the port ran: again") == tries - 1
    assert (summary.read_text().count("again") if summary.exists() else 0) == tries - 1


@pytest.mark.parametrize(
    ("source", "codes", "ended", "tries"), [("some@v1", "1 0", 0, 2), ("some@v1", "1 2 1 0", 1, 3), ("", "0", 2, 0)]
)
def test_a_build_that_fails_is_tried_again(port: Path, source: str, codes: str, ended: int, tries: int) -> None:
    """No image yet, and the build fails: again, twice at most; nothing runs in an image that was never built.

    What cannot be built is said, and not tried.
    """
    folder = port / "docker" / "alignment-gate"
    folder.mkdir(parents=True)
    for name in ("in-image.sh", "Dockerfile", "some.lock"):
        (folder / name).write_text((ROOT / "ci" / "in-image.sh").read_text() if name.endswith(".sh") else "x")
    (port / "noxfile.py").touch()
    engine, left = port.parent / "engine", port.parent / "left"
    engine.write_text(
        '#!/bin/sh\necho "$1"\n[ "$1" = image ] && exit 1\n[ "$1" = run ] && exit 0\n'
        'set -- $(cat "$LEFT")\ncode=$1\nshift\necho "$@" > "$LEFT"\nexit "$code"\n'
    )
    engine.chmod(0o755)
    left.write_text(codes)
    given = {**os.environ, "DEVICE": "cpu", "DOCKER": str(engine), "IMAGE": "", "LEFT": str(left)}
    given |= {"FVPORT_RETRY_SECONDS": "0", "FVPORT_SOURCE": source}
    command = ["bash", "docker/alignment-gate/in-image.sh", "keys"]
    done = subprocess.run(command, cwd=port, env=given, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert (done.returncode, said.count("build"), said.count("run")) == (ended, tries, int(ended == 0)), done.stderr
    assert ("set IMAGE, or FVPORT_SOURCE" in done.stderr) is (source == "")


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"NETWORK": "none"}, ["--read-only", "--network=none", "--tmpfs=/tmp", "--rm"]),
        ({"FVPORT_READ_ONLY": "/a b\n/c"}, ["--volume=/a b:/a b:ro", "--volume=/c:/c:ro"]),
        ({"FVPORT_SLUG": "some_model", "FVPORT_LOCKED": "yes"}, ["--env=FVPORT_SLUG", "--env=FVPORT_LOCKED"]),
    ],
    ids=["locked down", "links", "which port"],
)
def test_in_image_flags(env: dict[str, str], wanted: list[str], port: Path) -> None:
    """ci/in-image.sh runs an existing image read-only, on the port's own path, with what it was told."""
    said = in_image(port, "keys", "--", "vae", **env).stdout.splitlines()
    assert set(wanted) <= set(said)
    assert said[-4:] == ["some:tag", "keys", "--", "vae"]
    assert f"--volume={port}:{port}" in said


def test_evidence_leaves_no_folder_among_the_ports_files(port: Path, tmp_path: Path) -> None:
    """Evidence goes to .fvport, on a runner to its temporary folder, which is mounted; or where OUT says."""
    before = set(port.iterdir())
    said = in_image(port, "keys").stdout.splitlines()
    assert f"--env=FVPORT_OUT={port}/.fvport/gate-out" in said
    runner = tmp_path / "runner"
    said = in_image(port, "keys", RUNNER_TEMP=str(runner)).stdout.splitlines()
    assert {f"--env=FVPORT_OUT={runner}/gate-out", f"--volume={runner}/gate-out:{runner}/gate-out"} <= set(said)
    assert (runner / "gate-out").is_dir()
    said = in_image(port, "keys", RUNNER_TEMP=str(runner), OUT=".fvport/here").stdout.splitlines()
    assert f"--env=FVPORT_OUT={port}/.fvport/here" in said
    assert set(port.iterdir()) - before == {port / ".fvport"}


def test_weights_of_the_runner_are_mounted_and_linked(port: Path, tmp_path: Path) -> None:
    """FVPORT_WEIGHTS holds releases as SLUG/: mounted read-only, linked for this tree's ports, never over what is."""
    weights = tmp_path / "weights"
    for slug in ("one", "two", "stranger"):
        (weights / slug).mkdir(parents=True)
    for slug in ("one", "two"):
        (port / "tests" / "local_tests" / slug).mkdir(parents=True)
        (port / "tests" / "local_tests" / slug / "port.toml").touch()
    (port / "official_weights" / "two").mkdir(parents=True)
    said = in_image(port, "prep", FVPORT_WEIGHTS=str(weights)).stdout.splitlines()
    assert f"--volume={weights}:{weights}:ro" in said
    assert (port / "official_weights" / "one").resolve() == weights / "one"
    assert not (port / "official_weights" / "two").is_symlink()
    assert not (port / "official_weights" / "stranger").exists()
    done = in_image(port, "prep", FVPORT_WEIGHTS="/nowhere")
    assert done.returncode == 3
    assert "FVPORT_WEIGHTS=/nowhere is no folder" in done.stderr


def test_in_image_says_when_there_is_no_gpu(tmp_path: Path) -> None:
    """DEVICE=cuda on a machine without a GPU is blocked, not tried."""
    if container.has_gpu():
        return
    given = {**os.environ, "DEVICE": "cuda", "DOCKER": "true", "IMAGE": "some:tag"}
    command = ["bash", str(ROOT / "ci" / "in-image.sh"), "keys"]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "no GPU" in done.stderr
