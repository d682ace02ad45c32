# SPDX-License-Identifier: Apache-2.0
"""The prep handoff block, and the same facts as generated blocks of PORT_STATUS.md and README.md."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.redact import token_name
from fvport.report import handoff_facts as facts
from fvport.report.handoff_facts import Block, unknown
from fvport.spec import Port
from fvport.verdict import Verdict
from fvport.weights import show


def block(port: Port, verdict: Verdict) -> Block:
    """Every field of FastVideo's prep_handoff; a token is the name of the variable that holds it."""
    reference, folder, commit = facts.ref(port)
    index = facts.index(port, port.official_weights)
    status, changes = environment(port, verdict)
    return {
        "model_family": port.slug,
        "workload_types": list(port.port.workload_types),
        "official_ref": reference,
        "official_ref_dir": folder,
        "official_ref_commit": commit,
        "hf_weights_path": weights_path(port),
        "hf_revision": revision(port),
        "local_weights_dir": facts.rel(port, port.official_weights),
        "source_layout": port.official.layout,
        "model_index_class": index.get("_class_name") or unknown(f"{port.official.weights}/model_index.json"),
        "components_seen": [key for key in index if not key.startswith("_")] or list(port.components),
        "needs_conversion": "yes" if port.official.needs_conversion else "no",
        "hf_token_env": token_name() or "none set",
        "dependency_changes": changes,
        "official_env_status": status,
        **facts.state_files(port),
        "gitignore_entries_added": ignored(port),
        "next_step": verdict.next_step,
        "open_questions": facts.open_questions(port),
        "escape_hatch": facts.escape(port, verdict),
    }


def _source(port: Port) -> dict[str, Any]:
    found = ev.lock(port).get("source")
    return found if isinstance(found, dict) else {}


def weights_path(port: Port) -> str:
    source = _source(port)
    if source.get("kind") == "local":
        return f"none (the local folder {source['folder']}, recorded in place)"
    lock = ev.lock(port)
    return source.get("id") or lock.get("hub_id") or unknown("port.lock.json")


def revision(port: Port) -> str:
    """The revision as port.toml says it, and the commit that it was when it was fetched."""
    commit = _source(port).get("commit")
    said = port.official.revision
    return f"{said} ({commit})" if commit and commit != said else said


def environment(port: Port, verdict: Verdict) -> tuple[str, Any]:
    """(official_env_status, dependency_changes), from the last import check that still speaks of this tree."""
    from fvport.models import official_import

    found = official_import.remembered(port)
    changes: list[str] = []
    if port.official.requirements:
        changes.append(f"the oracle alone: .fvport/oracle-env from {port.official.requirements}")
    if found is not None:
        stubs = [name for name in found.modules if found.helper]
        changes += [f"stand-ins for {', '.join(stubs)}: {found.helper}"] if stubs else []
        return found.status, changes or "none"
    parity = verdict.row("parity")
    ran = parity is not None and parity.record is not None and parity.record.verdict == "pass"
    return "imports_ok" if ran else unknown(".fvport/prep.json (fvport prep)", "evidence of parity"), changes or "none"


def ignored(port: Port) -> list[str] | str:
    """The lines of the repository's own exclude file that keep the port's assets out of commits."""
    from fvport.workspace import git, tree

    if git.top_level(port.root) != port.root.resolve():
        return "none yet: the port lies in no git tree of its own (fvport workspace adds them)"
    path = Path(os.fsdecode(git.run(port.root, "rev-parse", "--git-path", "info/exclude").stdout.rstrip(b"\n")))
    path = path if path.is_absolute() else port.root / path
    there = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    found = [line for line in tree.excluded(port) if line in there]
    return [f".git/info/exclude: {line}" for line in found] or "none (fvport prep adds them)"


# --- generated blocks of the port's Markdown -------------------------------------------------------------------------


def write(port: Port) -> list[str]:
    """Fill the blocks `prep` and `environment` of PORT_STATUS.md and README.md; gives the files that changed.

    Everything else in them stays as it is. A file that cannot be written is left alone: a tree may be read-only.
    """
    from fvport import gate
    from fvport.report import plan

    verdict, rows = gate.decide(port), {"prep": status_rows, "environment": environment_rows}

    def fill(found: re.Match[str]) -> str:
        if found[2] not in rows:
            return found[0]
        return found[1] + plan.table(("item", "value"), rows[found[2]](port, verdict)) + found[4]

    changed = []
    for name in ("PORT_STATUS.md", "README.md"):
        path = port.folder / name
        old = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
        new = ev.GENERATED.sub(fill, old)
        if new != old:
            part = path.with_name(f".{name}.{os.getpid()}.part")
            with contextlib.suppress(OSError):
                part.write_text(new, encoding="utf-8", errors="surrogateescape")
                os.replace(part, path)
                changed.append(facts.rel(port, path))
            part.unlink(missing_ok=True)
    return changed


def status_rows(port: Port, verdict: Verdict) -> list[tuple[str, str]]:
    """What PORT_STATUS.md says of the official side."""
    reference, folder, commit = facts.ref(port)
    lock = ev.lock(port)
    entries = [entry for entry in lock.get("components", {}).values() if isinstance(entry, dict)]
    hashed = [f for e in entries for f in e.get("files", []) if isinstance(f, dict) and f.get("blake3")]
    total = sum(file["size"] for file in hashed)
    return [
        ("official_ref", reference),
        ("official_ref_dir", folder),
        ("official_ref_commit", commit),
        ("weights", weights_path(port)),
        ("revision", revision(port)),
        ("locked", f"{len(hashed)} files, {show.size(total)}" if hashed else "not yet: fvport prep"),
        ("official_env_status", environment(port, verdict)[0]),
    ]


def environment_rows(port: Port, verdict: Verdict) -> list[tuple[str, str]]:
    """What README.md says of the environment that the official side is imported in."""
    from fvport.models import official_import

    found = official_import.remembered(port)
    if found is None:
        return [("status", "not checked on this tree: fvport prep")]
    rows = [("status", found.status), ("Python", found.python)]
    rows += [(name, version or "no version") for name, (version, _) in found.versions.items()]
    rows += [(f"missing: {entry['module']}", f"imported at {entry['where']}") for entry in found.missing]
    rows += [(f"stood in for: {name}", found.helper) for name in found.stood_in]
    rows += [(f"fails: {entry['target']}", entry["words"]) for entry in found.problems]
    return rows + [(f"only when called: {entry['module']}", entry["where"]) for entry in found.late]
