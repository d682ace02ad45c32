# SPDX-License-Identifier: Apache-2.0
"""`--scale tiny`: the port beside, on a twin of its release; what has no twin is refused in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport.checks import Options
from fvport.errors import BlockedError, UsageError
from fvport.parity import beside, tiny_scale
from fvport.tiny.write import Made


def toy(root: Path, **official: Any) -> Any:
    """As much of a port as the refusals look at."""
    weights = root / "official_weights" / "toy"
    weights.mkdir(parents=True)
    given = {"needs_conversion": False, **official}
    return SimpleNamespace(official=SimpleNamespace(**given), official_weights=weights, state=root / ".fvport")


@pytest.mark.parametrize("check", ["mapping", "smoke", "pipeline", "ssim", "boundary"])
def test_a_check_that_no_twin_serves_is_wrong_use(tmp_path: Path, check: str) -> None:
    """Names, pipelines and media are of the release itself."""
    with pytest.raises(UsageError, match="keys, config, conversion, parity"):
        tiny_scale.run(toy(tmp_path), check, Options())


def test_another_scale_or_blocks_of_a_twin_are_wrong_use() -> None:
    """Each option makes a release of its own."""
    port: Any = None
    with pytest.raises(UsageError, match='--scale is "small"'):
        tiny_scale.asked(port, "parity", "small", "", Options())
    with pytest.raises(UsageError, match="two different releases"):
        tiny_scale.asked(port, "parity", "tiny", "0", Options())


def test_a_release_that_no_class_reads_is_blocked(tmp_path: Path) -> None:
    """A raw release, and one that is not here: nothing is made."""
    with pytest.raises(BlockedError, match="not in Diffusers layout"):
        tiny_scale.run(toy(tmp_path / "raw", needs_conversion=True), "parity", Options())
    with pytest.raises(BlockedError, match=r"no release with a model_index\.json"):
        tiny_scale.run(toy(tmp_path / "none"), "parity", Options())
    assert not (tmp_path / "none" / ".fvport").exists()


def test_the_port_beside_has_the_files_and_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code by content, FastVideo by the same bytes; evidence, weights and history stay where they are."""
    root = tmp_path / "port"
    for name in ("fastvideo/models/x.py", "tests/local_tests/toy/port.toml", ".fvport/evidence/toy/parity.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "official_weights" / "toy").mkdir(parents=True)
    file = root / "tests/local_tests/toy/port.toml"
    port: Any = SimpleNamespace(root=root, reference=root / "reference", state=root / ".fvport", file=file)
    built: list[Any] = []
    monkeypatch.setattr(beside.spec, "parse", lambda file: SimpleNamespace(state=file.parents[3] / ".fvport"))
    monkeypatch.setattr(beside.convert, "build_load_tree", lambda twin, verify: built.append(twin))
    twin, made = beside.make(port, port.state / "tiny", lambda twin: "release")
    place = root / ".fvport" / "tiny"
    assert (made, built) == ("release", [twin])
    assert (place / "fastvideo/models/x.py").stat().st_ino == (root / "fastvideo/models/x.py").stat().st_ino
    assert (place / "tests/local_tests/toy/port.toml").read_text() == "tests/local_tests/toy/port.toml"
    assert sorted(entry.name for entry in place.iterdir()) == ["fastvideo", "tests"]


def test_what_became_small_and_what_did_not_is_said() -> None:
    """A twin that could not shrink a key says so beside its verdict."""

    @dataclass
    class Twin:
        before: int
        after: int
        kept: dict[str, str]

    made = Made(Path(), 0, {"transformer": Twin(5_000, 40, {"sample_size": "a reason"})})  # type: ignore[dict-item]
    assert tiny_scale._said(made) == [
        "transformer: 5,000 -> 40 parameters",
        "transformer: sample_size not shrunk: a reason",
    ]


@pytest.mark.heavy
def test_the_demo_on_a_twin_of_its_own_release(port: Any) -> None:
    """Green on other weights, said to be a twin's, and the port's own record is untouched."""
    kept = port.root / ".fvport" / "evidence" / "tiny_wan" / "parity.json"
    before = kept.read_bytes()
    ran = port.fvport("check", "parity", "transformer", "--scale", "tiny", "--json")
    found = ran.json()
    assert (ran.code, found["verdict"], found["scale"]) == (0, "pass", "tiny"), ran.out
    assert "on a tiny twin" in found["notes"][0]
    assert kept.read_bytes() == before
    assert port.fvport("check", "keys", "--scale", "tiny", "--json").json()["scale"] == "tiny"
    twin = port.root / ".fvport" / "tiny" / "tests" / "local_tests" / "tiny_wan" / "port.lock.json"
    own = port.root / "tests" / "local_tests" / "tiny_wan" / "port.lock.json"
    assert json.loads(twin.read_text())["components"] != json.loads(own.read_text())["components"]
