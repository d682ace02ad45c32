# SPDX-License-Identifier: Apache-2.0
"""`fvport prototype`: both sides of a component instantiated without weights, their names and shapes dumped, concerns
listed. No number of one side is compared with a number of the other.

    converted_weights/<slug>/_mapping/<component>_official_keys.json
    converted_weights/<slug>/_mapping/<component>_fastvideo_keys.json      {"class", "built_on", "tensors": {name: ...}}

Both files are tables that `fvport mapping suggest --official --native` reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.progress import beat
from fvport.spec import Component, Port

LIMIT = 900  # seconds for the official side
Json = dict[str, Any]


@dataclass
class Prototype:
    """`made`: both sides were instantiated. `problems`: why one was not."""

    component: str
    files: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, int] = field(default_factory=dict)
    built_on: dict[str, str] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    concerns: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def made(self) -> bool:
        return not self.problems

    def to_json(self) -> Json:
        return {**asdict(self), "made": self.made}

    def text(self) -> str:
        lines = []
        for side in ("official", "fastvideo"):
            if side in self.problems:
                lines.append(f"{side}: not made: {self.problems[side]}")
                continue
            made = self.random.get(side)
            random = f"; with random weights: {made['parameters']:,} parameters" if made else ""
            what = f"{self.tensors[side]} names and shapes on the {self.built_on[side]} device{random}"
            lines += [f"{side}: {self.classes[side]}: {what}", f"  {self.files[side]}"]
        lines += [f"concern: {words}" for words in self.concerns]
        slug_files = " ".join(f"--{'native' if s == 'fastvideo' else s} {f}" for s, f in self.files.items())
        lines += [f"next: fvport mapping suggest {slug_files}"] if self.made else []
        return "\n".join(lines)


def run(port: Port, name: str, device: str = "auto") -> Prototype:
    """Instantiate and dump. BlockedError for an incomplete packet, or where the release would run code of its own."""
    from fvport.report import packet

    component = port.component(name)
    if component.mode not in ("port", "reuse") or not component.has_weights:
        what = f"{name} is a {component.kind} of mode {component.mode}: there is nothing with weights to instantiate"
        raise UsageError(what, where=str(port.file))
    refuse_own_code(port, component)
    packet.require(port, component, "prototype")
    found = Prototype(name, concerns=packet.concerns(port, component))
    sides: dict[str, Callable[[], Json]] = {
        "official": lambda: official(port, component),
        "fastvideo": lambda: native(port, component, device),
    }
    tables: dict[str, Json] = {}
    for side, ask in sides.items():
        try:
            with beat(f"prototype: {side}"):
                answer = ask()
        except FvportError as error:
            found.problems[side] = str(error)
            continue
        tables[side] = answer["tensors"]
        found.classes[side], found.built_on[side] = answer["class"], answer["built_on"]
        found.tensors[side] = len(answer["tensors"])
        found.concerns += answer.get("concerns", [])
        if answer.get("random"):
            found.random[side] = answer["random"]
        found.files[side] = dump(port, component, side, answer)
    if len(tables) == 2:
        found.concerns += differences(tables["official"], tables["fastvideo"])
    found.concerns = list(dict.fromkeys(found.concerns))
    return found


def refuse_own_code(port: Port, component: Component) -> None:
    """BlockedError with the escape hatch where only the release's own code could make the official object."""
    from fvport import gate
    from fvport.report import handoff, handoff_component

    hatch = handoff_component.escape(port, gate.decide(port), component)
    if hatch["needs_user_input"] and "code that the release" in hatch["question"]:
        asked = handoff.text({"escape_hatch": {k: v for k, v in hatch.items() if k != "state_snapshot"}})
        what = f"{component.name} could only be made by code that the release brings itself, which is never run"
        raise BlockedError(f"{what}\n{asked}\n", where=str(port.file), todo="Answer the question above")


def official(port: Port, component: Component) -> Json:
    """Ask the oracle's environment; FvportError with its sentence where the class cannot be made."""
    from fvport.models import official_prototype
    from fvport.models.forked import tail
    from fvport.parity import oracle

    folder = oracle.config_folder(port, component)
    if not folder.is_dir():
        raise BlockedError(f"no official folder of {component.name}", where=str(folder), todo="Run: fvport prep")
    job = {
        "official": component.official,
        "config": oracle._config(folder),
        "folder": str(oracle.official_folder(port, component)),
        "oracle": str(port.folder / "oracle.py"),
        "import_roots": [str(port.import_root)] if port.import_root else [],
    }
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTVIDEO_", "FVPORT_"))}
    env["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="fvport-prototype-") as scratch:
        asked, out, log = (Path(scratch, n) for n in ("job.json", "out.json", "log"))
        asked.write_text(json.dumps(job), encoding="utf-8")
        command = [oracle._python(port), "-I", official_prototype.__file__, str(asked), str(out)]
        try:
            with log.open("wb") as stream:
                null = subprocess.DEVNULL
                subprocess.run(command, check=False, env=env, stdin=null, stdout=stream, stderr=stream, timeout=LIMIT)
            answer: Json = json.loads(out.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            raise FvportError(f"the official class was not made within {LIMIT} s{tail(log)}") from None
        except (OSError, ValueError):
            raise FvportError(f"the official side gave no answer{tail(log)}") from None
    if "error" in answer:
        raise FvportError(
            answer["error"], where=component.official, todo="Correct components.*.official or config.json"
        )
    return answer


def native(port: Port, component: Component, device: str) -> Json:
    """Ask a child that boots FastVideo, with a load tree where one can be made."""
    from fvport.models import ask
    from fvport.weights import convert

    if not port.official.needs_conversion and not (port.load_tree / "model_index.json").is_file():
        convert.build_load_tree(port)
    return dict(ask.ask(port, "prototype", component.name, device))


def dump(port: Port, component: Component, side: str, answer: Json) -> str:
    """Write one side's table; the path from the port's root."""
    folder = port.load_tree / "_mapping"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{component.name}_{side}_keys.json"
    made_from = {"config": ev.digest(port, f"port:components.{component.name}")}
    whole = {k: answer.get(k) for k in ("class", "built_on", "arguments", "tensors")}
    whole = {"component": component.name, "side": side, **whole, "made_from": made_from}
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(whole, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(part, file)
    return file.relative_to(port.root).as_posix()


def differences(official: Json, native: Json) -> list[str]:
    """What the two tables say without any rule: sizes, shapes that only one side has."""
    found = []
    counts = [sum(_size(t["shape"]) for t in side.values()) for side in (official, native)]
    if counts[0] != counts[1]:
        found.append(f"{counts[0]:,} numbers officially, {counts[1]:,} natively: something is left out, tied or added")
    shapes = [Counter(tuple(t["shape"]) for t in side.values()) for side in (official, native)]
    only = [sorted((a - b).items()) for a, b in (shapes, shapes[::-1])]
    for side, rows in zip(("official", "native"), only, strict=True):
        if rows:
            shown = ", ".join(f"{count} x {list(shape)}" for shape, count in rows[:6])
            more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
            found.append(f"shapes that only the {side} side has (fused, split or missing): {shown}{more}")
    same = set(official) & set(native)
    if len(same) < len(native):
        found.append(f"{len(same)} of {len(native)} native names are official names as they are: the rest needs rules")
    return found


def _size(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
