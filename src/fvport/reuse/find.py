# SPDX-License-Identifier: Apache-2.0
"""`fvport reuse --find`: FastVideo's native classes in the order of how well they fit an official table of names.

Every native class is built once on its own defaults (meta device, a few layers), which ranks them roughly; the nearest,
and those that have no defaults, are built again on the official config, where shapes can be compared too. Both answers
are kept by digest of FastVideo and of the config. No weights are read: the official side is headers and config.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.reuse import structure
from fvport.reuse.structure import Likeness, Shapes
from fvport.weights.mapping import Rules

Json = dict[str, Any]
NEAREST = 5  # classes that are built again on the official config
LIMIT = 1800.0  # seconds for one child
UNFIT = 0.25  # below this score nothing is alike
UNCONFIRMED = 0.9  # what a likeness counts that shapes on the official config do not confirm


@dataclass(frozen=True)
class Official:
    """What is looked for: `name` is its class, `tensors` {name: shape}, `config` its config.json."""

    name: str
    tensors: Shapes
    config: Json


@dataclass(frozen=True)
class Candidate:
    native: str
    likeness: Likeness
    on_config: bool  # whether it was built on the official config
    tied: bool = False  # another class has the same structure: the class names decided

    def to_json(self) -> Json:
        return {"native": self.native, "on_config": self.on_config, "tied": self.tied, **self.likeness.to_json()}


@dataclass
class Ranking:
    """Best first. `unbuilt` says of each class that could not be looked at why."""

    official: str
    candidates: list[Candidate] = field(default_factory=list)
    unbuilt: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        ranked = [c.to_json() for c in self.candidates]
        return {"official": self.official, "candidates": ranked, "unbuilt": self.unbuilt}

    def text(self, shown: int = 5) -> str:
        lines = [f"{self.official}: FastVideo's native classes by names and shapes (no weights read)"]
        for number, c in enumerate(self.candidates[:shown], 1):
            tie = "; others have this structure too, its name is the nearest" if c.tied and number == 1 else ""
            basis = "on this config" if c.on_config else "on its own defaults"
            lines.append(f"{number}. {c.native}  {c.likeness.score:.3f} ({basis}{tie})")
            told = c.likeness.differences
            lines += [f"     {what}" for what in told[:6]] + [f"     ... {len(told) - 6} more"] * (len(told) > 6)
            lines += ["     nothing differs in names and shapes"] * (not told)
        if not self.candidates or self.candidates[0].likeness.score < UNFIT:
            lines.append("No native class is alike: this one has to be ported.")
        else:
            lines.append("Then prove it: fvport reuse COMPONENT --native MODULE:CLASS; parity is required in any case.")
        lines += [f"not looked at: {name}: {why[:160]}" for name, why in self.unbuilt.items()]
        return "\n".join(lines)


def find(official: Official, source: Source) -> Ranking:
    """The ranking. Raises FvportError where FastVideo cannot be started."""
    defaults = source.defaults()
    near = shortlist(official, defaults)
    built = source.on_config(official.config, near)
    return ranking(official, defaults, built)


def shortlist(official: Official, defaults: Json, nearest: int = NEAREST) -> list[str]:
    """The nearest classes by their default structure, and those that only a config can build."""
    scores = {n: _likeness(official, answer, "", False).score for n, answer in defaults.items() if _has(answer, "")}
    near = sorted(scores, key=lambda name: -scores[name])[:nearest]
    only = [n for n, answer in defaults.items() if "error" in answer[""] and not answer[""].get("lost")]
    return near + only


def ranking(official: Official, defaults: Json, built: Json) -> Ranking:
    """Candidates from what was built; on the official config where that worked. Ties go to the nearest class name."""
    found, unbuilt = [], {}
    for name, answer in defaults.items():
        again = built.get(name, {})
        on_config = _has(again, "on")
        if on_config:
            found.append(Candidate(name, _confirmed(official, again), True))
        elif _has(answer, ""):
            found.append(Candidate(name, _unconfirmed(_likeness(official, answer, "", False)), False))
        elif "error" in (again.get("on") or answer[""]):
            unbuilt[name] = (again.get("on") or answer[""])["error"]
        else:
            unbuilt[name] = "it holds no tensor of its own: it wraps a class of another library"
    found = _once(found)
    found.sort(key=lambda c: (-round(c.likeness.score, 6), -structure.word_share(official.name, c.native), c.native))
    if len(found) > 1 and round(found[0].likeness.score - found[1].likeness.score, 6) == 0:
        found[0] = Candidate(found[0].native, found[0].likeness, found[0].on_config, tied=True)
    return Ranking(official.name, found, unbuilt)


def _confirmed(official: Official, answer: Json) -> Likeness:
    """With shapes; where those say little (the class reads its config by other names), without them if that is more."""
    whole = _likeness(official, answer, "on", True)
    if whole.score >= UNCONFIRMED:
        return whole
    return max(whole, _unconfirmed(_likeness(official, answer, "on", False)), key=lambda likeness: likeness.score)


def _unconfirmed(likeness: Likeness) -> Likeness:
    return replace(likeness, score=UNCONFIRMED * likeness.score)


def _once(found: list[Candidate]) -> list[Candidate]:
    """A class that its package exports again is named by its own module."""
    longest: dict[tuple[str, float], Candidate] = {}
    for c in found:
        module, _, name = c.native.partition(":")
        package = next((o for o in found if o.native.endswith(f":{name}") and o.native.startswith(f"{module}.")), None)
        if package is None:
            longest[c.native, 0.0] = c
    return list(longest.values())


def _has(answer: Json, label: str) -> bool:
    return bool(answer.get(label, {}).get("tensors"))


def _likeness(official: Official, answer: Json, label: str, same_config: bool) -> Likeness:
    return structure.likeness(official.tensors, answer[label]["tensors"], as_rules(answer["rules"]), same_config)


def as_rules(data: Sequence[Any]) -> Rules:
    """`weights.mapping.Rules` of [param_names_mapping pairs, stacked rows]; none where FastVideo declares none."""
    names = {p: tuple(t) if isinstance(t, list) else t for p, t in data[0]}
    return Rules.from_fastvideo(names, data[1])


# --- who is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A FastVideo tree (`root` holds `fastvideo/`), what identifies it, and where answers are kept."""

    root: Path
    identity: str
    cache: Path
    classes: tuple[str, ...]
    device: str = "cpu"

    def defaults(self) -> Json:
        """{native class: its structure on its own defaults, with `lost` where it cannot be imported}."""
        answers = self._kept({"classes": list(self.classes), "configs": {}, "wanted": {}, "defaults": True})
        return {name: _lost(answer) for name, answer in answers.items()}

    def on_config(self, config: Mapping[str, Any], classes: Sequence[str]) -> Json:
        """{native class: its structure on this official config, under "on"}."""
        return self.on_configs({"on": config}, {name: ["on"] for name in classes})

    def on_configs(self, configs: Mapping[str, Any], wanted: Mapping[str, Sequence[str]]) -> Json:
        """The same for several configs: `wanted` says which class is built on which."""
        job = {"classes": list(wanted), "configs": dict(configs), "wanted": dict(wanted), "defaults": False}
        return self._kept(job)

    def _kept(self, job: Json) -> Json:
        from fvport.models import native_structures

        code = Path(native_structures.__file__).read_bytes()
        text = json.dumps([self.identity, job], sort_keys=True, default=str)
        key = hashlib.sha256(code + text.encode()).hexdigest()[:24]
        file = self.cache / f"structures.{key}.json"
        try:
            known: Json = json.loads(file.read_text(encoding="utf-8"))
            return known
        except (OSError, ValueError):
            pass
        answer = self._asked(job | {"root": str(self.root), "device": self.device})
        self.cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(part, file)
        return answer

    def _asked(self, job: Json) -> Json:
        from fvport import fastvideo_api
        from fvport.models.forked import tail

        env = fastvideo_api.child_environment(self.root, self.device) | {"HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryDirectory(prefix="fvport-find-") as folder:
            file, out, log = Path(folder, "job.json"), Path(folder, "out.json"), Path(folder, "log")
            file.write_text(json.dumps(job, default=str), encoding="utf-8")
            command = [sys.executable, "-m", "fvport.models.native_structures", str(file), str(out)]
            try:
                with log.open("wb") as stream:
                    subprocess.run(command, check=False, env=env, stdout=stream, stderr=stream, timeout=LIMIT)
            except subprocess.TimeoutExpired:
                raise FvportError(f"FastVideo's classes were not built within {LIMIT:.0f} s{tail(log)}") from None
            try:
                answer: Json = json.loads(out.read_text(encoding="utf-8"))
                return answer
            except (OSError, ValueError):
                raise FvportError(f"FastVideo's classes could not be asked{tail(log)}") from None


def _lost(answer: Json) -> Json:
    error = answer.get("", {}).get("error", "")
    return {**answer, "": {**answer[""], "lost": True}} if error.startswith("cannot be imported") else answer


def installed(cache: Path | None = None) -> Source:
    """The FastVideo of this environment. BlockedError where there is none."""
    from importlib import metadata

    from fvport.audit import inventory

    root = inventory.root().parent.parent
    names = tuple(n for n in inventory.classes() if ".schedulers." not in n)
    versions = [metadata.version(name) for name in ("fastvideo", "torch", "transformers", "diffusers")]
    return Source(root, " ".join(versions), cache or _cache_home(), names)


def of_tree(root: Path, identity: str, cache: Path, own: frozenset[str]) -> Source:
    """The FastVideo of a port's tree, without the classes that are the port's own."""
    from fvport.audit import inventory

    if not (root / "fastvideo" / "models").is_dir():
        raise BlockedError("no FastVideo tree here", where=str(root), todo="Run: nox -s workspace")
    names = (n for n in inventory.classes(root / "fastvideo" / "models") if ".schedulers." not in n)
    return Source(root, identity, cache, tuple(n for n in names if n not in own))


def _cache_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "fvport"
