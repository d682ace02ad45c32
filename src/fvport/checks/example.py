# SPDX-License-Identifier: Apache-2.0
"""example: the generated example run as a user runs it, and the file that it writes looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fvport import fastvideo_api
from fvport.checks import Options
from fvport.errors import BlockedError
from fvport.evidence import Evidence, Item
from fvport.media import frames as media
from fvport.models.native_pipeline import last_words
from fvport.parity import generation
from fvport.spec import Port

LIMIT = 3600.0


def script(port: Port) -> str:
    return f"examples/inference/basic/basic_{port.slug}.py"


def expected(port: Port) -> list[str]:
    return ["runs", "writes one file", "shape", "content"]


def inputs(port: Port) -> list[str]:
    return [*generation.inputs(port), f"file:{script(port)}"]


def run(port: Port, options: Options) -> Evidence:
    fastvideo_api.check_workspace(port.root)
    device = fastvideo_api.resolve_device(options.device)
    file = port.root / script(port)
    if not file.is_file():
        raise BlockedError("the example is not there", where=script(port), todo="Bake the port again: fvport new")
    if not (port.load_tree / "model_index.json").is_file():
        raise BlockedError("no load tree", where=str(port.load_tree), todo="Run: fvport check conversion")
    record = Evidence("example", port.slug, scale=options.scale)
    record.device = fastvideo_api.device_of(port.root, device)
    record.environment = fastvideo_api.environment(port.root)
    log = port.state / "logs" / "example.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="fvport-example-"
    ) as out:  # fresh: an older file cannot be taken for this one
        code = _start(port, file, Path(out), log, device)
        record.items = judge(port, code, sorted(Path(out).rglob("*")), log)
    return record


def _start(port: Port, file: Path, out: Path, log: Path, device: str) -> int:
    """Exit code of the example; -1 where it did not end. Its own process group, so that its workers end with it."""
    command = [sys.executable, str(file), "--output", str(out), "--model", str(port.load_tree)]
    env = fastvideo_api.child_environment(port.root, device)
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command,
            cwd=port.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            return child.wait(timeout=LIMIT)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return -1
            raise


def judge(port: Port, code: int, found: list[Path], log: Path) -> list[Item]:
    """Items from the exit code and the files that lie in the fresh folder."""
    if code:
        words = "did not end in time" if code == -1 else f"ended with code {code}: {last_words(log)}"
        return [Item("runs", "fail", f"{script(port)} {words}", todo=f"See {log}")]
    items = [Item("runs", "pass")]
    files = [path for path in found if path.is_file()]
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        return [*items, Item("writes one file", "fail", f"it wrote {len(files)} files ({names})")]
    items.append(Item("writes one file", "pass", "", {"name": files[0].name, "bytes": files[0].stat().st_size}))
    return items + look(port, files[0])


def look(port: Port, file: Path) -> list[Item]:
    """Shape and content of the file against the declared call."""
    if file.suffix == ".wav":
        return [
            Item("shape", "blocked", "sound is not measured yet"),
            Item("content", "blocked", "sound is not measured yet"),
        ]
    try:
        facts = media.facts(media.decode(file), media.rate(file))
    except media.MediaError as error:
        return [Item("shape", "fail", f"the written file {error.what}")]
    call = port.official.pipeline.call
    video = file.suffix != ".png"
    wrong = media.against(
        facts,
        frames=call.get("num_frames") if video else 1,
        width=call.get("width"),
        height=call.get("height"),
        fps=generation.fps(port) if video else None,
    )
    metrics = {"frames": facts.frames, "width": facts.width, "height": facts.height, "fps": facts.fps}
    items = [Item("shape", "fail" if wrong else "pass", "; ".join(wrong), metrics)]
    seen = {"deviation": round(facts.deviation, 3), "motion": round(facts.motion, 3)}
    items.append(Item("content", "fail" if facts.problems else "pass", "; ".join(facts.problems), seen))
    return items
