# SPDX-License-Identifier: Apache-2.0
"""The references of one port: where its store is, which key a call has, and what the gate's records depend on.

An older layout stays readable: `<store>/<device>/<call>.safetensors` with its provenance beside it as `.json`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport import evidence as ev
from fvport.errors import BlockedError
from fvport.media import references as refs
from fvport.media.references import Entry, Key, Provenance
from fvport.media.store import Store

if TYPE_CHECKING:
    from fvport.parity.generation import Call
    from fvport.spec import Port

OLD = ""  # the top of the older layout


def store_of(port: Port) -> Store:
    return Store(port.quality.store, port.root)


def key_of(port: Port, device: str, call: Call) -> Key:
    """`device`: the record's device name. The model is the slug, as in the port's test in FastVideo's suite."""
    backend = port.fastvideo.attention_backend
    return Key(port.quality.tier, device, port.key, backend, call.prompt, call.seed)


def told(call: Call) -> dict[str, Any]:
    """What a reference says about its call; another call's reference is none."""
    return {**call.arguments, "prompt": call.prompt, "negative_prompt": call.negative_prompt, "seed": call.seed}


def load(port: Port, device: str, call: Call) -> Entry:
    """The approved reference of a call on this device, in either layout. BlockedError says what is wrong."""
    store, key = store_of(port), key_of(port, device, call)
    try:
        return refs.load(store, key, told(call))
    except BlockedError:
        old = _old(store, device, call.name)
        if old is None or store.exists(f"{refs.TOP}/{key.name}.json"):
            raise
    if not old.told.approved_by:
        todo = "Look at it, then: fvport references promote --by NAME"
        raise BlockedError("the reference is a draft that nobody approved", where=old.title, todo=todo)
    if ev.canonical(old.told.call) != ev.canonical(told(call)):
        raise BlockedError("the reference was made by another call", where=old.title, todo="Make it again: --bootstrap")
    return old


def draft(
    port: Port, device: str, call: Call, tensors: dict[str, Any], media: Path | None, origin: dict[str, Any]
) -> Entry:
    """Write a draft of a call's frames and sound, with the file that was written from them."""
    origin = {"commit": ev.git_state(port.root)[0], **origin}
    file = (media.suffix, media.read_bytes()) if media else None
    return refs.write_draft(store_of(port), key_of(port, device, call), tensors, file, {**origin, "call": told(call)})


def inputs(port: Port) -> list[str]:
    """The approved references in a local store, as names of a record's inputs; drafts count for nothing.

    A remote store is no input: a verdict is reached without a network. The record's figures name the digests instead.
    """
    store = store_of(port)
    if store.folder is None or not store.folder.is_dir():
        return []
    names = []
    for file in sorted(store.folder.rglob("*.json")):
        top = file.relative_to(store.folder).parts[0]
        if top in (refs.DRAFTS, refs.RETIRED) or not _approved(file):
            continue
        shown = os.path.relpath(file, port.root)
        names += [f"file:{Path(shown).with_suffix('.safetensors')}", f"file:{shown}"]
    return names


def old_entries(store: Store) -> list[Entry]:
    """Entries of the older layout, `<device>/<call>`."""
    found = []
    for name in store.find():
        parts = name.split("/")
        if len(parts) == 2 and name.endswith(".json") and store.exists(f"{name[:-5]}.safetensors"):
            entry = _old(store, parts[0], parts[1][:-5], cleaned=True)
            found += [entry] if entry else []
    return found


def _old(store: Store, device: str, call: str, cleaned: bool = False) -> Entry | None:
    folder = device if cleaned else re.sub(r"[^A-Za-z0-9.-]+", "_", device).strip("_")
    name = f"{folder}/{call}"
    if not store.exists(f"{name}.json"):
        return None
    try:
        held = json.loads(store.read(f"{name}.json"))
        return Entry(store, OLD, name, Provenance(**held))
    except (ValueError, TypeError) as error:
        todo = "Make it again: fvport check ssim --bootstrap"
        raise BlockedError(f"has no readable provenance ({error})", where=name, todo=todo) from None


def _approved(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("approved_by"))
    except (OSError, ValueError, AttributeError):
        return False
