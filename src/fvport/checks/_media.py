# SPDX-License-Identifier: Apache-2.0
"""What one side of a call made (frames, sound), and items from their measures."""

from __future__ import annotations

import json
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport.errors import BlockedError
from fvport.evidence import Item
from fvport.media import frames as media
from fvport.media import measures, sound, spectra
from fvport.media.frames import Stored
from fvport.media.pairs import CODEC_SLACK, Watched
from fvport.media.probe import MediaError
from fvport.media.sound import Sound

if TYPE_CHECKING:
    from fvport.media.references import Entry
    from fvport.spec import Port

RATES = ("audio_sample_rate", "sample_rate")
LOUDER = 1.0  # LU by which a lossy codec may change the loudness
TODO = "Look at the first red stage: fvport check pipeline"


@dataclass(frozen=True)
class Made:
    """Frames that can be gone through again and again, and sound; None for what was not made."""

    frames: Any = None
    sound: Sound | None = None

    @classmethod
    def of(cls, folder: Path) -> Made:
        """A record of `generation`: `frames` (batch, time, height, width, 3), `audio` (batch, channels, samples)."""
        from safetensors import safe_open

        file = folder / "steps.safetensors"
        if not file.is_file():
            todo = "Run: fvport check pipeline"
            raise BlockedError("this call has no record", where=folder.name, todo=todo)
        with safe_open(file, "pt") as held:
            names = set(held.keys())
            audio = held.get_tensor("audio") if "audio" in names else None
        frames = Stored(file) if "frames" in names else None
        if frames is None and audio is None:
            todo = "Run: fvport check pipeline"
            raise BlockedError("the record of this call holds neither frames nor sound", where=folder.name, todo=todo)
        return cls(frames, None if audio is None else _sound(audio, folder))

    @classmethod
    def of_entry(cls, entry: Entry) -> Made:
        names = entry.names()
        frames = entry.frames() if "frames" in names else None
        if "audio" not in names:
            return cls(frames)
        return cls(frames, sound.of_array(entry.tensors()["audio"], int(entry.told.extra.get("rate") or 0)))

    def tensors(self) -> dict[str, Any]:
        """What a reference keeps; all of it in memory."""
        import numpy as np

        found = {} if self.frames is None else {"frames": np.stack(list(self.frames))}
        return {**found, **({"audio": self.sound.source} if self.sound else {})}

    def extra(self) -> dict[str, Any]:
        return {"rate": self.sound.rate} if self.sound else {}


def _sound(audio: Any, folder: Path) -> Sound:
    info = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    rate = next((info[name] for name in RATES if info.get(name)), 0)
    if not rate:
        raise BlockedError("the record of this call has sound without a sample rate", where=folder.name)
    first = audio[0] if audio.ndim == 3 else audio
    return sound.of_array(first.float(), int(rate))


def sound_measure(port: Port, alone: bool) -> tuple[str, float]:
    """(measure, limit) of sound alone or of a video's sound; ('', 0) where port.toml declares none."""
    quality = port.quality
    if alone:
        return (quality.metric, quality.threshold) if quality.metric in spectra.MEASURES else ("", 0.0)
    return (quality.audio_metric, quality.audio_threshold) if quality.audio_metric else ("", 0.0)


def judge_frames(name: str, reference: Any, own: Any, metric: str, limit: float) -> Item:
    """One pass over both: the measure, what is wrong with the native frames, and two figures beside."""
    tolerance = {"mode": "threshold", "worst": limit}
    watched = Watched(own)
    try:
        found = measures.measure(reference, watched, dict.fromkeys([metric, "psnr", "temporal"]))
    except MediaError as error:
        rest = media.facts(own).problems
        return Item(name, "fail", "; ".join([error.what, *rest]), {}, tolerance)
    series, reasons = found[metric], list(watched.facts.problems)
    metrics: dict[str, Any] = {
        "worst": series.worst,
        "worst_frame": series.worst_frame,
        "mean": series.mean,
        "frames": len(series.values),
        "metric": metric,
        "psnr_worst": round(found["psnr"].worst, 3),
        "temporal_worst": round(found["temporal"].worst, 6),
        "definition": series.definition,
        "per_frame": [round(value, 6) for value in series.values],
    }
    if not series.keeps(limit):
        shown = "SSIM" if metric == "ssim" else metric
        reasons.insert(0, f"frame {series.worst_frame} has {shown} {series.worst:.4f}, {limit} is asked")
    return Item(
        name, "fail" if reasons else "pass", "; ".join(reasons), metrics, tolerance, todo=TODO if reasons else ""
    )


def judge_sound(name: str, reference: Sound, own: Sound, metric: str, limit: float) -> Item:
    """Rate, channels and length, what is wrong with the native sound, then the distance of its worst second."""
    tolerance = {"mode": "threshold", "worst": limit}
    try:
        want, have = sound.facts(reference), sound.facts(own)
        wrong = sound.against(have, rate=want.rate, channels=want.channels, samples=want.samples)
        if wrong or have.problems:
            return Item(name, "fail", "; ".join([*wrong, *have.problems]), {"samples": have.samples}, tolerance)
        series = spectra.measure(reference, own, metric)
    except MediaError as error:
        return Item(name, "fail", error.what, {}, tolerance)
    metrics: dict[str, Any] = {
        "worst": series.worst,
        "worst_second": series.worst_frame,
        "mean": series.mean,
        "samples": have.samples,
        "rate": have.rate,
        "metric": metric,
        "loudness": have.loudness,
        "loudness_of_reference": want.loudness,
        "definition": series.definition,
        "per_second": [round(value, 6) for value in series.values],
    }
    if series.keeps(limit) and series.mean <= limit:
        return Item(name, "pass", "", metrics, tolerance)
    reason = f"second {series.worst_frame} differs by {metric} {series.worst:.4f}, at most {limit} is asked"
    return Item(name, "fail", reason, metrics, tolerance, todo=TODO)


def judge_sound_file(name: str, reference: Sound, file: Path | None, metric: str, limit: float, alone: bool) -> Item:
    """The written file's sound: wav against the reference written as wav; what a video's codec lost is not measured.

    A video's sound went through a lossy codec: its rate, channels, length and loudness are compared.
    """
    if file is None:
        return Item(name, "fail", "VideoGenerator wrote no file")
    try:
        own = sound.of_file(file)
        if alone and file.suffix == ".wav":
            with tempfile.TemporaryDirectory(prefix="fvport-sound-") as scratch:
                like = Path(scratch) / "reference.wav"
                write_wav(like, reference)
                return judge_sound(name, sound.of_file(like), own, metric, limit)
        want, have = sound.facts(reference), sound.facts(own)
    except MediaError as error:
        return Item(name, "fail", f"the written file {error.what}")
    slack = CODEC_SLACK + want.rate // 10
    wrong = sound.against(have, rate=want.rate, channels=want.channels, samples=want.samples, slack=slack)
    louder = abs((have.loudness or -99.0) - (want.loudness or -99.0))
    if louder > LOUDER:
        wrong.append(f"its loudness is {_lufs(have.loudness)}, the reference's {_lufs(want.loudness)}")
    metrics = {"samples": have.samples, "rate": have.rate, "loudness": have.loudness, "definition": sound.LOUDNESS}
    return Item(name, "fail" if wrong + have.problems else "pass", "; ".join([*wrong, *have.problems]), metrics)


def _lufs(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} LUFS"


def write_wav(path: Path, given: Sound) -> None:
    """16 bits, cut as FastVideo cuts them."""
    import numpy as np

    with wave.open(str(path), "wb") as file:
        file.setnchannels(given.channels)
        file.setsampwidth(2)
        file.setframerate(given.rate)
        for block in given.blocks():
            file.writeframes((np.clip(block, -1, 1) * 32767.0).astype("<i2").T.tobytes())
