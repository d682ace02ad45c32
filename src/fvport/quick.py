# SPDX-License-Identifier: Apache-2.0
"""`fvport inspect PATH [--json]` and `fvport status [--port DIR] [--json]` without the command tree: building the tree
costs more than reading 100 GB's headers, or than judging a port's records.

Only these exact forms are answered here; all else, `--help` and mistakes too, goes the usual way and says the same.
"""

from __future__ import annotations

from pathlib import Path


def answered(words: list[str]) -> bool:
    """Whether the command line was answered. FvportError as from the verb."""
    as_json, rest = "--json" in words, [word for word in words[1:] if word != "--json"]
    if words[:1] == ["inspect"] and len(rest) == 1 and not rest[0].startswith("-"):
        print(inspect(rest[0], "main", as_json))
        return True
    if words[:1] == ["status"] and (folder := _folder(rest)) is not None:
        print(status(folder, as_json))
        return True
    return False


def inspect(where: str, revision: str, as_json: bool) -> str:
    """What a release holds, from its headers, and what a bake would make of it."""
    from fvport.weights import remote

    found = remote.inspect(where, revision)
    if as_json:
        return found.shown(True, where)
    from fvport.scaffold import native_side

    return found.shown(False, where, native_side.text(found))


def status(folder: Path, as_json: bool) -> str:
    """Where the port stands and the one thing to do next, as text or as JSON."""
    import json

    from fvport import gate, spec
    from fvport.report import terminal

    verdict = gate.decide(spec.load(folder))
    if as_json:
        return json.dumps({"verdict": verdict.verdict, "next": verdict.next_step}, indent=1)
    return terminal.status(verdict)


def _folder(words: list[str]) -> Path | None:
    """The folder of no word, `--port DIR` or `--port=DIR`; None for anything else."""
    if not words:
        return Path(".")
    if len(words) == 1 and words[0].startswith("--port="):
        words = words[0].split("=", 1)
    return Path(words[1]) if len(words) == 2 and words[0] == "--port" and not words[1].startswith("-") else None
