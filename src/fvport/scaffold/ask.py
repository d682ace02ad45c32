# SPDX-License-Identifier: Apache-2.0
"""`fvport new` without arguments on a terminal: asks what cannot be inferred, shows what it would write, writes.

Defaults come from the checkpoint that is named first. Nothing is written before the last yes; without a terminal nobody
is asked.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fvport.errors import FvportError, UsageError

Read = Callable[[str], str]
Say = Callable[[str], None]
MOST_SHOWN = 12  # files named one by one


def wanted(answers: list[str], no_input: bool, as_json: bool) -> bool:
    """Whether to ask: nothing was given, and a person sits at both ends."""
    return not (answers or no_input or as_json) and sys.stdin.isatty() and sys.stdout.isatty()


def answers(output_dir: Path, read: Read = input, say: Say = print) -> list[str]:
    """The answers as `key=value`, after the person saw what they make and said yes. UsageError for a no."""
    weights, name = _weights(read, say)
    given = [f"model_name={_one(read, 'Name of the model', name)}", f"official_weights={weights}"]
    given.append(f"gate_device={_choice(read, say, 'Device whose evidence opens the gate', ('cuda', 'cpu'))}")
    _show(given, output_dir, say)
    if _one(read, "Write it? (yes or no)", "yes").lower() not in ("y", "yes"):
        raise UsageError("nothing was written", todo="Run it again, or give the answers: fvport new --list")
    return given


def _weights(read: Read, say: Say) -> tuple[str, str]:
    """The official weights and a name for the model; asked again until something can be read there."""
    from fvport.weights import remote

    while True:
        weights = _one(read, "Official weights (a folder, a file, or a hub id)", "")
        if not weights:
            say("  A folder such as official/my_model, or a hub id such as ORG/MODEL. Ctrl-C leaves.")
            continue
        try:
            found = remote.inspect(weights)
        except FvportError as error:
            say(f"  {error}")
            continue
        kind = found.pipeline_class or "no pipeline class"
        say(f"  {found.layout} layout, {kind}: {', '.join(found.components) or 'no component found'}")
        return weights, name_of(weights)


def name_of(weights: str) -> str:
    """A name for people from the folder's or the hub id's last part: `wan2.1-t2v_1.3b` -> `Wan2.1 T2v 1.3b`."""
    words = re.split(r"[-_\s]+", Path(weights.rstrip("/")).name.removesuffix(".safetensors"))
    return " ".join(word[:1].upper() + word[1:] for word in words if word)


def _show(given: list[str], output_dir: Path, say: Say) -> None:
    """What these answers make, from a bake into a folder that is thrown away."""
    from fvport.scaffold import new

    with tempfile.TemporaryDirectory() as folder:
        baked = new.bake(given, output_dir=folder, no_input=True)
        say(f"This would write {len(baked.files)} files to {output_dir / baked.root.name}:")
        for name in baked.files[:MOST_SHOWN]:
            say(f"  {name}")
        if len(baked.files) > MOST_SHOWN:
            say(f"  ... and {len(baked.files) - MOST_SHOWN} more")
        for name, part in baked.summary["components"].items():
            say(f"  {name}: {part['mode'] if isinstance(part, dict) else part}")


def _one(read: Read, question: str, default: str) -> str:
    return read(f"{question}{f' [{default}]' if default else ''}: ").strip() or default


def _choice(read: Read, say: Say, question: str, words: tuple[str, ...]) -> str:
    while (word := _one(read, f"{question} ({' or '.join(words)})", words[0])) not in words:
        say(f"  {word} is none of {', '.join(words)}")
    return word
