# SPDX-License-Identifier: Apache-2.0
"""`fvport reuse`: asks both sides, proves aspect by aspect, keeps the proof; `plan --sync` writes it into the README.

The proof lies in `.fvport/reuse/<component>.json` with digests of all that it depends on. It is no check of the gate:
a reused class needs parity like any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.reuse import find as finding
from fvport.reuse import proof
from fvport.reuse.proof import Finding
from fvport.spec import Component, Port

Json = dict[str, Any]
LIMIT = 1200


@dataclass
class Proof:
    """The proof of one component against one native class."""

    component: str
    official: str
    native: str
    findings: list[Finding]
    inputs: dict[str, str]

    @property
    def reusable(self) -> bool:
        return proof.reusable(self.findings)

    def to_json(self) -> Json:
        return {
            "component": self.component,
            "official": self.official,
            "native": self.native,
            "reusable": self.reusable,
            "findings": [item.to_json() for item in self.findings],
            "inputs": self.inputs,
            "parity": "still required",
        }

    def text(self) -> str:
        lines = [f"{self.component}: {self.native} for {self.official}"]
        for item in self.findings:
            lines.append(f"  {item.verdict:8} {item.aspect}: {item.what}")
            lines += [f"           {detail}" for detail in item.details[:6]]
            lines += [f"           ... {len(item.details) - 6} more"] * (len(item.details) > 6)
        unknown = [item.aspect for item in self.findings if item.verdict == "unknown"]
        if self.reusable:
            said = f" Not shown: {', '.join(unknown)}." if unknown else ""
            seen = f"Nothing differs that shows without running it.{said}"
            lines.append(f"{seen} Parity is still required: fvport check parity {self.component}")
        else:
            differ = ", ".join(item.aspect for item in self.findings if item.verdict == "differs")
            lines.append(
                f"Not reusable as it is: {differ}. Port it (mode = port), or reuse another: fvport reuse --find"
            )
        return "\n".join(lines)


# --- find ------------------------------------------------------------------------------------------------------------


def find(port: Port | None, what: str, device: str = "auto") -> finding.Ranking:
    """The ranking for a component of a port, or for a component's folder (config.json and safetensors).

    UsageError for what is neither, BlockedError without the official weights' headers.
    """
    from fvport import fastvideo_api

    chosen = fastvideo_api.resolve_device(device)
    if port is not None and what in port.components:
        component = port.component(what)
        return finding.find(official_of(port, component), source_of(port, chosen))
    folder = Path(what).expanduser()
    if not folder.is_dir():
        known = f" (components: {', '.join(port.components)})" if port else ""
        raise UsageError(f"neither a component nor a folder{known}", where=what, todo="Name a component, or its folder")
    source = finding.installed()
    return finding.find(of_folder(folder, ""), source)


def source_of(port: Port, device: str) -> finding.Source:
    """The installed FastVideo where the port lies on a copy of it, else the port's own tree without its own classes."""
    if port.fastvideo.source == "wheel":
        return finding.installed()
    own = frozenset(c.native for c in port.components.values() if c.mode == "port")
    identity = ev.digest(port, "tree:fastvideo")
    return finding.of_tree(port.root, identity, port.state / "cache" / "reuse", own)


def official_of(port: Port, component: Component) -> finding.Official:
    if not component.has_weights:
        what = f"a {component.kind} has no tensors: there is nothing to rank by"
        raise UsageError(what, where=component.name, todo="Schedulers are compared by the config check")
    folder = port.official_tree / (component.weights or component.name)
    if not folder.is_dir():
        raise BlockedError(f"the official weights of {component.name} are not there", todo="Run: fvport prep")
    return of_folder(folder, component.official)


def of_folder(folder: Path, name: str) -> finding.Official:
    """Names and shapes from headers, class and config from config.json."""
    from fvport.weights import manifest

    headers = manifest.read_weights(folder).tensors
    if not headers:
        raise BlockedError("no safetensors file here", where=str(folder), todo="Give a component's folder")
    config = manifest.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    named = name or config.get("_class_name") or (config.get("architectures") or [folder.name])[0]
    return finding.Official(str(named), {key: info.shape for key, info in headers.items()}, config)


# --- the proof -------------------------------------------------------------------------------------------------------


def prove(port: Port, name: str, native: str = "", device: str = "auto") -> Proof:
    """The proof for a component against its native class, or against the candidate `native` (module:Class). Kept.

    Raises UsageError where there is no class to compare with, BlockedError without weights or workspace, FvportError
    where a side cannot be built.
    """
    component = port.component(name)
    wanted = native or (component.native if component.mode == "reuse" else "")
    if not wanted or ":" not in wanted:
        what = f"{name} has mode = {component.mode}: there is no class of FastVideo to compare with"
        raise UsageError(what, todo=f"Give one: fvport reuse {name} --native MODULE:CLASS (fvport reuse {name} --find)")
    if not component.has_weights:
        raise UsageError(f"a {component.kind} has no parameters; the config check compares it", where=name)
    from fvport.models import warm

    with warm.session():  # FastVideo is imported once for all questions
        theirs, ours = official_facts(port, component), native_facts(port, component, wanted, device)
        facts = assembled(port, component, theirs, ours, wanted, device)
    result = Proof(name, component.official, wanted, proof.prove(facts), ev.digests(port, inputs(port, component)))
    _write(port, result)
    return result


def assembled(port: Port, component: Component, theirs: Json, ours: Json, wanted: str, device: str) -> proof.Facts:
    """Everything that the proof reads, as data."""
    reused = ours["rules"] is None
    pairs, guessed = _pairs(port, component, theirs, ours, device)
    why: dict[str, str] = {}
    fields = _fields(port, component, ours["schema"], why)
    tokens = _tokens(port, component, why, device) if reused else None
    if not reused:
        has = component.kind == "text_encoder" and component.tokenizer
        why["tokens"] = "a candidate is not what the port's pipeline hands tokens to" if has else "no tokenizer"
    return proof.Facts(
        theirs, ours["facts"], pairs, frozenset(_excluded(component, theirs)), frozenset(), fields, tokens, why, guessed
    )


def _pairs(port: Port, component: Component, theirs: Json, ours: Json, device: str) -> tuple[Json, bool]:
    """({official tensor: (native, index, count)}, guessed): as a load was seen, as declared, or, where those bring too
    little over, as `mapping suggest` proposes, which is a guess.
    """
    official, guessed = theirs["tensors"], False
    if ours["rules"] is None:
        from fvport.models import native

        rules = native.rules(port, component.name, device)
    else:
        rules = finding.as_rules(ours["rules"])
        placed = {item.target for item in rules.apply(official).placed}
        if len(placed & ours["facts"]["tensors"].keys()) < 0.9 * len(ours["facts"]["tensors"]):
            from fvport.weights.suggest import suggest

            rules, guessed = suggest(official, ours["facts"]["tensors"]).rules, True
    return {item.source: (item.target, item.index, item.count) for item in rules.apply(official).placed}, guessed


def _excluded(component: Component, theirs: Json) -> list[str]:
    import re

    patterns = [re.compile(pattern) for pattern in component.mapping.exclude if not pattern.startswith("native:")]
    return [name for name in theirs["tensors"] if any(pattern.search(name) for pattern in patterns)]


def _fields(port: Port, component: Component, schema: Json, why: dict[str, str]) -> list[str] | None:
    """What differs between the official config and what production makes of it, as `config` says it."""
    from fvport.checks import _fields as fields
    from fvport.checks import config

    source = config.config_of(port.official_tree / (component.weights or component.name))[1]
    if not source:
        why["fields"] = "the official component has no config.json"
        return None
    items = fields.field_items(component, source, {}, schema)
    return [item.reason.removeprefix(f"{component.name}.") for item in items if item.verdict != "pass"]


def _tokens(port: Port, component: Component, why: dict[str, str], device: str) -> list[str] | None:
    from fvport.checks import config
    from fvport.models import native_facts

    if component.kind != "text_encoder" or not component.tokenizer:
        why["tokens"] = "no tokenizer"
        return None
    items = config.token_items(component, config.official_facts(port), native_facts.facts(port, device))
    if any(item.verdict == "blocked" for item in items):
        why["tokens"] = items[0].reason
        return None
    return [item.reason for item in items if item.verdict != "pass"]


def inputs(port: Port, component: Component) -> list[str]:
    """What a proof depends on, as names of `evidence.digest`."""
    from fvport.parity import oracle

    packages = ("fvport", "torch", "diffusers", "transformers")
    names = ["port:official", f"port:components.{component.name}", f"weights:{component.name}", "tree:fastvideo"]
    names += ["port:fastvideo", f"file:{(port.folder / 'oracle.py').relative_to(port.root).as_posix()}"]
    tree = port.load_tree
    loaded = [tree / "model_index.json", tree / (component.weights or component.name) / "config.json"]
    loaded += sorted((tree / component.tokenizer).glob("*.json")) if component.tokenizer else []
    names += [f"file:{file.relative_to(port.root).as_posix()}" for file in loaded]
    return [*names, *oracle.code_inputs(port), *(f"package:{name}" for name in packages)]


def official_facts(port: Port, component: Component) -> Json:
    """`models.official_modules` in a process of the official side's own."""
    from fvport.models import official_modules
    from fvport.parity import oracle

    job = {
        "official": component.official,
        "folder": str(oracle.official_folder(port, component)),
        "oracle": str(port.folder / "oracle.py"),
        "import_roots": [str(root) for root in oracle.roots(port)],
        "name": component.name,
    }
    command = [oracle._python(port), "-I", official_modules.__file__]

    def run(file: Path, out: Path, log: Path) -> None:
        with log.open("wb") as stream:
            words = [*command, str(file), str(out)]
            subprocess.run(words, check=False, stdout=stream, stderr=stream, timeout=LIMIT)

    return _answer(job, run, f"official {component.name}")


def native_facts(port: Port, component: Component, wanted: str, device: str) -> Json:
    """`models.native_reuse` in a child that imports the port's FastVideo."""
    from fvport import fastvideo_api
    from fvport.models import warm

    chosen = fastvideo_api.resolve_device(device)
    job = {"port": str(port.file), "component": component.name, "native": wanted, "device": chosen}
    env = fastvideo_api.child_environment(port.root, chosen, backend=port.fastvideo.attention_backend)

    def run(file: Path, out: Path, log: Path) -> None:
        warm.run(port, "fvport.models.native_reuse", [str(file), str(out)], env=env, log=log, timeout=LIMIT)

    return _answer(job, run, f"native {wanted}")


def _answer(job: Json, run: Callable[[Path, Path, Path], None], name: str) -> Json:
    """What a child says to a job; FvportError, with the end of its log, where it says nothing or that it failed."""
    from fvport.models.forked import tail

    with tempfile.TemporaryDirectory(prefix="fvport-reuse-") as folder:
        file, out, log = Path(folder, "job.json"), Path(folder, "out.json"), Path(folder, "log")
        file.write_text(json.dumps(job), encoding="utf-8")
        try:
            run(file, out, log)
        except subprocess.TimeoutExpired:
            raise FvportError(f"no answer within {LIMIT} s{tail(log)}", where=name) from None
        try:
            answer: Json = json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FvportError(f"no answer{tail(log)}", where=name) from None
    if "error" in answer:
        raise FvportError(f"it could not be built: {answer['error']}", where=name, todo=answer.get("todo", ""))
    return answer


# --- what is kept ----------------------------------------------------------------------------------------------------


def _file(port: Port, name: str) -> Path:
    return port.state / "reuse" / f"{name}.json"


def _write(port: Port, result: Proof) -> None:
    file = _file(port, result.component)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


def kept(port: Port) -> list[tuple[Json, bool]]:
    """Each component's last proof, and whether it still stands on what is there now."""
    found = []
    for name, component in port.components.items():
        try:
            data = json.loads(_file(port, name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        now = ev.digests(port, inputs(port, component))
        stands = now == data.get("inputs") and (component.mode != "reuse" or component.native == data.get("native"))
        found.append((data, stands))
    return found


def rows(port: Port) -> list[tuple[str, ...]]:
    """The README's table: one row an aspect, and one for a proof that is missing or stale."""
    found: list[tuple[str, ...]] = []
    proven = set()
    for data, stands in kept(port):
        proven.add(data["component"])
        if not stands:
            found.append((data["component"], data["native"], "proof", "stale", f"fvport reuse {data['component']}"))
            continue
        for item in data["findings"]:
            more = f": {'; '.join(item['details'][:2])}" if item["details"] and item["verdict"] != "equal" else ""
            found.append((data["component"], data["native"], item["aspect"], item["verdict"], item["what"] + more))
    for name, component in port.components.items():
        if component.mode == "reuse" and component.has_weights and name not in proven:
            found.append((name, component.native, "proof", "not made", f"fvport reuse {name}"))
    return found
