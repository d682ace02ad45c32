# SPDX-License-Identifier: Apache-2.0
"""Every command of the README is run: the port's own in a bake made here, the others where they are tested."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, PortCopy

TESTED_ELSEWHERE = {
    "make demo": "the `demo_root` fixture and test_end_to_end.py",
    "make test": "is what runs this test",
    ". .venv/bin/activate": "the commands here run with that folder first on the path",
    "cd ..": "the commands here run in a folder that is no checkout of ours",
    "fvport gate --run": "the demo's checks and test_gate.py's run_missing",
    "nox -s parity -- transformer": "test_end_to_end_faults.py runs it as fvport check; test_bake_sessions.py as nox",
}
IN_A_GREEN_PORT = ("fvport plan --sync", "fvport status", "fvport handoff final")


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (REPO / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    binaries = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(binaries.parent),
        "USER": "tester",
    }
    env.pop("FVPORT_ENV", None)
    return subprocess.run(["bash", "-ec", script], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_every_target_of_make_exists() -> None:
    """`make -n` knows each make command of the README."""
    for command in (line for line in commands() if line.startswith("make ")):
        assert (
            subprocess.run(["make", "-n", *command.split()[1:2]], cwd=REPO, capture_output=True, check=False).returncode
            == 0
        )


@pytest.mark.slow
def test_a_port_of_your_own_in_the_readmes_words(tmp_path: Path) -> None:
    """The block of the README, line by line, on a checkpoint made here."""
    from examples.tiny_wan import make_official

    make_official.make(tmp_path / "path/to/checkpoint")
    lines = [
        c for c in commands() if c not in TESTED_ELSEWHERE and c not in IN_A_GREEN_PORT and not c.startswith("make ")
    ]
    assert lines[1].startswith("fvport inspect")
    done = shell("\n".join(lines), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "my_model/fastvideo/registry.py").is_file()
    assert (tmp_path / "my_model/converted_weights/my_model/model_index.json").is_file()


@pytest.mark.slow
def test_commands_for_a_port_that_is_under_way(port: PortCopy) -> None:
    """Status, plan, docs and handoff as the README writes them, in the port's folder."""
    written = commands()
    for command in IN_A_GREEN_PORT:
        assert command in written
        done = shell(command, port.root)
        assert done.returncode == 0, command + done.stdout + done.stderr
