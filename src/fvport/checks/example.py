# SPDX-License-Identifier: Apache-2.0
"""example: the generated example run as a user runs it, and the file that it writes looked at."""

from __future__ import annotations

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fvport import fastvideo_api
from fvport.checks import Options
from fvport.errors import BlockedError
from fvport.evidence import Evidence, Item
from fvport.media import frames as media
from fvport.media import sound
from fvport.models.native_pipeline import last_words
from fvport.parity import clips, generation, pictures
from fvport.spec import Port

LIMIT = 3600.0


def script(port: Port) -> str:
    return f"examples/inference/basic/basic_{port.key}.py"


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
    with tempfile.TemporaryDirectory(prefix="fvport-example-") as scratch:
        out, seen = Path(scratch, "out"), Path(scratch, "seen")  # fresh: no older file can be taken for this one
        for folder in (out, seen):
            folder.mkdir()
        code = _start(port, file, out, log, device, seen)
        record.items = judge(port, code, sorted(out.rglob("*")), log)
        record.items[0].metrics["command"] = by_hand(port, command_line(port, file, Path("OUT")))
        if device == "cpu":
            parts = "; ".join(record.environment.get("cpu_adaptation", []))
            record.notes.append(f"it ran without a GPU, with what FastVideo lacks there put in: {parts}")
        if not code:
            record.environment |= fastvideo_api.agree(fastvideo_api.imported(seen, port.root), "the example")
    return record


def command_line(port: Port, file: Path, out: Path) -> list[str]:
    """The example with port.toml's call, which is cheaper than the example's own defaults (the official ones).

    What the example has no option for stays away: a size or length that it cannot be told shows in its file.
    """
    offered = set(re.findall(r"""["'](--[a-z][a-z0-9-]*)["']""", file.read_text(encoding="utf-8", errors="replace")))
    official = port.official.pipeline
    told: dict[str, Any] = {"--" + key.replace("_", "-"): value for key, value in official.call.items()}
    told |= {"--negative-prompt": official.negative_prompt, "--fps": generation.fps(port)}
    if image := pictures.of_call(port, official.call):
        told["--image"] = str(image)
    if video := clips.of_call(port, official.call, generation.fps(port)):
        told["--video"] = str(video)
    if official.prompts:
        told["--prompt"] = official.prompts[0]
    if official.seeds:
        told["--seed"] = official.seeds[0]
    words = [sys.executable, str(file), "--output", str(out), "--model", str(port.load_tree)]
    plain = {key: value for key, value in told.items() if key in offered and type(value) in (str, int, float)}
    return words + [f"{key}={value}" for key, value in plain.items()]  # one word: a value may begin with a dash


def by_hand(port: Port, words: list[str]) -> str:
    """The line to type at the port's root. `PYTHONPATH=.`: the port's tree, where a wheel of FastVideo is installed."""
    backend = f"{fastvideo_api.BACKEND_VARIABLE}={port.fastvideo.attention_backend} "
    paths = [str(port.root) + os.sep, str(Path(sys.executable).parent) + os.sep]
    shown = [functools.reduce(lambda word, path: word.replace(path, ""), paths, word) for word in words]
    return f"PYTHONPATH=. {backend}" + shlex.join(shown)


def _start(port: Port, file: Path, out: Path, log: Path, device: str, seen: Path) -> int:
    """Exit code of the example; -1 where it did not end. Its own process group, so that its workers end with it."""
    command = command_line(port, file, out)
    env = fastvideo_api.child_environment(port.root, device, backend=port.fastvideo.attention_backend)
    env[fastvideo_api.SEEN_VARIABLE] = str(seen)
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


def hear(port: Port, file: Path) -> list[Item]:
    """Rate, channels and length of a sound against the declared call and the official VAE's config."""
    try:
        facts = sound.facts(sound.of_file(file))
    except media.MediaError as error:
        return [Item("shape", "fail", f"the written file {error.what}")]
    wanted = generation.sound_of_call(port)
    metrics = {"rate": facts.rate, "channels": facts.channels, "samples": facts.samples}
    if None in wanted.values():
        lacks = ", ".join(name for name, value in wanted.items() if value is None)
        todo = "Give start and end of the sound in port.toml [official.pipeline] call"
        shape = Item("shape", "blocked", f"nothing says its {lacks}: not compared", metrics, todo=todo)
    else:
        wrong = sound.against(facts, rate=wanted["rate"], channels=wanted["channels"], samples=wanted["samples"])
        shape = Item("shape", "fail" if wrong else "pass", "; ".join(wrong), metrics)
    seen = {"peak": round(facts.peak, 5), "loudness": facts.loudness, "clipped": round(facts.clipped, 5)}
    return [shape, Item("content", "fail" if facts.problems else "pass", "; ".join(facts.problems), seen)]


def look(port: Port, file: Path) -> list[Item]:
    """Shape and content of the file against the declared call."""
    if file.suffix == ".wav":
        return hear(port, file)
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
