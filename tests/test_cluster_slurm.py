# SPDX-License-Identifier: Apache-2.0
"""The gate on a real two-node Slurm cluster of this machine: same verdict, lost nodes, limits, a restarted controller.

Heavy: nox -s slurm. Needs root and Debian's slurmctld slurmd slurm-client munge.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gate_support as g
import pytest
from conftest import PortCopy

from ci import slurm_cluster
from fvport import evidence as ev
from fvport import spec
from fvport.cluster import job, plan, runner
from fvport.spec import Port

pytestmark = pytest.mark.heavy
FOLDER = Path("/tmp")  # tests' own folders are below it, and all nodes see it
REAL = job.run


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    made = slurm_cluster.start(tmp_path_factory.mktemp("slurm"))
    yield made
    made.stop()


@pytest.fixture
def port(tmp_path: Path, cluster: slurm_cluster.Cluster, monkeypatch: pytest.MonkeyPatch) -> Port:
    """A toy port with two cheap checks; jobs find this file's functions."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    made = g.make(tmp_path / "port", g.TOML + 'checks = ["boundary"]\n')
    (made.root / plan.TABLE).parent.mkdir(parents=True)
    (made.root / plan.TABLE).write_text("[default]\nminutes = 5\nmemory_gb = 1\ncpus = 1\n")
    return made


def in_the_background(port: Port) -> tuple[threading.Thread, dict[str, Any], list[str]]:
    answer: dict[str, Any] = {}
    said: list[str] = []

    def work() -> None:
        answer["verdict"] = runner.run(port, "slurm", say=said.append)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, answer, said


def until(what: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen in time")


def slow_once(root: str, *rest: Any) -> dict[str, Any]:
    """Hangs the first time, as a job on a node that is about to die; answers when it is queued again."""
    flag = Path(root, "first")
    if not flag.exists():
        flag.write_text(os.environ.get("SLURMD_NODENAME", "?"))
        time.sleep(300)
    Path(root, "again").write_text(os.environ.get("SLURMD_NODENAME", "?"))
    return REAL(root, *rest)


def hungry(*_: Any) -> dict[str, Any]:
    held = bytearray(3 << 30)
    for place in range(0, len(held), 4096):
        held[place] = 1
    time.sleep(120)
    return {}


def test_the_verdict_is_that_of_one_machine(port: Port) -> None:
    """The record that comes back from a node holds what a run here holds."""
    from fvport import checks

    runner.run(port, "slurm", say=lambda line: None)
    there = ev.read(port, "boundary")
    here = checks.run_check(port, "boundary")
    assert there is not None
    assert (there.items, there.inputs, there.verdict) == (here.items, here.inputs, here.verdict)


def test_a_lost_node_is_another_nodes_job(
    port: Port, cluster: slurm_cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node dies in the middle: Slurm queues the job again, and the answer comes from where it ran then."""
    monkeypatch.setattr(runner.job, "run", slow_once)
    thread, answer, said = in_the_background(port)
    try:
        node = until(lambda: (port.root / "first").exists() and (port.root / "first").read_text())
        cluster.kill_node(node)
        until(lambda: (port.root / "again").exists(), 400)  # Slurm itself waits two minutes before it tries again
    finally:
        cluster.start_node(node)
    thread.join(90)
    assert answer["verdict"].row("boundary").state == "current"
    assert any("boundary: " in line for line in said)


def test_a_job_over_its_memory_is_blocked_and_says_so(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed by the limit: the row is blocked with the limit's figure and what to raise."""
    monkeypatch.setattr(runner.job, "run", hungry)
    row = runner.run(port, "slurm", say=lambda line: None).row("boundary")
    assert row is not None
    assert row.verdict == "blocked"
    assert "1 GB" in " ".join(row.reasons)


def test_a_restarted_controller_loses_nothing(
    port: Port, cluster: slurm_cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody answers, the run waits; afterwards the answer is there."""
    monkeypatch.setattr(runner.job, "run", a_moment)
    thread, answer, _ = in_the_background(port)
    until(lambda: (port.root / "first").exists())
    cluster.restart_controller()
    thread.join(120)
    assert answer["verdict"].row("boundary").state == "current"


def a_moment(root: str, *rest: Any) -> dict[str, Any]:
    Path(root, "first").touch()
    time.sleep(15)
    return REAL(root, *rest)


def test_an_interrupt_leaves_no_job(
    port: Port, cluster: slurm_cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: the queue is empty afterwards."""

    def stop(self: Any) -> None:
        until(lambda: (port.root / "first").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.job, "run", slow_once)
    monkeypatch.setattr(runner._Watch, "collect", stop)
    with pytest.raises(KeyboardInterrupt):
        runner.run(port, "slurm", say=lambda line: None)
    until(lambda: cluster.client("squeue", "-h", "-o", "%i").strip() == "" or None, 60)


def test_the_demos_gate_on_two_nodes(
    cluster: slurm_cluster.Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's port, some records deleted: every check a job, the gate green, items and inputs as on one machine."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    demo: PortCopy = request.getfixturevalue("_breakable")  # `port` is the toy here
    loaded = spec.load(demo.root)
    before = {check: ev.read(loaded, check) for check in ("keys", "config", "parity")}
    for check in before:
        (ev.folder(loaded) / f"{check}.json").unlink()
    verdict = runner.run(loaded, "slurm")
    assert verdict.verdict == "pass", [row.reasons for row in verdict.rows if row.verdict != "pass"]
    for check, old in before.items():
        new = ev.read(loaded, check)
        assert old is not None
        assert new is not None
        assert {i.name: i.verdict for i in new.items} == {i.name: i.verdict for i in old.items}
        assert new.inputs == old.inputs
    demo.restore()


def test_a_planted_fault_is_red_on_two_nodes(
    cluster: slurm_cluster.Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong eps in the demo's native transformer: red, parity names the module, nothing is queued again."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    demo: PortCopy = request.getfixturevalue("_breakable")
    native = "fastvideo/models/dits/tiny_wan.py"
    old = "        self.norm_k = nn.RMSNorm(dim, eps=config.eps)\n        self.with_image"
    demo.edit(native, old, old.replace("config.eps", "1e-3"))
    verdict = runner.run(spec.load(demo.root), "slurm")
    demo.restore()
    row = verdict.row("parity")
    assert verdict.verdict == "fail"
    assert row is not None
    assert "attn2.norm_k" in " ".join(row.reasons)
    jobs = cluster.client("scontrol", "show", "job")
    assert jobs.count("Restarts=0 ") == jobs.count("Restarts=") > 0
