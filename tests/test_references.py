# SPDX-License-Identifier: Apache-2.0
"""References: what counts as one, who may make one, where it lies, and what is said of a store that is not in order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.media import people, port_references
from fvport.media import references as refs
from fvport.media.references import Key
from fvport.media.store import Store

CALL = {"prompt": "a fox", "seed": 0}
KEY = Key("default", "NVIDIA H200", "tiny_wan", "TORCH_SDPA", "a fox", 0)


def video(shift: int = 0) -> np.ndarray:
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 200, 48, dtype=np.uint8)
    for i in range(3):
        frames[i, 4 + 2 * i + shift : 14 + 2 * i + shift, 8:20] = 250
    return frames


def drafted(store: Store, key: Key = KEY, shift: int = 0, **origin: Any) -> refs.Entry:
    told = {"producer": "port", "call": CALL, "versions": {"torch": "2"}, "commit": "abc", **origin}
    return refs.write_draft(store, key, {"frames": video(shift)}, (".mp4", b"a video %d" % shift), told)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same store as a folder and behind an fsspec address."""
    if request.param == "folder":
        yield Store("references/", tmp_path)
        return
    import fsspec

    yield Store(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


def test_a_draft_counts_for_nothing_until_somebody_promotes_it(store: Store) -> None:
    """Missing, then a draft, then a reference with name and day; the draft is gone."""
    with pytest.raises(BlockedError, match="no reference"):
        refs.load(store, KEY, CALL)
    draft = drafted(store)
    assert draft.draft
    with pytest.raises(BlockedError, match="draft"):
        refs.load(store, KEY, CALL)
    with pytest.raises(UsageError, match="--by"):
        refs.promote(draft, " ", "2026-11-22")
    refs.promote(draft, "alice", "2026-11-22")
    found = refs.load(store, KEY, CALL)
    assert (found.told.approved_by, found.told.approved_on, found.told.commit) == ("alice", "2026-11-22", "abc")
    assert found.told.kind == "approved"
    assert (np.stack(list(found.frames())) == video()).all()
    assert store.find(refs.DRAFTS) == []
    assert refs.verify(store) == []


def test_a_reference_is_replaced_only_by_a_promotion_that_says_why(store: Store) -> None:
    """A second draft never takes its place by itself; with a reason it does, and the old provenance is kept."""
    first = refs.promote(drafted(store), "alice", "2026-11-22", suite=True)
    second = drafted(store, shift=1)
    assert refs.load(store, KEY, CALL).told.digest == first.told.digest
    with pytest.raises(BlockedError, match="alice approved"):
        refs.promote(second, "bob", "2026-11-23", suite=True)
    assert refs.load(store, KEY, CALL).told.digest == first.told.digest
    refs.promote(second, "bob", "2026-11-23", suite=True, replace="new attention kernel")
    found = refs.load(store, KEY, CALL).told
    assert (found.approved_by, found.replaces, found.reason) == ("bob", first.told.digest, "new attention kernel")
    retired = [json.loads(store.read(name)) for name in store.find(refs.RETIRED)]
    assert [old["approved_by"] for old in retired] == ["alice"]
    assert store.read(f"{refs.TOP}/{KEY.suite_name('.mp4')}") == b"a video 1"
    assert refs.verify(store) == []


@pytest.mark.parametrize("top", ["draft", "reference"])
def test_changed_bytes_are_no_reference(store: Store, top: str) -> None:
    """A changed draft cannot be promoted; a changed reference is not read, and verify names the file."""
    entry = drafted(store)
    entry = refs.promote(entry, "alice", "2026-11-22") if top == "reference" else entry
    store.write(f"{entry.title}.safetensors", store.read(f"{entry.title}.safetensors")[:-1] + b"x")
    assert refs.verify(store) == [(f"{entry.title}.safetensors", "is not what its digest says")]
    with pytest.raises(BlockedError, match="digest"):
        refs.promote(entry, "bob", "2026-11-22") if top == "draft" else entry.frames()


def test_another_device_call_and_seed_have_no_reference(store: Store) -> None:
    """Each part of the key counts; a device of the same family is another device."""
    refs.promote(drafted(store), "alice", "2026-11-22")
    for change in ({"seed": 1}, {"backend": "FLASH_ATTN"}, {"tier": "full_quality"}, {"prompt": "a cat"}):
        with pytest.raises(BlockedError, match="no reference"):
            refs.load(store, dataclasses.replace(KEY, **change), CALL)
    with pytest.raises(BlockedError, match="made on NVIDIA H200, this is NVIDIA H200 NVL"):
        refs.load(store, dataclasses.replace(KEY, device="NVIDIA H200 NVL"), CALL)
    with pytest.raises(BlockedError, match="another call"):
        refs.load(store, KEY, {**CALL, "steps": 4})


def test_a_reference_without_an_approval_is_none(store: Store) -> None:
    """A file that somebody copied under reference_videos by hand is no reference, and verify says what it lacks."""
    entry = drafted(store)
    for suffix in (*entry.told.files, ".json"):
        store.write(f"{refs.TOP}/{entry.name}{suffix}", store.read(entry.title + suffix))
    with pytest.raises(BlockedError, match="nobody approved"):
        refs.load(store, KEY, CALL)
    assert any("lacks approved_by, approved_on" in problem for _, problem in refs.verify(store))


@pytest.mark.parametrize(
    ("device", "folder"),
    [
        ("NVIDIA GB200", "GB200_reference_videos"),
        ("NVIDIA B200", "B200_reference_videos"),
        ("NVIDIA H100 80GB HBM3", "H100_reference_videos"),
        ("NVIDIA L40S", "L40S_reference_videos"),
        ("NVIDIA GeForce RTX 5090", "NVIDIA_GeForce_RTX_5090_reference_videos"),
    ],
)
def test_folders_are_fastvideos(device: str, folder: str) -> None:
    """The folder that FastVideo's suite takes for a device; one that it does not know gets its own name."""
    assert refs.device_folder(device) == folder


def test_fastvideos_suite_finds_the_promoted_video(tmp_path: Path) -> None:
    """Where and how it looks: <tier>/<GPU>_reference_videos/<model>/<backend>, any name that holds the prompt."""
    store = Store("reference", tmp_path)
    prompt = "A fox runs through deep snow, " * 5
    for seed in (0, 1):
        key = dataclasses.replace(KEY, prompt=prompt, seed=seed)
        refs.promote(drafted(store, key), "alice", "2026-11-22", suite=seed == 0)
    folder = tmp_path / "reference/reference_videos/default/H200_reference_videos/tiny_wan/TORCH_SDPA"
    found = [
        path.name for path in folder.iterdir() if path.suffix in (".mp4", ".png") and prompt[:100].strip() in path.name
    ]
    assert found == [f"{prompt[:100].strip()}.mp4"]
    assert refs.verify(store) == []


def test_prompts_that_the_suite_cannot_tell_apart_are_said(store: Store) -> None:
    """The same first 100 characters are refused; one name within another, and an impossible name, are named."""
    long = "a" * 100
    refs.promote(drafted(store, dataclasses.replace(KEY, prompt=long + "x")), "alice", "2026-11-22", suite=True)
    with pytest.raises(UsageError, match="first 100 characters"):
        refs.promote(drafted(store, dataclasses.replace(KEY, prompt=long + "y")), "alice", "2026-11-22", suite=True)
    assert store.read(f"{refs.TOP}/{KEY.folder}/{long}.mp4") == b"a video 0"
    refs.promote(drafted(store), "alice", "2026-11-22", suite=True)
    refs.promote(drafted(store, dataclasses.replace(KEY, prompt="a fox runs")), "alice", "2026-11-22", suite=True)
    refs.promote(drafted(store, dataclasses.replace(KEY, prompt="day/night")), "alice", "2026-11-22", suite=True)
    problems = [problem for _, problem in refs.verify(store)]
    assert any("FastVideo's suite takes" in problem for problem in problems)
    assert any("name that no file can have" in problem for problem in problems)


def test_media_without_provenance_is_named_and_never_overwritten(store: Store) -> None:
    """A video that FastVideo's own tools put there stays as it is."""
    name = f"{refs.TOP}/{KEY.suite_name('.mp4')}"
    store.write(name, b"theirs")
    assert refs.verify(store) == [(name, "has no provenance: nobody knows who made or approved it")]
    with pytest.raises(BlockedError, match="without provenance"):
        refs.promote(drafted(store), "alice", "2026-11-22", suite=True)
    assert store.read(name) == b"theirs"


def test_what_people_see(store: Store) -> None:
    """list says who made and approved each, diff shows what a promotion would change, promote loses none."""
    assert "no reference" in people.listing(store).text()
    assert not people.verified(store).ok  # an empty store is not in order
    with pytest.raises(BlockedError, match="no draft"):
        people.promoted(store, [], "alice", False, "")
    drafted(store)
    assert people.differences(store, []).rows == [{"name": KEY.name, "reference": None}]
    with pytest.raises(UsageError, match="no such entry"):
        people.promoted(store, ["cat"], "alice", False, "")
    assert people.promoted(store, ["seed_0"], "alice", True, "").ok
    drafted(store, shift=2, commit="def")
    other = dataclasses.replace(KEY, seed=1)
    drafted(store, other)
    row = next(row for row in people.differences(store, []).rows if row["name"] == KEY.name)
    assert row["told"]["commit"] == ["abc", "def"]
    assert row["measures"]["ssim"]["worst"] < 0.95
    result = people.promoted(store, [], "bob", False, "")
    assert [(row["name"], row["promoted"]) for row in result.rows] == [(KEY.name, False), (other.name, True)]
    assert not result.ok
    states = {(row["name"], row["state"]) for row in people.listing(store).rows}
    assert states == {(KEY.name, "approved"), (KEY.name, "draft"), (other.name, "approved")}


def test_an_interrupted_draft_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft without its provenance is no entry, and no half-written file stays."""
    monkeypatch.setattr(refs.json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drafted(Store("r", tmp_path))
    assert refs.entries(Store("r", tmp_path)) == []
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("address", "words"),
    [("nosuch://bucket/refs", "nosuch"), ("memory2://x", "memory2"), ("file:///proc/none/x", "no such file")],
)
def test_a_store_that_is_not_there_is_one_sentence(address: str, words: str) -> None:
    """Another protocol, no network, no right: BlockedError, never a file system's own traceback."""
    with pytest.raises(BlockedError, match=words):
        Store(address).read("a")


def test_a_hub_dataset_is_an_address() -> None:
    """hf://datasets/ORG/NAME opens the hub's file system at that dataset, without asking the network for it."""
    fs, base = Store("hf://datasets/some-org/references")._fs()
    assert type(fs).__name__ == "HfFileSystem"
    assert base == "datasets/some-org/references"


# --- a port's store ---------------------------------------------------------------------------------------------------


def port(tmp_path: Path) -> Any:
    quality = SimpleNamespace(store="references/", tier="default")
    backend = SimpleNamespace(attention_backend="TORCH_SDPA")
    return SimpleNamespace(root=tmp_path, slug="tiny_wan", key="tiny_wan", quality=quality, fastvideo=backend)


def call(**change: Any) -> Any:
    told = {"name": "p0s0", "arguments": {"steps": 2}, "prompt": "a fox", "negative_prompt": "", "seed": 0, **change}
    return SimpleNamespace(**told)


def test_a_ports_draft_says_where_it_comes_from(tmp_path: Path) -> None:
    """Key, call, versions and the digest of each file; approved ones are inputs of the record, drafts are not."""
    (tmp_path / "a.mp4").write_bytes(b"media")
    origin = {"producer": "port", "versions": {"torch": "2"}}
    entry = port_references.draft(port(tmp_path), "A GPU", call(), {"frames": video()}, tmp_path / "a.mp4", origin)
    assert set(entry.told.files) == {".safetensors", ".mp4"}
    assert entry.told.call == {"steps": 2, "prompt": "a fox", "negative_prompt": "", "seed": 0}
    assert port_references.inputs(port(tmp_path)) == []
    refs.promote(entry, "alice", "2026-11-22")
    assert port_references.load(port(tmp_path), "A GPU", call()).told.approved_by == "alice"
    base = f"file:references/{refs.TOP}/{entry.name}"
    assert port_references.inputs(port(tmp_path)) == [f"{base}.safetensors", f"{base}.json"]
    with pytest.raises(BlockedError, match="no reference"):
        port_references.load(port(tmp_path), "Another GPU", call())


def old(tmp_path: Path, approved_by: str) -> Path:
    """An entry as the first version of the store wrote it."""
    import torch
    from safetensors.torch import save_file

    from fvport import evidence as ev

    file = tmp_path / "references" / "A_GPU" / "p0s0.safetensors"
    file.parent.mkdir(parents=True)
    save_file({"frames": torch.from_numpy(video())}, file)
    told = {"producer": "port", "call": port_references.told(call()), "versions": {}, "device": "A GPU"}
    told |= {"digest": ev.blake3(file.read_bytes()), "made": "2026-11-01", "approved_by": approved_by}
    file.with_suffix(".json").write_text(json.dumps(told | {"commit": "", "extra": {}}))
    return file


def test_the_older_layout_stays_readable(tmp_path: Path) -> None:
    """`<device>/<call>`: a draft blocks until it is promoted in its place, another call and changed bytes are none."""
    file = old(tmp_path, "")
    with pytest.raises(BlockedError, match="draft"):
        port_references.load(port(tmp_path), "A GPU", call())
    assert people.promoted(port_references.store_of(port(tmp_path)), [], "alice", False, "").ok
    entry = port_references.load(port(tmp_path), "A GPU", call())
    assert entry.told.approved_by == "alice"
    assert (np.stack(list(entry.frames())) == video()).all()
    base = "file:references/A_GPU/p0s0"
    assert port_references.inputs(port(tmp_path)) == [f"{base}.safetensors", f"{base}.json"]
    with pytest.raises(BlockedError, match="another call"):
        port_references.load(port(tmp_path), "A GPU", call(arguments={"steps": 3}))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(FvportError, match="digest"):
        port_references.load(port(tmp_path), "A GPU", call()).frames()
    assert not people.verified(port_references.store_of(port(tmp_path))).ok
