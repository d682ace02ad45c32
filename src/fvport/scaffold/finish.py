# SPDX-License-Identifier: Apache-2.0
"""The last step of a bake, run by the hook: component files, the link to the checkpoint, next steps."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport import firststep

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

QUIET = "FVPORT_BAKE_QUIET"  # set by `fvport new`, which prints for itself


def payload(p: PortContext, package_path: Path) -> dict[str, Any]:
    """What the hook is handed: plain JSON values."""
    from fvport.scaffold import render

    return {
        "package_path": str(package_path),
        "checkpoint": str(p.checkpoint) if p.checkpoint else "",
        "weights": p.weights,
        "files": render.files(p),
        "summary": render.summary(p),
    }


def run(bake: dict[str, Any], root: Path) -> int:
    """Write `bake["files"]` under `root` and link the weights. Never overwrites another text, never deletes."""
    clashes = [name for name, text in bake["files"].items() if _differs(root / name, text)]
    if clashes:
        print(f"fvport: {', '.join(clashes)} exist with another content; nothing was overwritten", file=sys.stderr)
        return 1
    for name, text in bake["files"].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    if broken := unreadable(root):
        print(f"fvport: the template made Python that does not parse: {broken}; please report it", file=sys.stderr)
        return 1
    if bake["checkpoint"]:
        link(root / bake["weights"], Path(bake["checkpoint"]))
    if not os.environ.get(QUIET):
        print(next_steps(bake["summary"], root))
    return 0


def unreadable(root: Path) -> str:
    """`file:line: reason` of the first Python file below `root` that does not parse, or ''."""
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        try:
            compile(path.read_bytes(), name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return f"{name}:{getattr(error, 'lineno', 0)}: {getattr(error, 'msg', error)}"
    return ""


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") != text


def link(target: Path, checkpoint: Path) -> None:
    """`official_weights/<slug>` -> the local release. A file's link lies in a folder of that name."""
    if checkpoint.is_file():
        target = target / checkpoint.name
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(checkpoint, target_is_directory=checkpoint.is_dir())


def next_steps(summary: dict[str, Any], root: Path) -> str:
    """What was made, what was chosen, what is open, what to do now."""
    rows = [f"{summary['model']}: port in {root}", ""]
    width = max((len(name) for name in summary["components"]), default=0)
    for name, c in summary["components"].items():
        source = c["archetype"] or ("skeleton: to be written" if c["mode"] == "port" else "")
        rows.append(f"  {name:{width}}  {c['mode']:11}  {source}".rstrip())
    if not _owned(summary):
        rows += ["", "No native code is written: FastVideo has every class. A component of the port's own is made by"]
        rows.append("fvport new ... components=NAME=port (several: components=NAME=port,NAME=port).")
    for title, key in (("Chosen", "inferred"), ("Not known", "unknown"), ("To decide", "decisions")):
        if summary[key]:
            rows += ["", f"{title}:", *(f"  - {text}" for text in summary[key])]
    if lines := list(firststep.marked(root, firststep.texts_below(root))):
        rows += ["", f"Marked {firststep.DECIDE}, for you to write ({len(lines)}):", *(f"  - {line}" for line in lines)]
    return "\n".join([*rows, "", "Next:", *_commands(summary, root)])


def _owned(summary: dict[str, Any]) -> list[str]:
    """Components whose code is the port's own; only their mapping has rules to sign."""
    return [name for name, c in summary["components"].items() if c["mode"] == "port"]


def _commands(summary: dict[str, Any], root: Path) -> list[str]:
    """What to type now, each with what it does where the words do not say it."""
    found = [(f"cd {root}", "")]
    if not os.environ.get("FVPORT_ENV"):
        here = sys.prefix if importlib.util.find_spec("fastvideo") else "path/to/an/environment"
        found.append((f"export FVPORT_ENV={here}", "where FastVideo is installed: checks run there"))
    if summary["needs_conversion"]:
        found += [("nox -s prep", "weights locked"), ("fvport convert", "the release in Diffusers layout, verified")]
        found.append(("nox -s workspace", "an isolated FastVideo tree"))
    else:
        found.append(("nox -s prep workspace", "weights locked, an isolated FastVideo tree"))
    if _owned(summary):
        found.append(("fvport mapping review", 'read the rules; sign them with --sign "YOUR NAME"'))
    found += [
        ("nox -s mapping keys parity", ""),
        ("fvport status", "at any time: the one thing to do next"),
    ]
    width = max(len(command) for command, _ in found[1:])
    return [f"  {command:{width}}  # {why}" if why else f"  {command}" for command, why in found]
