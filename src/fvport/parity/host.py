# SPDX-License-Identifier: Apache-2.0
"""`python -m fvport.parity.host PORT_TOML OUT DEVICE LIMIT COMPONENT ...`: FastVideo once, then a fork each.

A crash, a hang or an out-of-memory kill is that component's failure and no other's. OUT gets `{component: answer}`, an
answer being `{"status", "message", "compared", "tests", "seconds", "peak_mb"}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from fvport import fastvideo_api, spec
from fvport.models import forked
from fvport.parity import plugin
from fvport.spec import Port


def main(argv: list[str]) -> int:
    forked.interrupt_on_sigterm()
    file, out, device, limit, *names = argv
    port = spec.parse(Path(file))
    print("parity: importing FastVideo ...", flush=True)
    runtime = fastvideo_api.boot(port.root, device, distributed=False, backend=port.fastvideo.attention_backend)
    answers: dict[str, Any] = {"": {"environment": fastvideo_api.environment(port.root)}}
    fastvideo_api.agree([answers[""]["environment"]], "parity")
    answers[""]["device"] = {"kind": runtime.device, "name": runtime.device_name}
    for name in names:
        print(f"parity: {name} ...", flush=True)
        answers[name] = run_component(port, name, float(limit), Path(out).parent)
        done = answers[name]
        words = "ok" if done["status"] == "done" and done["code"] == 0 else "not ok"
        print(f"parity: {name}: {words} ({done['seconds']:.1f} s)", flush=True)
    part = Path(out).with_suffix(".part")
    part.write_text(json.dumps(answers), encoding="utf-8")
    os.replace(part, out)
    return 0


def run_component(port: Port, name: str, limit: float, folder: Path) -> dict[str, Any]:
    """One component's test file in a forked pytest."""
    found = folder / f"{name}.found.json"
    found.unlink(missing_ok=True)

    def tests() -> int:
        import pytest

        os.environ[plugin.OUT_VARIABLE] = str(found)
        os.chdir(port.root)
        return int(pytest.main(pytest_words(port, name), plugins=plugins()))

    outcome = forked.run(tests, name=f"parity of {name}", log=folder / f"{name}.log", timeout=limit)
    data: dict[str, Any] = {"compared": [], "tests": []}
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(found.read_text(encoding="utf-8"))
    plain = {"status": outcome.status, "message": outcome.message, "code": outcome.value, "seconds": outcome.seconds}
    return {**data, **plain, "peak_mb": outcome.peak_mb, "log": outcome.log}


def pytest_words(port: Port, name: str) -> list[str]:
    """What pytest is told: the component's test file, and nothing that lies around it."""
    options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--noconftest", "-o", "addopts="]
    options += ["--import-mode=importlib", f"--rootdir={port.root}", "-c", os.devnull]
    return [*options, str(port.root / port.test_file(port.component(name)))]


def plugins() -> list[Any]:
    """The plugin, where the installed package does not register it by itself."""
    from importlib import metadata

    registered = any(entry.name == "fvport" for entry in metadata.entry_points(group="pytest11"))
    return [] if registered else [plugin]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
