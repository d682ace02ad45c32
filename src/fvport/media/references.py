# SPDX-License-Identifier: Apache-2.0
"""References of a port, each with who made it, from what, with which versions, and who approved it.

    reference_videos/<tier>/<GPU>_reference_videos/<model>/<backend>/<prompt>.mp4       what FastVideo's suite reads
    reference_videos/<tier>/<GPU>_reference_videos/<model>/<backend>/seed_<n>/<name>.*  the entry: lossless, provenance
    drafts/<the same>                                                                   not approved: counts for nothing
    retired/<the same>/<digest>.json                                                    provenance of what was replaced

A reference that is missing, a draft, or not what its digest says is no reference. Only a promotion makes one, and only
a promotion that says so replaces one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError
from fvport.media.frames import Stored
from fvport.media.store import Store

TOP, DRAFTS, RETIRED = "reference_videos", "drafts", "retired"
TIERS = ("default", "full_quality")
SUFFIX = "_reference_videos"
DEVICES = ("A40", "L40S", "H100", "H200", "GB200", "B200")  # FastVideo's folders; GB200 before B200, which it contains
KINDS = ("official", "approved")
CHANGED = ("the reference is not what its digest says",)
SUITE = (".mp4", ".png", ".jpg", ".jpeg")  # what FastVideo's suite looks at in a folder


@dataclass(frozen=True)
class Key:
    """What a reference is for. `device`: the exact name that the driver or the system gives."""

    tier: str
    device: str
    model: str
    backend: str
    prompt: str
    seed: int

    @property
    def folder(self) -> str:
        """FastVideo's folder, relative to reference_videos/ or drafts/."""
        return "/".join((self.tier, device_folder(self.device), plain(self.model), plain(self.backend)))

    @property
    def name(self) -> str:
        """The entry's name under the top, without suffix; the hash tells prompts with one beginning apart."""
        digest = hashlib.sha256(self.prompt.encode()).hexdigest()[:8]
        return f"{self.folder}/seed_{self.seed}/{plain(self.prompt)[:48].strip()}-{digest}"

    def suite_name(self, suffix: str) -> str:
        """The file in which FastVideo's own suite looks for this prompt (it knows one seed)."""
        return f"{self.folder}/{suite_stem(self.prompt)}{suffix}"


@dataclass(frozen=True)
class Provenance:
    """Where a reference comes from. `approved_by` is empty for a draft, which counts for nothing."""

    producer: str  # official | port
    call: dict[str, Any]
    versions: dict[str, str]
    device: str
    digest: str  # of the lossless frames or sound
    made: str
    approved_by: str = ""
    commit: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    key: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # suffix -> digest
    approved_on: str = ""
    replaces: str = ""  # digest of the reference before it
    reason: str = ""  # of the replacement

    @property
    def kind(self) -> str:
        """official: made by the official pipeline (alignment). approved: made by this port earlier (regression)."""
        return "official" if self.producer == "official" else "approved"


@dataclass(frozen=True)
class Entry:
    """One reference or draft in a store. `name`: under the top (drafts/ or reference_videos/), without suffix."""

    store: Store
    top: str
    name: str
    told: Provenance

    @property
    def draft(self) -> bool:
        return self.top == DRAFTS or not self.told.approved_by

    @property
    def key(self) -> Key:
        return Key(**self.told.key)

    @property
    def title(self) -> str:
        return f"{self.top}/{self.name}" if self.top else self.name

    def lossless(self) -> bytes:
        """The safetensors file: `frames` uint8 (time, height, width, 3) and/or `audio` float32 (channels, samples)."""
        data = self.store.read(f"{self.title}.safetensors")
        if ev.blake3(data) != self.told.digest:
            raise BlockedError(*CHANGED, where=self.title, todo="Restore it, or make it again")
        return data

    def frames(self) -> Iterable[Any]:
        """uint8 frames (height, width, 3), again and again: streamed from a local store, held from another."""
        file = self._local()
        return Stored(file) if file else self.tensors()["frames"].numpy()

    def names(self) -> list[str]:
        """frames, audio or both."""
        from safetensors import safe_open

        file = self._local()
        if file is None:
            return sorted(self.tensors())
        with safe_open(file, "np") as held:
            return sorted(held.keys())

    def _local(self) -> Path | None:
        """The lossless file, where the store is a folder and the file is what its digest says."""
        import blake3

        if self.store.folder is None:
            return None
        file = self.store.folder / f"{self.title}.safetensors"
        if not file.is_file():
            raise BlockedError("the reference's frames are not there", where=self.title, todo="Restore them")
        if f"blake3:{blake3.blake3().update_mmap(file).hexdigest()}" != self.told.digest:
            raise BlockedError(*CHANGED, where=self.title, todo="Restore it, or make it again")
        return file

    def tensors(self) -> dict[str, Any]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return dict(load(self.lossless()))
        except SafetensorError as error:
            raise BlockedError(f"the reference cannot be read ({error})", where=self.title) from None


def plain(text: str) -> str:
    """As FastVideo cleans a part of a file's name: what a path cannot hold is left out, blanks become one."""
    return re.sub(r"\s+", " ", re.sub(r'[\\/:*?"<>|\x00-\x1f]', "", text).strip().strip(".")) or "output"


def suite_stem(prompt: str) -> str:
    return plain(prompt[:100].strip())


def device_folder(device: str) -> str:
    """FastVideo's folder of this device; a device that it has none for gets its whole name."""
    short = next((name for name in DEVICES if name in device), "")
    return (short or re.sub(r"[^A-Za-z0-9.-]+", "_", device).strip("_") or "unknown") + SUFFIX


def write_draft(
    store: Store, key: Key, tensors: dict[str, Any], media: tuple[str, bytes] | None, origin: dict[str, Any]
) -> Entry:
    """A draft of the tensors and of the written file (suffix, bytes). A draft that is there is replaced.

    `origin`: producer, call, versions, commit of Provenance.
    """
    import torch
    from safetensors.torch import save

    if key.tier not in TIERS:
        raise UsageError(f'the quality tier must be {" or ".join(TIERS)}, is "{key.tier}"')
    data = save({name: torch.as_tensor(value).contiguous() for name, value in tensors.items()})
    files = {".safetensors": data, **({media[0]: media[1]} if media else {})}
    digests = {suffix: ev.blake3(content) for suffix, content in files.items()}
    told = Provenance(
        **origin,
        device=key.device,
        digest=digests[".safetensors"],
        made=ev.now(),
        key=dataclasses.asdict(key),
        files=digests,
    )
    _put(store, f"{DRAFTS}/{key.name}", told, files)
    return Entry(store, DRAFTS, key.name, told)


def _put(store: Store, title: str, told: Provenance, files: dict[str, bytes]) -> None:
    """Files first, provenance last: until it is there, the old digest refuses the new files."""
    for suffix, content in files.items():
        store.write(title + suffix, content)
    text = json.dumps(dataclasses.asdict(told), indent=1, default=str) + "\n"
    store.write(f"{title}.json", text.encode())


def entries(store: Store) -> list[Entry]:
    """Every entry that has provenance, references before drafts, by name."""
    found = []
    for top in (TOP, DRAFTS):
        for name in store.find(top):
            if name.endswith(".json") and "/seed_" in name:
                found.append(_entry(store, top, name[len(top) + 1 : -len(".json")]))
    return found


def _entry(store: Store, top: str, name: str) -> Entry:
    try:
        held = json.loads(store.read(f"{top}/{name}.json"))
        return Entry(store, top, name, Provenance(**held))
    except (ValueError, TypeError) as error:
        todo = "Make it again: fvport check ssim --bootstrap"
        raise BlockedError(f"has no readable provenance ({error})", where=f"{top}/{name}", todo=todo) from None


def load(store: Store, key: Key, call: dict[str, Any]) -> Entry:
    """The promoted reference of this key and call. BlockedError says what is wrong with it, or that there is none."""
    title = f"{TOP}/{key.name}"
    if not store.exists(f"{title}.json"):
        draft = store.exists(f"{DRAFTS}/{key.name}.json")
        what = "the reference is a draft that nobody approved" if draft else "no reference for this device and call"
        todo = "Look at it, then: fvport references promote --by NAME" if draft else "fvport check ssim --bootstrap"
        raise BlockedError(what, where=f"{DRAFTS if draft else TOP}/{key.name}", todo=todo)
    found = _entry(store, TOP, key.name)
    if not found.told.approved_by:
        raise BlockedError(
            "nobody approved this reference", where=title, todo="Put it back under drafts/ and promote it"
        )
    if found.told.device != key.device:
        what = f"the reference was made on {found.told.device}, this is {key.device}"
        raise BlockedError(what, where=title, todo="Make one for this device: fvport check ssim --bootstrap")
    if ev.canonical(found.told.call) != ev.canonical(call):
        raise BlockedError("the reference was made by another call", where=title, todo="Make it again: --bootstrap")
    return found


def promote(entry: Entry, by: str, on: str, *, suite: bool = False, replace: str = "") -> Entry:
    """Make a draft the reference. `suite`: this is the seed that FastVideo's own suite generates.

    A reference that is there is replaced only with a reason; its provenance is kept under retired/.
    """
    if not by.strip():
        raise UsageError("a reference needs a person who approves it", where="--by")
    if not entry.draft:
        raise UsageError("is a reference already", where=entry.title)
    store, told = entry.store, entry.told
    if entry.top != DRAFTS:  # the older layout, where a draft lies in its place
        entry.lossless()
        told = dataclasses.replace(told, approved_by=by, approved_on=on)
        _put(store, entry.title, told, {})
        return Entry(store, entry.top, entry.name, told)
    files = {suffix: store.read(entry.title + suffix) for suffix in told.files}
    for suffix, content in files.items():
        if ev.blake3(content) != told.files[suffix]:
            raise BlockedError(
                "the draft is not what its digest says", where=entry.title + suffix, todo="Make it again"
            )
    before = _entry(store, TOP, entry.name) if store.exists(f"{TOP}/{entry.name}.json") else None
    if before and before.told.digest != told.digest and not replace.strip():
        what = f"a reference that {before.told.approved_by} approved on {before.told.approved_on} is here already"
        todo = "Look at the difference (fvport references diff), then promote with --replace REASON"
        raise BlockedError(what, where=before.title, todo=todo)
    media = next(((suffix, data) for suffix, data in files.items() if suffix in SUITE), None)
    if suite and media:
        _suite_file(entry, media, before)
    if before:
        told = dataclasses.replace(told, replaces=before.told.digest, reason=replace)
        retired = f"{RETIRED}/{entry.name}/{before.told.digest.partition(':')[2][:16]}.json"
        store.write(retired, store.read(f"{before.title}.json"))
    told = dataclasses.replace(
        told, approved_by=by, approved_on=on, extra={**told.extra, "suite": suite and bool(media)}
    )
    _put(store, f"{TOP}/{entry.name}", told, files)
    for suffix in (*files, ".json"):
        store.remove(entry.title + suffix)
    return Entry(store, TOP, entry.name, told)


def _suite_file(entry: Entry, media: tuple[str, bytes], before: Entry | None) -> None:
    """The copy that FastVideo's suite reads. UsageError where another prompt has it already."""
    suffix, data = media
    name = entry.key.suite_name(suffix)
    for other in entries(entry.store):
        same = other.top == TOP and other.told.extra.get("suite") and other.key.suite_name(suffix) == name
        if same and other.name != entry.name:
            what = "FastVideo's suite cannot tell this prompt from another one: their first 100 characters are the same"
            raise UsageError(what, where=other.title, todo="Promote without --suite, or change a prompt")
    there = entry.store.exists(f"{TOP}/{name}") and not (before and before.told.extra.get("suite"))
    if there and ev.blake3(entry.store.read(f"{TOP}/{name}")) != ev.blake3(data):
        what = "a reference of FastVideo's own suite is here already, without provenance"
        raise BlockedError(what, where=f"{TOP}/{name}", todo="Remove it yourself first, or promote without --suite")
    entry.store.write(f"{TOP}/{name}", data)


def foreign(store: Store) -> list[str]:
    """Media that FastVideo's suite would take and that no entry here answers for."""
    own = {
        f"{TOP}/{entry.key.suite_name(suffix)}"
        for entry in entries(store)
        if entry.top == TOP and entry.told.extra.get("suite")
        for suffix in entry.told.files
    }
    return [
        name
        for top in (TOP, DRAFTS)
        for name in store.find(top)
        if PurePosixPath(name).suffix in SUITE and "/seed_" not in name and name not in own
    ]


def verify(store: Store) -> list[tuple[str, str]]:
    """(title, what is wrong with it) for everything that is no good reference; [] is a store in order."""
    wrong = []
    for entry in entries(store):
        for suffix, digest in entry.told.files.items():
            name = entry.title + suffix
            if not store.exists(name):
                wrong.append((name, "is not there"))
            elif ev.blake3(store.read(name)) != digest:
                wrong.append((name, "is not what its digest says"))
        if entry.told.key and entry.key.name != entry.name:
            wrong.append((entry.title, "lies under another name than its key has"))
        if entry.top == TOP:
            wrong += [(entry.title, problem) for problem in _unsound(entry)]
    shown = {name: suite_stem(entry.key.prompt) for entry in entries(store) for name in [entry.title] if entry.told.key}
    wrong += [(a, f"FastVideo's suite takes {b} for it: a name holds the other") for a, b in _ambiguous(store, shown)]
    return wrong + [(name, "has no provenance: nobody knows who made or approved it") for name in foreign(store)]


def _unsound(entry: Entry) -> list[str]:
    told = entry.told
    gaps = [name for name in ("approved_by", "approved_on", "commit", "versions", "device") if not getattr(told, name)]
    problems = [f"its provenance lacks {', '.join(gaps)}"] if gaps else []
    if told.extra.get("suite"):
        if entry.key.prompt[:100].strip() not in suite_stem(entry.key.prompt):
            problems.append("FastVideo's suite looks for a name that no file can have: change the prompt")
        suffix = next((suffix for suffix in told.files if suffix in SUITE), "")
        name = f"{TOP}/{entry.key.suite_name(suffix)}"
        if not entry.store.exists(name):
            problems.append("FastVideo's copy of it is not there")
        elif ev.blake3(entry.store.read(name)) != told.files[suffix]:
            problems.append("FastVideo's copy of it is another file")
    return problems


def _ambiguous(store: Store, shown: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs in one folder where FastVideo's look-up by part of a name finds the wrong file."""
    told = [entry for entry in entries(store) if entry.top == TOP and entry.told.extra.get("suite")]
    return [
        (a.title, b.title)
        for a in told
        for b in told
        if a is not b and a.key.folder == b.key.folder and a.key.prompt[:100].strip() in shown[b.title]
    ]
