# SPDX-License-Identifier: Apache-2.0
"""What the page shows below the gate's table, its pictures, and two runs beside one another."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import gate_support as g
import pytest
import torch
from safetensors.torch import save_file

from fvport import callnames, gate, report
from fvport import evidence as ev
from fvport.errors import UsageError
from fvport.report import charts, html, parts, pictures, sections
from fvport.report.compare import compare
from fvport.spec import Port


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    port = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    g.all_green(port)
    return port


def generated(port: Port, side: str, frames: torch.Tensor | None, audio: torch.Tensor | None = None) -> None:
    """What `generation` leaves of one call and side."""
    folder = port.state / "cache" / "generation" / f"{side}.{'0' * 24}" / "p0s0"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t for name, t in (("frames", frames), ("audio", audio)) if t is not None}
    save_file(tensors, folder / "steps.safetensors")
    (folder / "steps.json").write_text(json.dumps({"audio_sample_rate": 16000}))


def clip(frames: int = 5, height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.rand(1, frames, height, width, 3, generator=torch.Generator().manual_seed(1))


def player(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])


# --- from records -----------------------------------------------------------------------------------------------------


def test_the_first_red_stage_is_marked_and_later_ones_fade(port: Port) -> None:
    """A fault in the denoiser makes latents red too; the strip says which came first."""
    names = ("timesteps", "denoiser", "latents", "planted: schedule")
    red = ("denoiser", "latents")
    items = [ev.Item(name, "fail" if name in red else "pass", "off" if name in red else "") for name in names]
    g.green(port, "pipeline", items=items)
    text = sections.pipeline(gate.decide(port))
    assert re.findall(r'<li class="([^"]*)"[^>]*>([^<]*)</li>', text) == [
        ("", "timesteps"),
        ("fail", "denoiser (first)"),
        ("fail after", "latents"),
    ]
    assert "planted: schedule" in text


def test_a_components_worst_output_comes_first(port: Port) -> None:
    """Outputs by use of their budget; a red component stands open, with its reason; strength and blind spots below."""
    items = [
        ev.Item("transformer: a/sample", "pass", "", {"budget_use": 0.2, "rel_l2": 1e-7, "floor_rel_l2": 2e-7}, {}),
        ev.Item("transformer: b/sample", "fail", "rel_l2 is off", {"budget_use": 12.5, "rel_l2": 1e-3}, {}),
        ev.Item("transformer: strength", "pass", "", {"caught": 9, "total": 10, "strength": 0.9, "blind": ["eps"]}, {}),
    ]
    for item in items:
        item.component = "transformer"
    g.green(port, "parity", items=items)
    text = sections.components(gate.decide(port), {})
    assert text.index("b/sample") < text.index("a/sample")
    assert "<details open>" in text
    assert "rel_l2 is off" in text
    assert "9 of 10 planted faults seen" in text
    assert "<li>eps</li>" in text
    assert 'class="bar bad"' in text


def test_a_check_that_never_ran_says_what_to_run(port: Port) -> None:
    """No section is silently empty."""
    for file in ev.folder(port).glob("*.json"):
        file.unlink()
    verdict = gate.decide(port)
    for text in (sections.components(verdict, {}), sections.mapping(verdict), sections.pipeline(verdict)):
        assert "Run: <code>fvport check" in text
    assert "Run: <code>fvport check ssim" in sections.media(verdict)


def test_the_page_says_what_is_held_against_what_and_why(port: Port) -> None:
    """Mode, both classes and the reason that the bake wrote behind the table's name."""
    head = "[components.transformer]"
    port = g.edit(port, "tests/local_tests/toy/port.toml", head, f"{head}  # FastVideo's class rounds <otherwise>")
    verdict = gate.decide(port)
    (told,) = [c for c in verdict.to_json()["components"] if c["name"] == "transformer"]
    assert told["why"] == "FastVideo's class rounds <otherwise>"
    assert (told["mode"], told["native"]) == (
        port.components["transformer"].mode,
        port.components["transformer"].native,
    )
    text = sections.components(verdict, {})
    assert f"<code>{told['official']}</code>" in text.replace("<wbr>", "")
    assert "rounds &lt;otherwise&gt;" in text


def test_the_page_stands_alone(port: Port) -> None:
    """When, of what, with what and signed by whom at the top; its words at the end; where frames are to be had."""
    environment = {"versions": {"torch": "2.12.0", "fastvideo": "0.2.1"}}
    g.green(port, "smoke", environment=environment, started="2026-01-02T03:04:05+00:00")
    page = html.page(gate.decide(port))
    assert re.search(r"newest record of \d{4}-\d\d-\d\d \d\d:\d\d UTC; commit: ", page)
    assert "torch 2.12.0, fastvideo 0.2.1" in page
    assert "mappings signed by" in page
    assert "<dt>budget</dt>" in page
    assert "<code>fvport report</code>" in page
    assert page.index('id="residual-risks"') < page.index('id="each-check"')


def test_a_call_goes_by_its_prompt_and_seed(port: Port) -> None:
    """`p1s7` means nothing to a reader; the record and the verdict keep it."""
    calls = {"p0s0": '"a fox runs", seed 0', "p1s7": '"rain <at> night", seed 7'}
    verdict = dataclasses.replace(gate.decide(port), calls=calls)
    assert sections.called(verdict, "frames (p1s7)") == 'frames ("rain <at> night", seed 7)'
    assert sections.called(verdict, "map0s0 p9s9") == "map0s0 p9s9"
    g.green(port, "ssim", items=[ev.Item("p1s7", "pass", "", {"per_frame": [0.99]}, {"worst": 0.98})])
    text = sections.media(dataclasses.replace(gate.decide(port), calls=calls))
    assert "&quot;rain &lt;at&gt; night&quot;, seed 7" in text
    assert gate.decide(port).calls == callnames.words(port)


def test_figures_in_a_cell_are_short_and_say_that_they_are() -> None:
    """Nothing empty, no raw list of a hundred names, a cut that shows."""
    cell = parts.words({"rel_l2": 1.23456e-7, "agreed": [], "stage": None, "seen_at": "x", "same": True})
    assert cell == "rel l2 1.235e-07, seen at x, same yes"
    assert parts.words({"names": [f"n{i}" for i in range(9)]}) == "names n0, n1, n2, n3, n4, n5 and 3 more"
    assert parts.words({"why": "y" * 500}).endswith("y…")
    assert len(parts.words({"why": "y" * 500})) < 170
    assert parts.words({"by": {"a": 0.5, "b": [1, 2]}}) == "by (a: 0.5, b: 1, 2)"


def test_what_a_record_says_is_text(port: Port) -> None:
    """No name, reason or note of a port becomes HTML."""
    evil = '<img src=x onerror="alert(1)">'
    for check in ("parity", "pipeline", "ssim", "mapping"):
        item = ev.Item(evil, "fail", evil, {"budget_use": 2.0, evil: evil, "per_frame": [0.5]}, {}, component=evil)
        g.green(port, check, items=[item], notes=[evil])
    page = html.page(gate.decide(port))
    assert "<img" not in page
    assert "&lt;img" in page


@pytest.mark.parametrize(("values", "limit", "bad"), [
    ([0.99, 0.97, 0.999], 0.98, 1), ([1.0, 1.0], 0.98, 0), ([0.1, 0.6], 0.5, 1), ([0.01], 0.5, 0),
])  # fmt: skip
def test_a_value_beyond_the_limit_is_red(values: list[float], limit: float, bad: int) -> None:
    """For measures where more is better, and for distances."""
    assert charts.curve(values, limit, "x").count('class="dot bad"') == bad


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_frames_stand_side_by_side_and_the_worst_is_among_them(port: Port) -> None:
    """Twelve frames of a long clip, the one that differs always there; the caption says by how much."""
    ours = clip(60)
    ours[0, 37] = 1 - ours[0, 37]
    generated(port, "official", clip(60))
    generated(port, "native", ours)
    data = player(pictures.make(port))
    assert [len(side) for side in data["sides"]] == [len(data["words"])] * 3
    assert len(data["words"]) <= pictures.FRAMES + 1
    assert sum("the worst" in words for words in data["words"]) == 1
    assert any(words.startswith("frame 37:") and "the worst" in words for words in data["words"])
    assert all(uri.startswith("data:image/webp;base64,") for side in data["sides"] for uri in side)


def test_a_big_video_stays_a_small_page(port: Port) -> None:
    """81 frames of 480x832 noise, the worst for a codec, make less than the five megabytes of a page."""
    wide = clip(1, 480, 832).expand(1, 30, 480, 832, 3).contiguous()
    generated(port, "official", wide)
    generated(port, "native", wide * 0.99)
    assert len(pictures.make(port)) < 4_000_000


def test_another_length_is_said(port: Port) -> None:
    """What cannot be laid side by side is no picture."""
    generated(port, "official", clip(5))
    generated(port, "native", clip(4))
    assert "official 5 frames, native 4" in pictures.make(port)


def test_sound_is_shown_and_played(port: Port) -> None:
    """Two spectrograms, their difference, and both sounds."""
    tone = torch.sin(torch.arange(16000) * 0.3).expand(1, 2, 16000).contiguous()
    generated(port, "official", None, tone)
    generated(port, "native", None, tone * 0.5)
    text = pictures.make(port)
    assert text.count("<img") == 3
    assert text.count("<audio") == 2
    assert "up to 6.0 dB" in text


def test_the_gate_shows_what_the_report_made_as_long_as_it_is_true(port: Port) -> None:
    """`gate` makes no picture; it shows those that were made, until the media are others."""
    generated(port, "official", clip())
    generated(port, "native", clip())
    page = port.state / "report" / "index.html"
    report.write(port, gate.decide(port))
    assert "data:image" not in page.read_text()
    report.write(port, gate.decide(port), media=True)
    assert "data:image" in page.read_text()
    report.write(port, gate.decide(port))
    assert "data:image" in page.read_text()
    generated(port, "native", clip() * 0.5)
    report.write(port, gate.decide(port))
    assert "data:image" not in page.read_text()


def test_the_last_trace_of_a_component_is_drawn(port: Port) -> None:
    """As an image, so that nothing in the file is read as a part of the page."""
    folder = port.state / "trace" / "transformer"
    folder.mkdir(parents=True)
    (folder / "drift.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/><script>1</script>")
    g.green(port, "parity", items=[ev.Item("transformer: a", "pass", component="transformer")])
    report.write(port, gate.decide(port))
    page = (port.state / "report" / "index.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "<script" not in page


# --- two runs ---------------------------------------------------------------------------------------------------------


def test_two_runs_beside_one_another(port: Port, tmp_path: Path) -> None:
    """Verdicts that changed come first, then figures that moved; inputs that are others are named."""
    g.green(port, "parity", items=[ev.Item("transformer: a", "pass", "", {"rel_l2": 1e-7, "same": 1.0}, {})])
    kept = tmp_path / "before"
    shutil.copytree(ev.folder(port), kept)
    g.green(port, "parity", items=[ev.Item("transformer: a", "fail", "it is off", {"rel_l2": 1e-3, "same": 1.0}, {})])
    found = compare(kept, port.root)
    (change,) = [c for c in found.changes if c.check == "parity"]
    assert (change.item, change.before, change.after, change.reason) == ("transformer: a", "pass", "fail", "it is off")
    assert change.figures == {"rel_l2": [1e-7, 1e-3]}
    assert found.to_json()["worse"] == ["parity: transformer: a"]
    assert "parity     transformer: a: pass -> fail; it is off; rel_l2 1e-07 -> 0.001" in found.text()
    assert "it is off" in found.page()
    assert "the same items" in compare(kept, kept).text()


def test_a_folder_without_records_is_one_sentence(tmp_path: Path) -> None:
    """Not an empty comparison."""
    with pytest.raises(UsageError, match="no record of a gate here"):
        compare(tmp_path, tmp_path)
    (tmp_path / "keys.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="record"):
        compare(tmp_path, tmp_path)


# --- in a browser -----------------------------------------------------------------------------------------------------

TRY = """
<script>
  const seen = [], range = document.querySelector('.player input'), told = document.querySelector('.player output');
  window.onerror = (message) => seen.push('error ' + message);
  const image = document.querySelectorAll('.player img')[1], first = image.src;
  range.value = 1; range.dispatchEvent(new Event('input'));
  seen.push(told.textContent, image.src !== first, image.complete || image.src.startsWith('data:'));
  const button = document.querySelector('.player button');
  button.click(); seen.push(button.textContent); button.click(); seen.push(button.textContent);
  seen.push('wide ' + (document.documentElement.scrollWidth > innerWidth));
  document.title = JSON.stringify(seen);
</script>
"""


@pytest.mark.heavy
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_works_in_a_browser(port: Port, tmp_path: Path, width: int) -> None:
    """Slider and button change what is shown; nothing is wider than the window; no error. Needs chromium."""
    generated(port, "official", clip())
    generated(port, "native", clip() * 0.9)
    page = tmp_path / "page.html"
    page.write_text(html.page(gate.decide(port), pictures.make(port)).replace("</body>", TRY + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"'))
    assert seen[0].startswith("frame 1: mean difference")
    assert seen[1:] == [True, True, "Pause", "Play", "wide false"]
