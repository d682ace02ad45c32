# SPDX-License-Identifier: Apache-2.0
"""Two media files side by side: whether they are a pair at all, how near they are, and what is wrong in each.

What makes two files no pair: another kind, size, length, rate, pixel format, one with sound and one without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import UsageError, did_you_mean
from fvport.media import frames, measures, probe, sound, spectra
from fvport.media.probe import Header, MediaError
from fvport.media.series import Series

PICTURES, SOUNDS = ("ssim", "psnr", "temporal"), ("mel_l1", "mr_stft")
CODEC_SLACK = 2048  # samples that a lossy codec's last block may add
LOSSLESS = ("pcm", "flac", "alac")


@dataclass
class Compared:
    """`problems`: sentences; none means that the two are a pair and that nothing is wrong with either."""

    a: dict[str, Any] = field(default_factory=dict)
    b: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found = {name: series.to_json() for name, series in self.series.items()}
        return {"a": self.a, "b": self.b, "problems": self.problems, "measures": found}

    def text(self) -> str:
        lines = [
            f"{name:10} mean {s.mean:.6g}  worst {s.worst:.6g} ({s.unit} {s.worst_frame} of {len(s.values)})\n"
            f"           {s.definition}"
            for name, s in self.series.items()
        ]
        return "\n".join([*lines, *(f"! {problem}" for problem in self.problems)])


def compare(a: Path, b: Path, names: Iterable[str] = ()) -> Compared:
    """Measure two files. Whatever is wrong is in `problems`; only a file that cannot be read at all raises."""
    heads = probe.header(a), probe.header(b)
    found = Compared(_told(a, heads[0]), _told(b, heads[1]), contract(*heads))
    wanted = _wanted(tuple(names), heads[0])
    pictures = [name for name in wanted if name in measures.MEASURES]
    sounds = [name for name in wanted if name in spectra.MEASURES]
    for name in pictures:
        measures.ready(name)
    if "sound" not in (heads[0].kind, heads[1].kind):
        _pictures(found, a, b, heads, pictures)
    if heads[0].rate and heads[1].rate:
        _sounds(found, a, b, heads, sounds)
    return found


def contract(a: Header, b: Header) -> list[str]:
    """Sentences for each declared fact in which two files differ."""
    if "sound" in (a.kind, b.kind) and a.kind != b.kind:
        return [f"one is {_kind(a)}, the other {_kind(b)}"]
    wrong = []
    if (a.width, a.height) != (b.width, b.height):
        wrong.append(f"they have other sizes: {a.width}x{a.height} and {b.width}x{b.height}")
    if a.frames and b.frames and a.frames != b.frames:
        wrong.append(f"they have other lengths: {a.frames} and {b.frames} frames")
    if abs(a.fps - b.fps) > 0.001 * max(a.fps, b.fps):
        wrong.append(f"they play at other rates: {a.fps:.6g} and {b.fps:.6g} frames a second")
    if a.pixel_format != b.pixel_format:
        wrong.append(f"they have other pixel formats: {a.pixel_format} and {b.pixel_format}")
    if bool(a.rate) != bool(b.rate):
        wrong.append(f"only the {'first' if a.rate else 'second'} has sound")
    elif a.rate != b.rate:
        wrong.append(f"they have other sample rates: {a.rate} and {b.rate} Hz")
    elif a.channels != b.channels:
        wrong.append(f"they have other channels of sound: {a.channels} and {b.channels}")
    return wrong


def _kind(head: Header) -> str:
    return {"video": "a video", "image": "a picture", "sound": "sound alone"}[head.kind]


def _told(path: Path, head: Header) -> dict[str, Any]:
    return {"file": str(path), **{key: value for key, value in vars(head).items() if value}}


def _wanted(names: tuple[str, ...], head: Header) -> tuple[str, ...]:
    known = (*measures.MEASURES, *spectra.MEASURES)
    for name in names:
        if name not in known:
            raise UsageError(
                f'no measure is called "{name}" ({", ".join(known)}).{did_you_mean(name, known)}', where="--metric"
            )
        if name in measures.MEASURES and head.kind == "sound":
            raise UsageError(f"{name} measures pictures, and the files hold sound alone", where="--metric")
        if name in spectra.MEASURES and not head.rate:
            raise UsageError(f"{name} measures sound, and there is none in {_kind(head)}", where="--metric")
    chosen = names or (*(PICTURES if head.kind != "sound" else ()), *(SOUNDS if head.rate else ()))
    return tuple(name for name in chosen if not (name == "temporal" and head.kind == "image"))


class Watched:
    """Frames passed on as they come, with the facts of what has passed (`frames.facts` in the same single pass)."""

    def __init__(self, source: Iterable[Any], fps: float = 0.0) -> None:
        self.source, self.facts = source, frames.Facts(fps=fps)

    def __iter__(self) -> Iterator[Any]:
        watcher = frames.Watcher(self.facts)
        for frame in self.source:
            watcher.see(frame)
            yield frame
        watcher.done()


def _pictures(found: Compared, a: Path, b: Path, heads: tuple[Header, Header], names: list[str]) -> None:
    sides = [Watched(frames.Clip(path), head.fps) for path, head in zip((a, b), heads, strict=True)]
    apart = (heads[0].width, heads[0].height) != (heads[1].width, heads[1].height)
    try:
        if apart or not names:
            for side in sides:
                for _ in side:
                    pass
        else:
            found.series |= measures.measure(sides[0], sides[1], names)
    except MediaError as error:
        found.problems += [str(error)] if str(error) not in found.problems else []
    for told, side, word in zip((found.a, found.b), sides, ("first", "second"), strict=True):
        told |= {"decoded": side.facts.frames, "motion": round(side.facts.motion, 4)}
        found.problems += [f"the {word}: {problem}" for problem in side.facts.problems]


def _sounds(found: Compared, a: Path, b: Path, heads: tuple[Header, Header], names: list[str]) -> None:
    both = []
    for told, path, word in zip((found.a, found.b), (a, b), ("first", "second"), strict=True):
        try:
            one = sound.of_file(path)
            facts = sound.facts(one)
        except MediaError as error:
            found.problems.append(str(error))
            continue
        told |= {"samples": facts.samples, "seconds": round(facts.seconds, 4), "peak": round(facts.peak, 5)}
        told |= {"loudness": facts.loudness and round(facts.loudness, 3), "loudness_definition": sound.LOUDNESS}
        found.problems += [f"the {word}: {problem}" for problem in facts.problems]
        both.append(one)
    if len(both) < 2 or (heads[0].rate, heads[0].channels) != (heads[1].rate, heads[1].channels):
        return
    try:
        for name in names:
            found.series[name] = spectra.measure(both[0], both[1], name)
    except MediaError as error:
        found.problems.append(error.what)
