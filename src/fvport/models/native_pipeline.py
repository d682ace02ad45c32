# SPDX-License-Identifier: Apache-2.0
"""`VideoGenerator` on the load tree, watched: several calls, one load.

`run(port, calls, out)` starts a child and waits. The child is this module run as a script; FastVideo's worker process
imports it again (spawn), which is how the watch gets there too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError

VARIABLE = "FVPORT_WATCH_PIPELINE"
TIME_LIMIT = 3600.0
OFF = ("dit_cpu_offload", "vae_cpu_offload", "text_encoder_cpu_offload", "image_encoder_cpu_offload", "pin_cpu_memory")


def run(
    port: Any, calls: list[dict[str, Any]], out: Path, log: Path, device: str = "auto", precision: str = "fp32"
) -> None:
    """Generate once for each call; a call writes `out`/<name>/steps.safetensors, steps.json and the media file.

    A call has name, arguments (of `generate_video`), and optionally force (official steps.safetensors). `precision`: of
    every component, '' for what the port's pipeline config ships. Raises
    BlockedError where load tree or workspace is missing, FvportError with FastVideo's last words where it fails.
    """
    from fvport import fastvideo_api
    from fvport.models import warm

    if not (port.load_tree / "model_index.json").is_file():
        raise BlockedError("no load tree", where=str(port.load_tree), todo="Run: fvport check conversion")
    out.mkdir(parents=True, exist_ok=True)
    for call in calls:
        folder = out / call["name"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "capture.json").write_text(json.dumps({"force": call.get("force", "")}) + "\n")
    job = out / "job.json"
    counts = {
        f"{kind}s": sum(bool(c.config) for c in port.components.values() if c.kind == kind)
        for kind in ("text_encoder", "image_encoder")
    }
    what = {"model": str(port.load_tree), "calls": calls, "precision": precision, **counts}
    what["workload"] = next((name for name in port.port.workload_types if name != "v2v"), "t2v")  # none is v2v
    job.write_text(json.dumps(what | {"out": str(out)}))
    env = fastvideo_api.child_environment(port.root, device, backend=port.fastvideo.attention_backend)
    env |= {VARIABLE: str(port.root.resolve())}
    log.parent.mkdir(parents=True, exist_ok=True)
    module = "fvport.models.native_pipeline"
    try:
        code = warm.run(port, module, [str(job)], env=env, log=log, timeout=TIME_LIMIT, cwd=port.root)
    except subprocess.TimeoutExpired:
        raise FvportError(f"VideoGenerator did not end in {TIME_LIMIT:.0f} s", where=str(log)) from None
    missing = [call["name"] for call in calls if not (out / call["name"] / "steps.json").is_file()]
    if missing and not code:
        raise FvportError(f"no pipeline was seen to generate {missing[0]}", where="pipeline", todo=f"See {log}")
    if code:
        raise FvportError(f"VideoGenerator failed: {last_words(log)}", where="pipeline", todo=f"See {log}")


# FastVideo's workers log a traceback line by line, behind this; the process that waits for them then loses its pipe
_PREFIX = re.compile(r"^(\x1b\[[\d;]*m|\(Worker pid=\d+\)|\s|(ERROR|WARNING) \S+ \S+ \[[^\]]*\])*")
_AFTERMATH = re.compile(r"Forward execution thread failed|^(EOFError|BrokenPipeError|ConnectionResetError)\b")


def last_words(log: Path) -> str:
    """The last line of a log that names an error, else its last line. A log that is not there said nothing."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = [line for line in (_PREFIX.sub("", line).strip() for line in text.splitlines()) if line]
    errors = [line for line in lines if "Error" in line and not line.startswith(("File ", "raise "))]
    causes = [line for line in errors if not _AFTERMATH.search(line)]
    return ((causes or errors or lines or ["it said nothing"])[-1])[:400]


def _install() -> None:
    from fvport import fastvideo_api
    from fvport.models import cpu_platform, native_capture

    cpu_platform.end_with_parent(signal.SIGKILL)  # FastVideo's worker as well: it imports this module again
    fastvideo_api.apply_settings()  # the worker computes, not the process that starts it
    native_capture.watch_all(fastvideo_api.pipeline_base(), os.environ[VARIABLE])


def _main(job_file: str) -> None:
    from fvport import fastvideo_api
    from fvport.models import forked

    forked.interrupt_on_sigterm()
    job = json.loads(Path(job_file).read_text())
    settings: dict[str, Any] = {"num_gpus": 1, "dit_layerwise_offload": False, **dict.fromkeys(OFF, False)}
    settings["workload_type"] = job.get("workload", "t2v")  # decides what file is written
    if job["precision"]:
        settings |= {"dit_precision": job["precision"], "vae_precision": job["precision"]}
        settings |= {"vae_decode_precision": job["precision"]}
        settings |= {"text_encoder_precisions": (job["precision"],) * job["text_encoders"]}
        settings |= {"image_encoder_precision": job["precision"]}
        if job["image_encoders"]:
            settings |= {"image_encoder_precisions": (job["precision"],) * job["image_encoders"]}
    generator = fastvideo_api.video_generator().from_pretrained(job["model"], **settings)
    try:
        for call in job["calls"]:
            folder = Path(job["out"]) / call["name"]
            result = generator.generate_video(output_path=str(folder), save_video=True, **call["arguments"])
            (folder / "result.json").write_text(json.dumps({"video_path": result["video_path"]}) + "\n")
    finally:
        generator.shutdown()


if os.environ.get(VARIABLE) and __name__ in ("__main__", "__mp_main__"):
    _install()
    if __name__ == "__main__":
        _main(sys.argv[1])
