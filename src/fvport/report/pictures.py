# SPDX-License-Identifier: Apache-2.0
"""Official and native media side by side for the page: frames in step, their difference, spectrograms of sound.

`make(port)` reads what `fvport check pipeline` generated and keeps the HTML under the digest of those files, so that
`fvport gate`, which makes nothing, can show it again (`kept(port)`). A fixed number of frames is taken, the worst among
them, and the images are made smaller: the page stays one small file however long the video is.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Iterable
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fvport import callnames
from fvport import evidence as ev
from fvport.models import kept as keeping
from fvport.spec import Port

FRAMES = 12  # shown of each call
CALLS = 4  # of the gate's calls
WIDTH = 384  # pixels of an image in the page
SPECTRUM = (480, 120)  # columns, rows of a spectrogram
FFT = 512
FLOOR = 1e-5  # -100 dB
LONGEST = 20  # seconds of sound that can be played in the page
SIDES = ("official", "native", "difference")


def kept(port: Port) -> str:
    """The HTML made of the media that lie there now; '' where it was not made."""
    try:
        return _file(port, _pairs(port)).read_text(encoding="utf-8")
    except OSError:
        return ""


def make(port: Port) -> str:
    """The HTML, made where it is not there yet; '' where there is nothing to show."""
    pairs = _pairs(port)
    if not pairs:
        return ""
    text = kept(port)
    if not text:
        titles = callnames.words(port)
        text = "\n".join(_call(titles.get(native.name, native.name), official, native) for official, native in pairs)
        file = _file(port, pairs)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)
        keeping.prune_files(file, "pictures")
    return text


def drifts(port: Port) -> dict[str, str]:
    """The drift over depth that the last `fvport trace` of each component drew, and when."""
    found = {}
    for name in port.components:
        file = port.state / "trace" / name / "drift.svg"
        if file.is_file() and not file.is_symlink():
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(file.stat().st_mtime))
            image = f'<img src="{_data("image/svg+xml", file.read_bytes())}" alt="drift over depth of {escape(name)}">'
            found[name] = f'<figure class="drift">{image}<figcaption>traced {when} UTC</figcaption></figure>'
    return found


def _pairs(port: Port) -> list[tuple[Path, Path]]:
    """Folders of the gate's calls that both sides made; a name with a dot is a floor or a forced run."""
    held = port.state / "cache" / "generation"
    sides = [sorted(held.glob(f"{side}.*"), key=lambda p: p.stat().st_mtime)[-1:] for side in SIDES[:2]]
    if not all(sides):
        return []
    (official,), (native,) = sides
    names = sorted(p.name for p in native.glob("p*s*") if "." not in p.name)
    found = [(official / name, native / name) for name in names]
    return [pair for pair in found if all((folder / "steps.safetensors").is_file() for folder in pair)][:CALLS]


def _file(port: Port, pairs: list[tuple[Path, Path]]) -> Path:
    files = [folder / "steps.safetensors" for pair in pairs for folder in pair]
    seen = [(f.parent.parent.name, f.parent.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    digest = ev.blake3(ev.canonical([seen, FRAMES, WIDTH, callnames.words(port)])).partition(":")[2][:32]
    return port.state / "cache" / "report" / f"pictures.{digest}.json"


def _call(title: str, official: Path, native: Path) -> str:
    from safetensors import safe_open

    with safe_open(official / "steps.safetensors", "pt") as a, safe_open(native / "steps.safetensors", "pt") as b:
        both = set(a.keys()) & set(b.keys())
        audio = [held.get_tensor("audio").float().numpy() for held in (a, b)] if "audio" in both else []
    told = json.loads((native / "steps.json").read_text(encoding="utf-8"))
    rate = int(told.get("audio_sample_rate") or told.get("sample_rate") or 0)
    parts = [f"<h3>{escape(title)}: official, native, difference</h3>"]
    parts += [_player(official, native)] if "frames" in both else []
    parts += [_sound(_mono(audio[0]), _mono(audio[1]), rate)] if audio and rate else []
    return "\n".join(parts) if len(parts) > 1 else ""


# --- frames -----------------------------------------------------------------------------------------------------------


def _player(official: Path, native: Path) -> str:
    """Three images that change together, a slider and a button. Without a script the first frame stands."""
    import numpy as np

    from fvport.media.frames import Stored

    a, b = (Stored(folder / "steps.safetensors") for folder in (official, native))
    far = [float(np.abs(np.subtract(x, y, dtype=np.int16)).mean()) for x, y in _together(a, b)]
    if not far or len(a) != len(b):
        return f'<p class="fail">official {len(a)} frames, native {len(b)}: they cannot be laid side by side</p>'
    worst = max(range(len(far)), key=far.__getitem__)
    chosen = sorted({worst, *(round(n * (len(far) - 1) / max(FRAMES - 1, 1)) for n in range(FRAMES))})
    most = max(1, max(int(np.abs(np.subtract(x, y, dtype=np.int16)).max()) for x, y in _together(a, b)))
    sides: list[list[str]] = [[], [], []]
    for number, (x, y) in enumerate(_together(a, b)):
        if number in chosen:
            heat = _heat(np.abs(np.subtract(x, y, dtype=np.int16)).max(axis=-1) / most)
            for side, image in zip(sides, (x, y, heat), strict=True):
                side.append(_uri(image))
    told = [f"frame {n}: mean difference {far[n]:.3f} of 255{', the worst' if n == worst else ''}" for n in chosen]
    data = json.dumps({"sides": sides, "words": told, "pause": 160}).replace("</", "<\\/")
    captions = [SIDES[0], SIDES[1], f"difference, its largest ({most} of 255) white"]
    figures = "".join(
        f'<figure><img src="{side[0]}" alt="{name}"><figcaption>{caption}</figcaption></figure>'
        for side, name, caption in zip(sides, SIDES, captions, strict=True)
    )
    at = f'<input type="range" min="0" max="{len(chosen) - 1}" value="{chosen.index(worst)}" aria-label="frame">'
    controls = f'<div class="controls"><button type="button">Play</button>{at}</div><output>{escape(told[0])}</output>'
    return (
        f'<div class="player"><div class="media">{figures}</div>{controls}'
        f'<script type="application/json">{data}</script></div>'
    )


def _together(a: Iterable[Any], b: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    return ((x, y) for x, y in zip_longest(a, b) if x is not None and y is not None and x.shape == y.shape)


def _heat(share: Any) -> Any:
    """Shares of the largest difference (height, width) as colours: black, blue, red, yellow, white."""
    import numpy as np

    stops = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    colours = np.array([[0, 0, 0], [40, 40, 160], [200, 30, 60], [250, 200, 40], [255, 255, 255]], dtype=np.float64)
    return np.stack([np.interp(share, stops, colours[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def _uri(image: Any) -> str:
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, max(1, picture.height * WIDTH // picture.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=85)
    return _data("image/webp", out.getvalue())


def _data(kind: str, given: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(given).decode('ascii')}"


# --- sound ------------------------------------------------------------------------------------------------------------


def _mono(audio: Any) -> Any:
    """(batch, channels, samples) of the first item as one channel."""
    first = audio[0] if audio.ndim == 3 else audio
    return first.mean(axis=0) if first.ndim == 2 else first


def _sound(official: Any, native: Any, rate: int) -> str:
    """Spectrograms of both and of their difference, and the two sounds where they are short."""
    import numpy as np

    size = min(len(official), len(native))
    both = [_spectrum(side[:size]) for side in (official, native)]
    low, high = 20 * np.log10(FLOOR), max(20 * np.log10(FLOOR) + 1, max(float(side.max()) for side in both))
    images = [_heat((side - low) / (high - low)) for side in both]
    apart = np.abs(both[0] - both[1])
    images.append(_heat(apart / max(float(apart.max()), 1e-9)))
    captions = [SIDES[0], SIDES[1], f"difference, up to {float(apart.max()):.1f} dB"]
    play = [_play(side, rate) for side in (official, native)] + [""]
    figures = "".join(
        f'<figure><img src="{_uri(image)}" alt="spectrogram, {name}"><figcaption>{caption}</figcaption>{sound}</figure>'
        for image, name, caption, sound in zip(images, SIDES, captions, play, strict=True)
    )
    return f'<div class="media">{figures}</div>'


def _spectrum(samples: Any) -> Any:
    """Decibels (rows from high to low frequency, columns of time)."""
    import numpy as np

    columns, rows = SPECTRUM
    padded = np.pad(samples, (0, max(0, FFT - len(samples))))
    starts = np.linspace(0, len(padded) - FFT, columns).astype(int)
    window = np.hanning(FFT)
    power = np.abs(np.fft.rfft(np.stack([padded[s : s + FFT] * window for s in starts]), axis=1)) / (FFT / 4)
    bins = np.linspace(0, power.shape[1] - 1, rows).astype(int)
    return 20 * np.log10(np.maximum(power[:, bins].T[::-1], FLOOR))


def _play(samples: Any, rate: int) -> str:
    import wave

    import numpy as np

    if len(samples) > LONGEST * rate:
        return ""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767.0).astype("<i2").tobytes())
    return f'<audio controls preload="none" src="{_data("audio/wav", out.getvalue())}"></audio>'
