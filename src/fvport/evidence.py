# SPDX-License-Identifier: Apache-2.0
"""The record that a check leaves, and the digests that tell whether it still speaks of this tree.

A record names every input it was made from with a digest. `gate` recomputes each digest by the input's name, so nothing
is trusted but the tree itself. Names are addresses:

    port:<section>       canonical form of a section of port.toml, such as `port:components.vae` (with its signature)
    file:<path>          one file of the port; `absent` when it is not there
    tree:<folder>        all `*.py` and data files under a folder, by relative path and content
    prose:<path>         a Markdown file of the port without what `fvport plan --sync` writes into it
    weights:<component>  the component's entry in port.lock.json; another digest where the official files are not those
    package:<name>       an installed distribution's version, or for `fvport` its own sources
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import UsageError
from fvport.spec import Port

SCHEMA = 1
VERDICTS = ("pass", "fail", "blocked")
STATUS = {"pass": "non_skip_pass", "fail": "debug_red", "blocked": "blocked"}  # FastVideo's own words


@dataclass
class Item:
    """One thing that was compared. `name` starts with the component where there is one: `transformer: rules`."""

    name: str
    verdict: str
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, Any] = field(default_factory=dict)
    component: str = ""
    todo: str = ""


@dataclass
class Evidence:
    """What a check leaves under `.fvport/evidence/<slug>/<check>.json`, a variant's in a folder of its own there."""

    check: str
    port: str
    items: list[Item] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a reviewer should look at; never decides
    artifacts: list[str] = field(default_factory=list)  # relative to the port's root
    device: dict[str, str] = field(default_factory=lambda: {"kind": "none", "name": _machine()})
    scale: str = "full"
    environment: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = True
    origin: dict[str, str] = field(default_factory=dict)  # run, commit and image of CI; empty on a laptop
    started: str = ""
    seconds: float = 0.0
    variant: str = ""  # of which variant of the port; '' for the base
    schema: int = SCHEMA

    @property
    def verdict(self) -> str:
        """fail if anything failed; blocked if anything did not run, or if nothing was compared at all; else pass."""
        verdicts = {item.verdict for item in self.items}
        if "fail" in verdicts:
            return "fail"
        if not verdicts or verdicts != {"pass"}:
            return "blocked"
        return "pass"

    @property
    def status(self) -> str:
        return STATUS[self.verdict]

    def to_json(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        head = {"schema": data.pop("schema"), "check": self.check, "port": self.port}
        record = {**head, "verdict": self.verdict, "status": self.status, **data}
        return {**record, "seal": seal(record)}


def seal(record: dict[str, Any]) -> str:
    """Digest of a record's other fields: an edit by hand, or a cut file, shows.

    It is no signature: whoever can run this function can seal a forgery. What stops a forger is that a runner makes the
    evidence again, on a tree that reviewers read.
    """
    plain = json.loads(json.dumps(record))  # as it will be read back: tuples become lists, number keys become strings
    return blake3(canonical({key: value for key, value in plain.items() if key != "seal"}))


def folder(port: Port) -> Path:
    home = port.root / ".fvport" / "evidence" / port.slug
    return home / port.variant if port.variant else home


def place(port: Port, check: str, kept: str = "") -> Path:
    """Where a check's record lies; with `kept`, such as ".before", where one that no gate reads was put by."""
    return folder(port) / f"{check}{kept or '.json'}"


def write(port: Port, evidence: Evidence, kept: str = "") -> Path:
    """Write the record beside its place and rename: an interrupted run leaves the old record or none, never half."""
    path = place(port, evidence.check, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(
            json.dumps(evidence.to_json(), indent=1, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8"
        )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read(port: Port, check: str, kept: str = "") -> Evidence | None:
    """The record of a check, or None when there is none. A record that is not one of ours raises UsageError."""
    path = place(port, check, kept)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"is not a record ({error})", where=str(path), todo=f"Run: fvport check {check}") from None
    return from_json(data, path)


def from_json(data: dict[str, Any], path: Path | str = "evidence") -> Evidence:
    """Build the record; a verdict that does not follow from its items is refused (a hand-edited file)."""
    todo = "Delete it and run the check again"
    try:
        fields = {f.name for f in dataclasses.fields(Evidence)}
        extra = set(data) - fields - {"verdict", "status", "seal"}
        if data["schema"] != SCHEMA or extra:
            raise KeyError(f"schema {data['schema']}" if not extra else f"unknown field {min(extra)}")
        items = [Item(**item) for item in data["items"]]
        evidence = Evidence(**{k: v for k, v in data.items() if k in fields and k != "items"}, items=items)
        bad = next((item.verdict for item in items if item.verdict not in VERDICTS), None)
        if bad:
            raise KeyError(f"verdict {bad!r}")
    except (KeyError, TypeError) as error:
        raise UsageError(f"is not a record of this version ({error})", where=str(path), todo=todo) from None
    if data.get("seal") != seal(data):
        raise UsageError("was changed after it was written (its seal does not fit)", where=str(path), todo=todo)
    if evidence.verdict != data.get("verdict") or evidence.status != data.get("status"):
        raise UsageError(
            f'says "{data.get("verdict")}" but its items say "{evidence.verdict}"', where=str(path), todo=todo
        )
    return evidence


# --- digests ---------------------------------------------------------------------------------------------------------


def blake3(data: bytes) -> str:
    import blake3 as b3

    return f"blake3:{b3.blake3(data).hexdigest()}"


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: the same bytes however a tool laid out the file."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def digest(port: Port, name: str) -> str:
    """The digest of one input as it is now. An input that is gone has the digest `absent`."""
    scheme, _, rest = name.partition(":")
    if scheme == "port":
        value: Any = port.raw
        for key in rest.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return "absent" if value is None else blake3(canonical(value))
    if scheme == "file":
        path = port.root / rest
        return blake3(path.read_bytes()) if path.is_file() else "absent"
    if scheme == "prose":
        path = port.root / rest
        return blake3(prose(path.read_text(**_TEXT)).encode(**_TEXT)) if path.is_file() else "absent"
    if scheme == "tree":
        return _tree_digest(port.root / rest)
    if scheme == "weights":
        return _weights_digest(port, rest)
    if scheme == "package":
        return package_digest(rest)
    if scheme == "shared":
        from fvport import variants  # which reads records

        return blake3(canonical(variants.shared(port)))
    raise UsageError(f'unknown input "{name}" in a record')


def _weights_digest(port: Port, component: str) -> str:
    """The lock's entry, which is what the files are; where they are others, the digest says which.

    A machine that only judges may have no weights at all: there the lock's word stands for them.
    """
    from fvport.weights import prep

    entry = lock(port).get("components", {}).get(component)
    if entry is None:
        return "absent"
    if port.official_weights.is_dir() and (differs := prep.difference(port, component)):
        return f"differs:{differs}"
    return blake3(canonical([entry, converted] if (converted := _conversion(port, component)) else entry))


def _conversion(port: Port, component: str) -> list[str]:
    """What else decides a converted component: its declaration, and the first file that was changed since."""
    if not port.official.needs_conversion:
        return []
    from fvport.weights import converter

    return converter.state(port, component)


_TEXT: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}  # any bytes, and each its own digest
GENERATED = re.compile(r"(<!-- fvport:begin ([\w-]+) -->\n)(.*?)(<!-- fvport:end \2 -->)", re.DOTALL)


def prose(text: str) -> str:
    """Markdown without its generated blocks and with every checkbox open: what people wrote."""
    return re.sub(r"^(\s*[-*] \[)[xX](\])", r"\1 \2", GENERATED.sub(r"\1\4", text), flags=re.MULTILINE)


def digests(port: Port, names: Iterable[str]) -> dict[str, str]:
    return {name: digest(port, name) for name in sorted(set(names))}


def lock(port: Port) -> dict[str, Any]:
    """port.lock.json as a dict, or {} when there is none yet."""
    path = port.lock_file
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"is not JSON ({error})", where=str(path), todo="Delete it and run: fvport prep") from None
    if not isinstance(data, dict) or not isinstance(data.get("components", {}), dict):
        raise UsageError("is not a lock of weights", where=str(path), todo="Delete it and run: fvport prep")
    return data


def _tree_digest(root: Path, skip: str = "__pycache__") -> str:
    import blake3 as b3

    if not root.is_dir():
        return "absent"
    total = b3.blake3()
    for folder, dirs, files in os.walk(root):
        dirs[:] = sorted(d for d in dirs if d not in ("__pycache__", skip) and not d.startswith("."))
        for name in sorted(files):
            if name.endswith((".pyc", ".pyo")):
                continue
            path = Path(folder, name)
            total.update(str(path.relative_to(root)).encode() + b"\0" + b3.blake3(path.read_bytes()).digest())
    return f"blake3:{total.hexdigest()}"


@functools.cache
def package_digest(name: str) -> str:
    """`name==version` of an installed distribution; for fvport the digest of its sources (a checkout changes)."""
    if name == "fvport":  # a wheel carries the template, which no check reads: the same digest as a checkout's
        return _tree_digest(Path(__file__).parent, skip="_template")
    from importlib import metadata

    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return "absent"


# --- the tree --------------------------------------------------------------------------------------------------------


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _machine() -> str:
    import platform

    return platform.machine()


def git_state(root: Path) -> tuple[str, bool]:
    """(commit, dirty) of the tree at `root`; ('', True) where it is no git tree."""
    import subprocess

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "", True
