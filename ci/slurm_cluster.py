# SPDX-License-Identifier: Apache-2.0
"""Two Slurm nodes on one machine, for tests of what runs on a cluster: python -m ci.slurm_cluster start|stop DIR

Real slurmctld, slurmd and munged (Debian: slurmctld slurmd slurm-client munge), as root. Memory limits are enforced by
polling, because there are no control groups in a container; nothing is written outside DIR but munge's key and socket.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sinfo", "sbatch")
CONF = """\
ClusterName=fvport
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SlurmctldTimeout=30
SlurmdTimeout=15
InactiveLimit=0
ReturnToService=2
JobRequeue=1
MpiDefault=none
DefMemPerCPU=2000
NodeName=n1 NodeHostname={host} Port={port_1} CPUs={cpus} RealMemory={memory} State=UNKNOWN
NodeName=n2 NodeHostname={host} Port={port_2} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `env` is what its clients need."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def client(self, *words: str) -> str:
        """What a Slurm command prints."""
        env = {**os.environ, **self.env}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    def kill_node(self, name: str) -> None:
        """The node's daemon and everything that it runs die at once, as when a machine loses power.

        All are stopped first: a step daemon that outlives its task by a moment tells the controller that the job ended.
        """
        pid = int((self.folder / f"slurmd-{name}.pid").read_text())
        steps = _steps_of(name, self.folder)
        victims = [pid, *_daemons_of(steps), *steps]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGSTOP)
        for victim in victims:
            _kill(victim)

    def start_node(self, name: str) -> None:
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        _daemon(["slurmd", "-N", name, "-f", str(self.folder / "slurm.conf")], self.env)

    def restart_controller(self) -> None:
        _kill(int((self.folder / "slurmctld.pid").read_text()))
        time.sleep(2)
        _daemon(["slurmctld", "-f", str(self.folder / "slurm.conf")], self.env)

    def stop(self) -> None:
        for file in self.folder.glob("*.pid"):
            _kill(int(file.read_text() or 0))
        for name in NODES:
            for victim in _steps_of(name, self.folder):
                _kill(victim)


def lacking() -> list[str]:
    """Programs of a cluster that this machine does not have."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def start(folder: Path, cpus: int = 0, memory_mb: int = 10_000) -> Cluster:
    """Start both nodes and wait until they are idle. RuntimeError with the controller's words when they are not."""
    if missing := lacking():
        raise RuntimeError(f"not on this machine: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    ports = _free_ports(3)
    text = CONF.format(
        host=socket.gethostname().split(".")[0],
        folder=folder,
        port=ports[0],
        port_1=ports[1],
        port_2=ports[2],
        cpus=cpus or os.cpu_count() or 1,
        memory=memory_mb,
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    _munge()
    cluster = Cluster(folder)
    _daemon(["slurmctld", "-f", str(folder / "slurm.conf")], cluster.env)
    for name in NODES:
        cluster.start_node(name)
    for _ in range(60):
        try:
            if cluster.client("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"]:
                return cluster
        except subprocess.SubprocessError:
            pass
        time.sleep(1)
    cluster.stop()
    log = (folder / "slurmctld.log").read_text(errors="replace").splitlines()[-5:]
    raise RuntimeError("the cluster did not come up: " + " | ".join(log))


def _munge() -> None:
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    for path in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(path).mkdir(parents=True, exist_ok=True)
        shutil.chown(path, "munge", "munge")
        Path(path).chmod(0o755 if path == "/run/munge" else 0o700)
    key = Path("/etc/munge/munge.key")
    if not key.is_file():
        key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    key.chmod(0o400)
    subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)


def _daemon(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)


def _steps_of(name: str, folder: Path) -> list[int]:
    """Processes that a node runs, found by its name in their environment: step daemons and their children."""
    found = []
    wanted = f"SLURMD_NODENAME={name}".encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "environ").read_bytes().split(b"\0")
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        ours = f"SLURM_CONF={folder / 'slurm.conf'}".encode() in words
        if (wanted in words and ours) or (b"slurmstepd" in line and f"spool-{name}".encode() in line):
            found.append(int(process.name))
    return found


def _daemons_of(steps: list[int]) -> list[int]:
    """The step daemons that are parents of these processes; nothing in their own environment names the node."""
    found = set()
    for step in steps:
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(Path(f"/proc/{step}/stat").read_text().rpartition(")")[2].split()[1])
            if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.add(parent)
    return sorted(found)


def _kill(pid: int) -> None:
    if pid <= 1:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit(__doc__)
    here = Path(sys.argv[2]).resolve()
    if sys.argv[1] == "stop":
        Cluster(here).stop()
    else:
        print("export", *(f"{key}={value}" for key, value in start(here).env.items()))
