# SPDX-License-Identifier: Apache-2.0
"""`smoke`: what FastVideo imports, resolves and loads is this port. Rules FV601 to FV609.

FastVideo goes by names: a class name that another file has, a detector that stands later, or the official folder where
the load tree should be, and it runs its own model without a word. Its own registry functions are asked in a child.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.checks import Options
from fvport.checks._rules import Family, Finding
from fvport.evidence import Item
from fvport.spec import Component, Port
from fvport.workspace import entries, names

RULES = Family()
Json = dict[str, Any]
TREE = "Build the load tree again: fvport check conversion"


@dataclass(frozen=True)
class Seen:
    """What the rules look at: the port, FastVideo's answers, registration problems, and the result of a cheap load."""

    port: Port
    native: Json
    registration: list[Any] = field(default_factory=list)
    loads: dict[str, Json] = field(default_factory=dict)  # component -> {"value"} or {"error"}

    @property
    def ours(self) -> list[Component]:
        return [c for c in self.port.components.values() if c.mode in ("port", "reuse")]


def run(port: Port, options: Options) -> ev.Evidence:
    """Look at the tree first, then ask FastVideo, so that a wrong tree is said even where FastVideo cannot start."""
    from fvport import fastvideo_api
    from fvport.models import native, native_facts
    from fvport.workspace import registration

    record = ev.Evidence("smoke", port.slug, environment=fastvideo_api.environment(port.root))
    cheap = Seen(port, {}, registration.check(port.root, port))
    record.items += [item for rule in RULES if rule.id in TREE_RULES for item in _one(rule, cheap)]
    if any(item.verdict == "fail" for item in record.items):
        reason = "not asked: the tree is wrong already"
        record.items += [Item(rule.id, "blocked", reason) for rule in RULES if rule.id not in TREE_RULES]
        return record
    facts = native_facts.facts(port, options.device)
    record.environment |= fastvideo_api.agree([facts.get("environment", {})], "smoke")
    parts = [c.name for c in port.components.values() if c.mode in ("port", "reuse")]
    answers = native.try_many(port, [("schema", name) for name in parts], options.device)
    seen = Seen(port, facts, cheap.registration, {name: answers["schema", name] for name in parts})
    record.items += [Item(f"fastvideo: {k}", "fail", f"{k}: {v}") for k, v in facts["errors"].items()]
    record.items += [item for rule in RULES if rule.id not in TREE_RULES for item in _one(rule, seen)]
    return record


def _one(rule: Any, seen: Seen) -> list[Item]:
    family = Family()
    family.append(rule)
    return family.items(seen)


def inputs(port: Port) -> list[str]:
    base = port.load_tree.relative_to(port.root).as_posix()
    files = [f"file:{base}/model_index.json", f"file:{port.official.weights}/model_index.json"]
    for c in port.components.values():
        file = "scheduler_config.json" if c.kind == "scheduler" else "config.json"
        files += [f"file:{base}/{c.weights or c.name}/{file}"]
    return [*files, "tree:fastvideo", "port:components", "port:port", "port:official", "port:presets", "package:fvport"]


def expected(port: Port) -> list[str]:
    return [rule.id for rule in RULES]


# --- what the tree shows ---------------------------------------------------------------------------------------------

TREE_RULES = ("FV601", "FV602", "FV603", "FV604")


@RULES.rule("FV601")
def own_load_tree(seen: Seen) -> Iterator[Finding]:
    """The native side loads the load tree, a folder of its own, and not the official one."""
    port = seen.port
    tree, official = port.load_tree, port.official_tree
    name = tree.relative_to(port.root).as_posix()
    if not (tree / "model_index.json").is_file():
        yield Finding(name, "there is no load tree", TREE)
        return
    if tree.resolve() == official.resolve():
        what = "the load tree is the official folder: official folder loaded instead of the load tree"
        yield Finding(name, what, TREE)
        return
    for c in seen.ours:
        folder = tree / (c.weights or c.name)
        for file in ("config.json", "scheduler_config.json"):
            theirs = official / (c.weights or c.name) / file
            own = folder / file
            if c.mode == "port" and own.is_file() and theirs.is_file() and own.resolve() == theirs.resolve():
                what = f"{own.relative_to(tree)} is the official file: official folder loaded instead of the load tree"
                yield Finding(name, what, TREE, c.name)


@RULES.rule("FV602")
def tree_names_the_port(seen: Seen) -> Iterator[Finding]:
    """The load tree names the port's classes: `_class_name` or `architectures` of each component, and the pipeline."""
    tree = seen.port.load_tree
    for c in seen.ours:
        asked, file = _asked(tree / (c.weights or c.name))
        if file and asked != c.native_class:
            yield Finding(
                f"{c.weights or c.name}/{file}", f"names {asked or 'no class'}, not {c.native_class}", TREE, c.name
            )
    index = _json(tree / "model_index.json")
    ours = _entries(seen.port)
    if seen.port.variant or seen.port.variants:  # of several pipelines exactly this one
        ours = [name for name in ours if name == names.pipeline_class(seen.port.key)] or ["absent"]
    if index and ours and index.get("_class_name") not in ours:
        what = f"names {index.get('_class_name')}, the port's pipeline is {' or '.join(ours)}"
        yield Finding("model_index.json", what, TREE)


@RULES.rule("FV603")
def name_of_its_own(seen: Seen) -> Iterator[Finding]:
    """No other file of FastVideo registers the name of a ported class or pipeline."""
    root = seen.port.root
    ported = [c for c in seen.ours if c.mode == "port"]
    for c in ported:
        for path in entries.others(root, c.native, c.native_file):
            what = f"native class given a registered name: FastVideo's registry finds {c.native_class} in {path} too"
            yield Finding(c.native_file, what, "Give the class a name of its own, and EntryClass with it", c.name)
    folder = f"fastvideo/pipelines/basic/{seen.port.slug}/"
    for name in _entries(seen.port):
        for path in entries.registering(root, "fastvideo/pipelines", name):
            if not path.startswith(folder):
                yield Finding(folder, f"pipeline class given a registered name: {path} has {name} too")


@RULES.rule("FV604")
def registered(seen: Seen) -> Iterator[Finding]:
    """Config, presets and exports are registered, the detector before all others and exact."""
    for problem in seen.registration:
        late = "not first" in problem.what or "stands before" in problem.what
        what = f"detector registered last: {problem.what}" if late else problem.what
        yield Finding(problem.file, what, problem.todo)


def _entries(port: Port) -> list[str]:
    """EntryClass names of the port's pipeline files."""
    folder = port.root / "fastvideo" / "pipelines" / "basic" / port.slug
    return [name for file in sorted(folder.rglob("*.py")) for name in entries.entry_class(file) or []]


def _asked(folder: Path) -> tuple[str, str]:
    """(class name, file) as FastVideo's loaders read a component's folder."""
    for file in ("config.json", "scheduler_config.json"):
        if (folder / file).is_file():
            config = _json(folder / file)
            return config.get("_class_name") or (config.get("architectures") or [""])[0], file
    return "", ""


def _json(path: Path) -> Json:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


# --- what FastVideo says ---------------------------------------------------------------------------------------------


@RULES.rule("FV605")
def resolves_to_the_port(seen: Seen) -> Iterator[Finding]:
    """The production ModelRegistry resolves each component to the class that port.toml names, from its file."""
    classes = seen.native.get("classes", {})
    for c in seen.ours:
        found = classes.get(c.name)
        if found is None or "error" in found:
            why = (found or {}).get("error", "FastVideo said nothing of it")
            yield Finding(c.name, f"{(found or {}).get('asked', '')} does not resolve: {why}", component=c.name)
            continue
        file = _relative(found["file"], seen.port.root)
        if found["class"] != c.native or (c.mode == "port" and file != c.native_file):
            what = f"{found['asked']} resolves to {found['class']} ({file}), port.toml names {c.native}"
            yield Finding(c.name, what, "Give the native class a name of its own", c.name)


@RULES.rule("FV606")
def model_resolves(seen: Seen) -> Iterator[Finding]:
    """Hub id, official folder and load tree each resolve to the port's config, pipeline class, family and preset."""
    port = seen.port
    resolutions = seen.native.get("resolutions", {})
    if not resolutions:
        yield Finding("registry", "FastVideo resolved nothing")
    for label, found in resolutions.items():
        if "error" in found:
            yield Finding(label, f"does not resolve: {found['error']}", "Run: fvport workspace")
            continue
        wanted = (f"fastvideo/configs/pipelines/{port.key}.py", f"fastvideo/pipelines/basic/{port.slug}/")
        for what, start in zip(("config", "pipeline"), wanted, strict=True):
            file = _relative(found[what]["file"], port.root)
            if not file.startswith(start):
                said = f"resolves to {what} {found[what]['class']} ({file}), not to one of {start}"
                yield Finding(label, said, "Put the port's register_configs block first: fvport workspace")
        yield from _of_the_variant(port, label, found)
        if found["family"] != port.slug:
            yield Finding(label, f"has preset family {found['family']}, not {port.slug}", "Run: fvport workspace")
        if found["preset"] not in seen.native.get("presets", {}).get("registered", {}):
            yield Finding(label, f"has default preset {found['preset']}, which is not registered for {port.slug}")


def _of_the_variant(port: Port, label: str, found: Json) -> Iterator[Finding]:
    """Of several pipelines in one port each release gets its own: class, config and preset by their exact names."""
    if not (port.variant or port.variants):
        return
    of = f"variant {port.variant}" if port.variant else "the base"
    wanted = {
        "config": names.pipeline_config(port.key),
        "pipeline": names.pipeline_class(port.key),
        "preset": port.preset_name,
    }
    for what, name in wanted.items():
        said = found[what]["class"].rpartition(":")[2] if what != "preset" else found[what]
        if said != name:
            yield Finding(label, f"resolves to {what} {said}, and {of} has {name}", "Run: fvport workspace")


@RULES.rule("FV607")
def presets_registered(seen: Seen) -> Iterator[Finding]:
    """The port's presets are registered under its own family, with a workload that port.toml names."""
    registered = seen.native.get("presets", {}).get("registered", {})
    if not registered:
        yield Finding("presets", f"none is registered for family {seen.port.slug}", "Run: fvport workspace")
    for name, preset in registered.items():
        if preset["workload"] and preset["workload"] not in seen.port.port.workload_types:
            yield Finding(name, f"is of workload {preset['workload']}, port.toml has {seen.port.port.workload_types}")


@RULES.rule("FV608")
def loads(seen: Seen) -> Iterator[Finding]:
    """Each component goes through the production loader up to its constructor, and that is the port's class."""
    for c in seen.ours:
        if c.kind == "scheduler":
            made = seen.native.get("schedules", {}).get(c.name, {})
            if "error" in made or not made:
                yield Finding(c.name, made.get("error", "was not built"), component=c.name)
            elif made["class"] != c.native:
                yield Finding(
                    c.name, f"the loader builds {made['class']}, port.toml names {c.native}", component=c.name
                )
            continue
        answer = seen.loads.get(c.name, {"error": "was not asked"})
        if "error" in answer:
            yield Finding(c.name, answer["error"], answer.get("todo", ""), c.name)
        elif answer["value"]["class"] != c.native:
            what = f"the loader builds {answer['value']['class']}, port.toml names {c.native}"
            yield Finding(c.name, what, TREE, c.name)


@RULES.rule("FV609")
def own_pipeline_config(seen: Seen) -> Iterator[Finding]:
    """Components are built with the port's own pipeline config and the config class that port.toml names."""
    for c in seen.ours:
        value = seen.loads.get(c.name, {}).get("value")
        if not value:
            continue
        config, _, _ = value.get("pipeline_config", "").partition(":")
        if config and config != f"fastvideo.configs.pipelines.{seen.port.key}":
            yield Finding(c.name, f"is built with {value['pipeline_config']}", "Run: fvport workspace", c.name)
        if c.config and value.get("config_class") and value["config_class"] != c.config:
            yield Finding(
                c.name, f"is built with {value['config_class']}, port.toml names {c.config}", component=c.name
            )


def _relative(file: str, root: Path) -> str:
    try:
        return Path(file).resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return file
