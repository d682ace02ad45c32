# SPDX-License-Identifier: Apache-2.0
"""docker/docker-bake.hcl says what ci/container.py builds; its overlay adds names and cache and nothing else."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from ci import bake_file, container

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
ASSERTED = {"PYTHON", "FASTVIDEO", "TORCH_BACKEND"}  # checked in the env stage, used nowhere else
DEVICES = pytest.mark.parametrize("device", ["cuda", "cpu"])


def default(name: str) -> str:
    """What the Dockerfile takes where nobody says anything."""
    found = re.search(rf'^ARG {name}="?([^"\n]*)"?$', DOCKERFILE, re.MULTILINE)
    assert found, name
    return found[1]


def drivers(device: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], list[str]]:
    """Build arguments and the rest of the command that ci/container.py builds an image of this tree with."""
    seen: list[list[str]] = []

    def fake(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1 if "inspect" in command else 0, stdout="", stderr="")

    for name in container.HANDED_ON:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(container.subprocess, "run", fake)
    monkeypatch.setattr(container, "revision", lambda: "unknown")
    container.build(argparse.Namespace(engine="docker", device=device, base=""))
    words = seen[-1]
    given = [word.removeprefix("--build-arg=") for word in words if word.startswith("--build-arg=")]
    return dict(item.split("=", 1) for item in given), [w for w in words if not w.startswith("--build-arg=")]


@DEVICES
def test_bake_builds_what_the_driver_builds(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same Dockerfile, context, stage and arguments; what only one of them says is the Dockerfile's default."""
    target = bake_file.targets([bake_file.FILE])[f"gate-{device}"]
    given, rest = drivers(device, monkeypatch)
    assert (target["dockerfile"], target["context"]) == (rest[rest.index("-f") + 1], rest[-1])
    assert re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == target["target"]
    said = {key: value for key, value in target["args"].items() if key not in ASSERTED}
    assert said == {**{key: default(key) for key in said if key not in given}, **given}
    name = rest[rest.index("-t") + 1].rpartition(":")[0]
    assert target["tags"] == [f"{name}:latest"]


@DEVICES
def test_the_overlay_adds_names_and_cache_only(device: str) -> None:
    """With the CI file laid over it the image is the same image."""
    files = [bake_file.FILE, bake_file.OVERLAY]
    plain = bake_file.targets(files[:1])[f"gate-{device}"]
    laid = bake_file.targets(files, {"REGISTRY": "some.where/us", "TAG": "v1"})[f"gate-{device}"]
    assert {key: laid[key] for key in plain if key != "tags"} == {key: plain[key] for key in plain if key != "tags"}
    assert laid["tags"] == [f"some.where/us/fvport-gate-{device}:v1"]
    assert set(laid) - set(plain) == {"cache-from", "cache-to", "attest"}
    assert all("some.where/us" in line for line in laid["cache-from"] + laid["cache-to"])


def test_another_cuda_is_never_the_old_digest() -> None:
    """A digest wins over a tag: with CUDA changed the old one is gone, and CUDA_DIGEST pins the new."""
    base = bake_file.targets([bake_file.FILE], {"CUDA": "13.1.0"})["gate-cuda"]["args"]["BASE_IMAGE"]
    assert base.endswith("cuda:13.1.0-base-ubuntu24.04")
    given = {"CUDA": "13.1.0", "CUDA_DIGEST": "@sha256:1"}
    assert bake_file.targets([bake_file.FILE], given)["gate-cuda"]["args"]["BASE_IMAGE"].endswith("@sha256:1")


def asserted_step() -> str:
    """The lines of the env stage that hold an image to what it was asked to be, as a script."""
    start = DOCKERFILE.index("has() {")
    text = DOCKERFILE[start : DOCKERFILE.index("sed -n '/^uv==", start)]
    return "set -eu\n" + re.sub(r"\\\n\s*", " ", text).replace("/lock/gate.lock", "$LOCK")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"FASTVIDEO": "0.3.0"}, "FASTVIDEO is asked to be 0.3.0 and is 0.2.1"),
        ({"TORCH_BACKEND": "cu126"}, "TORCH_BACKEND is asked to be cu126 and is cu130"),
        ({"PYTHON": "3.9"}, "PYTHON is asked to be 3.9 and is"),
    ],
)
@DEVICES
def test_what_the_lock_does_not_make_stops_the_build(device: str, more: dict[str, str], said: str) -> None:
    """The step itself, run on the real lock: bake's own values pass, each other value is named."""
    args = bake_file.targets([bake_file.FILE])[f"gate-{device}"]["args"]
    env = {"FASTVIDEO": args["FASTVIDEO"], "TORCH_BACKEND": args["TORCH_BACKEND"], "PYTHON": "", **more}
    env |= {"LOCK": str(ROOT / "docker" / f"gate-{device}.lock"), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run(["sh", "-c", asserted_step()], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if said else 0), done.stderr
    assert said in done.stderr
    assert not ASSERTED & set(
        re.findall(r"\$\{?(\w+)", DOCKERFILE.replace(DOCKERFILE[DOCKERFILE.index("has()") :], ""))
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('target "a" { tags = ["x" }', "line 1: not understood: '}'"),
        ('target "a" { }\ntarget "a" { }', 'line 2: target "a" is there twice'),
        ('target "a" { context = upper("x") }', "not understood"),
        ('target "a" { context = "${upper(X)}" }', "only ${NAME} is understood"),
        ('target "a" { context = "." context = "b" }', "context is there twice"),
        ('resource "a" { }', "not understood: 'resource'"),
        ("target 'a' { }", "line 1: not understood"),
        ('variable "A" {', "not understood: 'the end'"),
    ],
)
def test_what_is_not_understood_is_an_error(text: str, said: str) -> None:
    """Never a guess: the sentence names the line."""
    with pytest.raises(bake_file.Wrong, match=re.escape(said)):
        bake_file.parse(text)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    """A parent or a variable that nobody declares is named."""
    file = tmp_path / "a.hcl"
    for text, said in (
        ('target "a" { inherits = ["b"] }', "no target b"),
        ('target "a" { context = X }', "no variable X"),
    ):
        file.write_text(text)
        with pytest.raises(bake_file.Wrong, match=said):
            bake_file.targets([file])
