# SPDX-License-Identifier: Apache-2.0
"""Written files: what is said of each that is broken, and of two that are no pair; pictures, sound, and both."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fvport.errors import UsageError
from fvport.media import frames, pairs, probe, sound

FPS, RATE = 8, 16000


def moving(count: int = 8, height: int = 64, width: int = 96) -> np.ndarray:
    """A textured picture that slides: every frame has much to decode."""
    rng = np.random.default_rng(3)
    base = rng.integers(-4, 5, (height + count, width + count, 3)).cumsum(axis=1).clip(-120, 120) + 128
    return np.stack([base[i : i + height, i : i + width] for i in range(count)]).astype(np.uint8)


def tone(seconds: float = 1.5, hertz: float = 440.0, channels: int = 2) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return np.stack([0.4 * np.sin(2 * np.pi * hertz * (1 + i) * t) for i in range(channels)]).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").T.tobytes())
    return path


def write_mp4(path: Path, video: np.ndarray, *, pixels: str = "yuv420p", samples: np.ndarray | None = None) -> Path:
    """H.264 by PyAV, with AAC sound where samples are given."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = video.shape[2], video.shape[1], pixels
        aac = out.add_stream("aac", rate=RATE, layout="stereo") if samples is not None else None
        for picture in video:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
        if aac is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate = RATE
            out.mux(aac.encode(frame))
            out.mux(aac.encode())
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_mp4(tmp_path / "good.mp4", moving())


def test_a_file_is_near_itself(good: Path) -> None:
    """Nothing is wrong, every frame is measured, and each figure says its definition."""
    found = pairs.compare(good, good)
    assert found.problems == []
    assert found.series["ssim"].values == [1.0] * 8
    assert found.series["temporal"].worst == 0.0
    told = found.to_json()["measures"]
    assert "sigma 1.5" in told["ssim"]["definition"]
    assert "range 255" in told["psnr"]["definition"]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99, 0.9999])
def test_a_cut_off_video_is_truncated(good: Path, share: float) -> None:
    """Wherever it was cut, even where every frame can still be decoded."""
    good.write_bytes(good.read_bytes()[: int(good.stat().st_size * share)])
    with pytest.raises(frames.MediaError, match=r"truncated|holds neither|no picture"):
        list(frames.decode(good))
    with pytest.raises(frames.MediaError):
        probe.header(good)


def test_a_cut_through_the_index_is_one_too(good: Path) -> None:
    """Whatever part of the index is left, the word is the same."""
    whole = good.read_bytes()
    for at in range(whole.rindex(b"moov"), len(whole), 37):
        good.write_bytes(whole[:at])
        with pytest.raises(frames.MediaError, match=r"truncated|holds neither|no picture"):
            list(frames.decode(good))
        with pytest.raises(frames.MediaError):
            probe.header(good)


def test_a_video_whose_index_comes_first_is_truncated_too(good: Path, tmp_path: Path) -> None:
    """Where the index is at the front, fewer frames are left than it declares."""
    import av

    early = tmp_path / "early.mp4"
    with av.open(str(good)) as source, av.open(str(early), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert len(list(frames.decode(early))) == 8
    early.write_bytes(early.read_bytes()[:-2000])
    with pytest.raises(frames.MediaError, match="truncated"):
        list(frames.decode(early))


def test_a_corrupt_video_is_not_repaired(good: Path) -> None:
    """Overwritten bytes in the middle are an error: the decoder may not fill in what it could not read."""
    data = bytearray(good.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    good.write_bytes(data)
    with pytest.raises(frames.MediaError, match="corrupt"):
        list(frames.decode(good))
    found = pairs.compare(good, good)
    assert any("corrupt" in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (moving(7), "other lengths: 8 and 7 frames"),
        (moving(8, 64, 80), "other sizes: 96x64 and 80x64"),
        (np.zeros((8, 64, 96, 3), np.uint8), "the second: it is blank"),
        (np.repeat(moving(1), 8, axis=0), "the second: it is frozen"),
        (np.concatenate([moving(7), np.zeros((1, 64, 96, 3), np.uint8)]), "at least one frame is blank"),
    ],
)
def test_what_is_no_pair_is_said(good: Path, tmp_path: Path, video: np.ndarray, words: str) -> None:
    """Shorter, of another size, black and frozen: each in its own words."""
    found = pairs.compare(good, write_mp4(tmp_path / "b.mp4", video))
    assert any(words in problem for problem in found.problems), found.problems


def test_another_rate_and_pixel_format_are_said(good: Path, tmp_path: Path) -> None:
    """The same frames at another speed, or with the colours kept otherwise, are another file."""
    frames.write_mp4(tmp_path / "fast.mp4", moving(), 16)
    assert any("other rates: 8 and 16" in p for p in pairs.compare(good, tmp_path / "fast.mp4").problems)
    other = write_mp4(tmp_path / "444.mp4", moving(), pixels="yuv444p")
    assert any("pixel formats: yuv420p and yuv444p" in p for p in pairs.compare(good, other).problems)


def test_one_wrong_frame_is_named(good: Path, tmp_path: Path) -> None:
    """The worst frame is kept, with its number."""
    video = moving()
    video[5] = video[5][::-1]
    found = pairs.compare(good, write_mp4(tmp_path / "b.mp4", video)).series["ssim"]
    assert found.worst_frame == 5
    assert found.worst < 0.6 < found.mean


def test_a_shifted_video_moves_otherwise(good: Path, tmp_path: Path) -> None:
    """Frames in another order change the temporal difference where single frames are sound."""
    swapped = moving()[[0, 2, 1, 3, 4, 5, 6, 7]]
    found = pairs.compare(good, write_mp4(tmp_path / "b.mp4", swapped)).series["temporal"]
    assert found.worst_frame in (1, 2, 3)
    assert found.worst > 5 * found.values[6]


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_are_read_to_the_bit_and_broken_ones_named(tmp_path: Path, suffix: str) -> None:
    """png and lossless webp give the pixels back; cut off, changed and empty ones are errors."""
    from PIL import Image

    file = tmp_path / f"a{suffix}"
    Image.fromarray(moving(1)[0]).save(file, **({"lossless": True} if suffix == ".webp" else {}))
    assert (next(frames.decode(file)) == moving(1)[0]).all()
    found = pairs.compare(file, file)
    assert (found.problems, found.a["kind"], "temporal" in found.series) == ([], "image", False)
    data = file.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 0xFF
    cases = [(data[: len(data) // 2], "truncated"), (data[:-4], "truncated")]
    cases += [(bytes(changed), "corrupt")] if suffix == ".png" else []  # webp has no checksums
    for broken, words in cases:
        file.write_bytes(broken)
        with pytest.raises(frames.MediaError, match=words):
            list(frames.decode(file))


def test_pixels_that_rgb_of_8_bits_cannot_hold_are_refused(tmp_path: Path) -> None:
    """Alpha and 16 bits are not cut off in silence; a name may lie about the kind."""
    from PIL import Image

    Image.fromarray(np.zeros((16, 16, 4), np.uint8)).save(tmp_path / "alpha.png")
    with pytest.raises(frames.MediaError, match="rgba, not RGB"):
        list(frames.decode(tmp_path / "alpha.png"))
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(frames.MediaError, match="not RGB of 8 bits"):
        list(frames.decode(tmp_path / "deep.png"))
    (tmp_path / "alpha.png").rename(tmp_path / "video.mp4")
    assert probe.header(tmp_path / "video.mp4").codec == "png"


# --- sound ------------------------------------------------------------------------------------------------------------


def test_sound_is_compared_second_by_second(tmp_path: Path) -> None:
    """The second in which something differs is named."""
    a, changed = tone(3), tone(3)
    changed[:, RATE : RATE + 4000] *= 0.5
    found = pairs.compare(write_wav(tmp_path / "a.wav", a), write_wav(tmp_path / "b.wav", changed))
    assert found.problems == []
    for name in ("mel_l1", "mr_stft"):
        assert found.series[name].worst_frame == 1
        assert found.series[name].values[2] == 0.0
    assert found.a["loudness"] > found.b["loudness"]


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (tone(1.4), RATE, "other lengths: 24000 and 22400 samples"),
        (tone(1.5), 22050, "other sample rates: 16000 and 22050"),
        (tone(1.5, channels=1), RATE, "other channels of sound: 2 and 1"),
        (tone() * 0, RATE, "the second: it is silent"),
        (np.clip(tone() * 9, -1, 1), RATE, "the second: it is clipped"),
    ],
)
def test_wrong_sound_is_said(tmp_path: Path, samples: np.ndarray, rate: int, words: str) -> None:
    """Length, rate, channels, silence and clipping, each in its own words."""
    good = write_wav(tmp_path / "a.wav", tone())
    found = pairs.compare(good, write_wav(tmp_path / "b.wav", samples, rate))
    assert any(words in problem for problem in found.problems), found.problems


def test_a_cut_off_wav_is_truncated(tmp_path: Path) -> None:
    """A wav that ends early is not a shorter one."""
    file = write_wav(tmp_path / "a.wav", tone())
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(frames.MediaError, match="truncated"):
        sound.facts(sound.of_file(file))


def test_a_video_that_lost_its_sound_is_no_pair(tmp_path: Path) -> None:
    """Sound on one side only is said; with sound on both, both are measured."""
    silent = write_mp4(tmp_path / "a.mp4", moving())
    heard = write_mp4(tmp_path / "b.mp4", moving(), samples=tone(1.0))
    assert any("only the second has sound" in p for p in pairs.compare(silent, heard).problems)
    found = pairs.compare(heard, heard)
    assert found.problems == []
    assert {"ssim", "mel_l1"} <= set(found.series)
    wav = write_wav(tmp_path / "c.wav", tone(1.0))
    assert any("one is a video, the other sound alone" in p for p in pairs.compare(heard, wav).problems)


# --- as people call it ------------------------------------------------------------------------------------------------


def test_media_compare_as_a_command(good: Path, tmp_path: Path) -> None:
    """One JSON document; 1 where the two are no pair, 0 where they are."""
    from fvport.cli import app

    told = CliRunner().invoke(app, ["media", "compare", str(good), str(good), "--metric", "ssim", "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["measures"]["ssim"]["worst"] == 1.0
    short = write_mp4(tmp_path / "b.mp4", moving(7))
    assert CliRunner().invoke(app, ["media", "compare", str(good), str(short)]).exit_code == 1


@pytest.mark.parametrize(
    ("metric", "words"), [("sim", "Did you mean"), ("mel_l1", "measures sound"), ("", "no measure is called")]
)
def test_a_measure_that_does_not_fit_is_wrong_use(good: Path, metric: str, words: str) -> None:
    """Said before a frame is read."""
    with pytest.raises(UsageError, match=words):
        pairs.compare(good, good, [metric])
