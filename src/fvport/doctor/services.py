# SPDX-License-Identifier: Apache-2.0
"""Rows on what lies around the machine: the hub and its token's *name*, container engines, Slurm, git."""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from fvport.doctor import Row
from fvport.doctor.machine import _run as run
from fvport.spec import Port

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # the names that huggingface_hub reads; a value is never read here
HUB_SECONDS = 5


def hub(port: Port | None) -> list[Row]:
    """Whether the hub answers, and under which name a token is there. Only a port that fetches from it needs it."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    required = bool(port and port.hub_id and not port.official_weights.exists())
    token = next((name for name in TOKENS if os.environ.get(name)), "")
    stored = (Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "token").is_file()
    said = f"token from {token}" if token else ("a stored token" if stored else "no token")
    todo = "" if token or stored else f"Gated weights need one: set {TOKENS[0]}, or run: hf auth login"
    rows = [Row("hub token", "ok" if token or stored else "absent", said, todo)]
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        state = "problem" if required else "absent"
        return [*rows, Row("hub", state, "switched off by HF_HUB_OFFLINE", "Unset it to fetch weights")]
    error = _reach(address)
    if not error:
        return [*rows, Row("hub", "ok", f"{address} answers")]
    todo = f"Fetch {port.hub_id} elsewhere and link it there: {port.official_weights}" if required and port else ""
    return [*rows, Row("hub", "problem" if required else "absent", f"{address} does not answer ({error})", todo)]


def _reach(address: str) -> str:
    try:
        request = urllib.request.Request(f"{address}/api/models?limit=1", method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers, whatever it says of this page
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return re.sub(r"\s+", " ", str(reason))[:100]


def containers(port: Port | None) -> list[Row]:
    """An engine counts when it answers `info`, not when its program lies there."""
    said = []
    for engine in ("docker", "podman"):
        if not shutil.which(engine):
            continue
        done = run([engine, "info"])
        if done is not None and done.returncode == 0:
            return [Row("containers", "ok", f"{engine} answers")]
        said.append(f"{engine} is there and does not answer")
    found = "; ".join(said) or "neither docker nor podman"
    return [Row("containers", "absent", found, "Only make gate-docker needs one")]


def slurm(port: Port | None) -> list[Row]:
    if not shutil.which("sinfo"):
        return [Row("slurm", "absent", "no Slurm client", "")]
    done = run(["sinfo", "--noheader", "--format=%P %D %G %t"])
    if done is None or done.returncode:
        return [Row("slurm", "absent", "sinfo is there and no controller answers", "Start it, or leave Slurm out")]
    lines = done.stdout.split("\n")
    return [Row("slurm", "ok", "; ".join(" ".join(line.split()) for line in lines if line.strip())[:200])]


def git(port: Port | None) -> list[Row]:
    done = run(["git", "--version"]) if shutil.which("git") else None
    if done is None or done.returncode:
        return [Row("git", "problem", "not on this machine", "Install git: a workspace is a git tree")]
    return [Row("git", "ok", done.stdout.strip())]


LOOKS = (git, hub, containers, slurm)
