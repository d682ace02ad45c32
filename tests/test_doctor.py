# SPDX-License-Identifier: Apache-2.0
"""`fvport doctor`: each row says ok, problem or absent from what is really there, and nothing can hide or hang it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_spec import GOOD, put

from fvport import doctor, spec
from fvport.doctor import machine, services


def tool(folder: Path, name: str, script: str) -> None:
    """A program of that name, first on the path."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


@pytest.fixture
def port(tmp_path: Path) -> spec.Port:
    """A port whose gate wants CUDA (the default), on no FastVideo tree."""
    return spec.parse(put(tmp_path, GOOD))


def test_a_missing_driver_is_a_problem_only_where_the_gate_wants_cuda(
    port: spec.Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nvidia-smi: absent in general, a problem for a port that requires CUDA."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert port.gate.require_device == "cuda"
    assert [row.state for row in machine.gpu(None)] == ["absent"]
    assert [row.state for row in machine.gpu(port)] == ["problem"]


def test_a_driver_that_fails_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi that cannot talk to the driver is not a GPU."""
    tool(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))
    (row,) = machine.gpu(None)
    assert row.state == "absent"
    assert "NVIDIA-SMI has failed" in row.found


def test_each_gpu_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, two rows, with memory and driver."""
    tool(tmp_path, "nvidia-smi", "echo 'H200, 143771 MiB, 580.1'; echo 'H200, 143771 MiB, 580.1'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [(row.state, row.found) for row in machine.gpu(None)] == [("ok", "H200, 143771 MiB, 580.1")] * 2


def test_another_fastvideo_than_port_toml_wants_is_a_problem(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is compared; the words name both."""
    monkeypatch.setattr(machine.metadata, "version", lambda name: "0.9.9")
    rows = machine.fastvideo(port)
    assert rows[0].state == "problem"
    assert "0.9.9" in rows[0].found
    assert port.fastvideo.version in rows[0].found
    assert rows[1].name == "workspace"
    assert rows[1].state == "problem"
    assert "fvport workspace" in rows[1].todo


def test_the_disk_is_measured_against_what_the_locked_weights_need(
    port: spec.Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock of a petabyte does not fit; the row says how much is to be freed."""
    usage = machine.shutil.disk_usage("/")._replace(free=10 * machine.GIB)  # whatever this machine has
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda root: usage)
    lock = {"components": {"transformer": {"files": [{"name": "a", "size": 1 << 50}]}}}
    (port.folder / "port.lock.json").write_text(json.dumps(lock), encoding="utf-8")
    (row,) = machine.disk(port)
    assert row.state == "problem"
    assert row.todo.startswith("Free ")
    lock["components"]["transformer"]["files"][0]["size"] = 1
    (port.folder / "port.lock.json").write_text(json.dumps(lock), encoding="utf-8")
    assert machine.disk(port)[0].state == "ok"


def test_attention_is_called_and_an_absent_backend_says_why() -> None:
    """SDPA works in this environment; a backend whose package is missing says which."""
    rows = {row.name: row for row in machine.attention(None)}
    assert rows["attention TORCH_SDPA"].state == "ok"
    assert "No module named" in rows["attention SAGE_ATTN"].found
    assert rows["attention SAGE_ATTN"].state == "absent"


def test_a_backend_that_answers_wrongly_does_not_work(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The probe compares with SDPA: a kernel that returns zeros is found."""
    from fvport.doctor import attention

    monkeypatch.setattr(attention, "CALLS", {"FLASH_ATTN": lambda q, k, v: q * 0 + 9})
    attention.main()
    assert "answers wrongly" in json.loads(capsys.readouterr().out)["backends"]["FLASH_ATTN"]


def test_a_token_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The row holds the variable's name; the value is nowhere in the output."""
    planted = "hf_" + "Planted1Value2That3Nobody4Shows"
    env = {"HF_TOKEN": planted, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": str(tmp_path)}
    monkeypatch.setattr(machine, "PROBE_SECONDS", 60)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    rows = services.hub(None)
    assert rows[0].state == "ok"
    assert "HF_TOKEN" in rows[0].found
    assert planted not in json.dumps([vars(row) for row in rows])
    assert rows[1].state == "absent"
    assert "does not answer" in rows[1].found


def test_an_engine_that_does_not_answer_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker client without its daemon is said so; podman beside it counts."""
    tool(tmp_path, "docker", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "docker is there and does not answer" in services.containers(None)[0].found
    tool(tmp_path, "podman", "exit 0")
    assert services.containers(None)[0] == doctor.Row("containers", "ok", "podman answers")


def test_a_row_that_breaks_is_a_problem_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look that raises is told; the rest of the table stands."""

    def broken(port: Any) -> list[doctor.Row]:
        raise RuntimeError("odd machine")

    monkeypatch.setattr(machine, "LOOKS", (broken, machine.python))
    monkeypatch.setattr(services, "LOOKS", ())
    found = doctor.examine()
    assert found.verdict == "blocked"
    assert "odd machine" in found.rows[0].found
    assert len(found.rows) == 2
    assert "Problems: broken." in found.text()


def test_the_command_has_json_and_an_exit_code(tmp_path: Path) -> None:
    """One JSON document; exit 3 exactly where a row is a problem."""
    done = subprocess.run(
        [sys.executable, "-m", "fvport.cli", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["verdict"] == "pass" else 3)
    assert {"machine", "python", "fastvideo", "disk", "git"} <= {row["name"] for row in found["rows"]}
