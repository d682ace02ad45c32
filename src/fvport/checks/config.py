# SPDX-License-Identifier: Apache-2.0
"""`config`: the native side is configured as the official one, field by field; schedules and token ids are exact.

One item a component and kind of thing: `transformer: fields`, `scheduler: schedule`, `text_encoder: tokens`,
`transformer: load tree`, and for the port `presets` and `model_index`. The comparisons are functions on data; child
processes give the data (`models.native_facts` and `models.ask` for FastVideo, `models.official_facts` for the other).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.checks import Options, _precision, _tiling
from fvport.checks import _fields as fields
from fvport.errors import BlockedError, FvportError
from fvport.evidence import Item
from fvport.spec import Component, Port

Json = dict[str, Any]
LIMIT = 900  # seconds for the official library's answer
TOKENS = ("tokenizer", "processor")  # kinds of component that are all files and no weights


def run(port: Port, options: Options) -> ev.Evidence:
    """Compare every declared component's configuration; see the module's docstring for the items."""
    from fvport import fastvideo_api
    from fvport.models import native_facts

    record = ev.Evidence("config", port.slug)
    wanted = [c for c in port.components.values() if not options.components or c.name in options.components]
    record.items += [item for c in wanted for item in tree_items(port, c)]
    if not options.components:
        record.items += index_items(port)
    official = official_facts(port)
    native = native_facts.facts(port, options.device)
    record.items += [Item(f"official: {k}", "blocked", f"{k}: {v}") for k, v in official["errors"].items()]
    record.items += [Item(f"native: {k}", "fail", f"{k}: {v}") for k, v in native["errors"].items()]
    ships = native.get("pipeline_config") or {}
    record.items += field_items(port, wanted, official, ships, options.device)
    record.items += [_precision.item(port, c, ships) for c in wanted if _precision.asked(c)]
    for c in wanted:
        if c.kind == "scheduler":
            record.items += schedule_items(c, official, native)
        if _has_tokens(c):
            record.items += token_items(c, official, native)
    if not options.components:
        signature, presets = official.get("signature", {}), native.get("presets", {})
        record.items += fields.preset_items(port, signature, presets, native.get("pipeline_config"))
    record.environment = fastvideo_api.environment(port.root) | native.get("environment", {})
    return record


def inputs(port: Port) -> list[str]:
    names = ["tree:fastvideo", "port:components", "port:official", "port:presets", "port:port", "package:fvport"]
    names += [f"package:{name}" for name in ("diffusers", "transformers", "torch")]
    names += [f"tree:{port.reference.relative_to(port.root).as_posix()}"] if port.reference else []
    names += [f"file:{path}" for path in _texts(port, port.official_tree) + _texts(port, port.load_tree)]
    names += [f"weights:{c.name}" for c in port.components.values() if c.mode != "external"]
    return names


def _texts(port: Port, folder: Path) -> list[str]:
    """The files of a release that say how it is built: the index, each component's JSON, all of a tokenizer's."""
    names = ["model_index.json"]
    for c in port.components.values():
        part = c.weights or c.name
        if _of_tokens(c, part):
            continue
        names += [f"{part}/{f.name}" for f in sorted((folder / part).glob("*.json")) if "index" not in f.name]
    for part in _token_folders(port):
        names += [f"{part}/{file.relative_to(folder / part).as_posix()}" for file in _plain(folder / part)]
    base = folder.relative_to(port.root).as_posix()
    return sorted({f"{base}/{name}" for name in names})


def _token_folders(port: Port) -> list[str]:
    parts = port.components.values()
    return sorted(({c.tokenizer for c in parts} | {c.weights or c.name for c in parts if c.kind in TOKENS}) - {""})


def _of_tokens(c: Component, part: str) -> bool:
    """Whether every file of this folder decides what a text becomes: merges.txt and spiece.model like any JSON."""
    return part == c.tokenizer or c.kind in TOKENS


def _plain(folder: Path) -> list[Path]:
    """A tokenizer's files, without hidden ones."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in found if not any(p.startswith(".") for p in file.relative_to(folder).parts)]


def expected(port: Port) -> list[str]:
    names = ["presets", "model_index"]
    for c in port.components.values():
        names += [f"{c.name}: fields"] if c.mode in ("port", "reuse") and c.has_weights else []
        names += [f"{c.name}: precision"] if _precision.asked(c) else []
        names += [f"{c.name}: tiling"] if _tiling.tiles(c) else []
        names += [f"{c.name}: schedule"] if c.kind == "scheduler" else []
        names += [f"{c.name}: tokens"] if _has_tokens(c) else []
        names += [f"{c.name}: load tree"] if c.mode != "external" else []
    return names


def _has_tokens(c: Component) -> bool:
    return c.kind == "text_encoder" and bool(c.tokenizer) and c.mode in ("port", "reuse")


# --- the official side's facts ---------------------------------------------------------------------------------------


def official_facts(port: Port) -> Json:
    """Ask the official library in a child; see `models.official_facts`. Raises BlockedError without the weights."""
    import subprocess
    import tempfile

    from fvport.models import native_facts, official_facts
    from fvport.models.forked import tail
    from fvport.parity import oracle

    for c in port.components.values():
        if c.mode in ("port", "reuse"):
            oracle.official_folder(port, c)
    job = official_job(port, native_facts.questions(port))
    with tempfile.TemporaryDirectory(prefix="fvport-config-") as folder:
        job_file, out, log = Path(folder, "job.json"), Path(folder, "out.json"), Path(folder, "log")
        job_file.write_text(json.dumps(job), encoding="utf-8")
        command = [oracle._python(port), "-I", official_facts.__file__, str(job_file), str(out)]
        with log.open("wb") as stream:
            try:
                subprocess.run(command, check=False, stdout=stream, stderr=stream, timeout=LIMIT)
            except subprocess.TimeoutExpired:
                what = f"the official library gave no answer within {LIMIT} s{tail(log)}"
                raise BlockedError(what, todo="Run again: fvport check config") from None
        try:
            answer: Json = json.loads(out.read_text(encoding="utf-8"))
            return answer
        except (OSError, ValueError):
            raise FvportError(f"the official library gave no answer{tail(log)}") from None


def official_job(port: Port, asked: Json) -> Json:
    """What `models.official_facts` is asked: absolute folders, class names, the call."""
    base = port.official_tree.resolve()

    def whole(c: Component) -> Json:
        folder = base / (c.weights or c.name)
        return {"name": c.name, "official": c.official, "folder": str(folder), "config": str(folder / "config.json")}

    parts = port.components
    pipeline = port.official.pipeline.cls
    return {
        "components": [whole(c) for c in parts.values() if c.mode in ("port", "reuse") and c.official],
        "schedulers": [whole(parts[name]) for name in asked["schedulers"] if parts[name].official],
        "encoders": [
            {**whole(parts[n]), "tokenizer": str(base / parts[n].tokenizer), "tokenizer_name": parts[n].tokenizer}
            for n in asked["encoders"]
        ],
        "steps": asked["steps"],
        "prompts": asked["prompts"],
        "pipeline": "" if pipeline.startswith("oracle:") else pipeline,
        "call": port.official.pipeline.call,
        "oracle": str(port.folder / "oracle.py"),
        "import_roots": [str(port.import_root)] if port.import_root else [],
    }


# --- items -----------------------------------------------------------------------------------------------------------


def config_of(folder: Path) -> tuple[str, Json]:
    """(file name, content) of a component's configuration; ('', {}) where it has none."""
    for name in ("config.json", "scheduler_config.json"):
        file = folder / name
        if file.is_file():
            try:
                return name, json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise FvportError(f"is not JSON ({error})", where=str(file)) from None
    return "", {}


def field_items(port: Port, wanted: list[Component], official: Json, ships: Json, device: str) -> list[Item]:
    """Official JSON against the config that FastVideo's own update made of it; of a VAE, whether it tiles.

    `ships`: the fields of the pipeline config.
    """
    from fvport.models import native

    parts = [c for c in wanted if c.mode in ("port", "reuse") and c.has_weights]
    answers = native.try_many(port, [("schema", c.name) for c in parts], device) if parts else {}
    items = []
    for c in parts:
        answer = answers["schema", c.name]
        if "error" in answer:
            verdict = "blocked" if answer.get("status") == "blocked" else "fail"
            items.append(
                Item(f"{c.name}: fields", verdict, answer["error"], component=c.name, todo=answer.get("todo", ""))
            )
            continue
        source = config_of(port.official_tree / (c.weights or c.name))[1]
        items += fields.field_items(c, source, official.get("defaults", {}).get(c.name, {}), answer["value"])
        if _tiling.tiles(c):
            items.append(_tiling.item(port, c, answer["value"], ships))
    return items


def tree_items(port: Port, c: Component) -> list[Item]:
    """The load tree's JSON is the official one but for the declared rewrites."""
    if c.mode == "external":
        return []
    found = []
    for part in sorted({c.weights or c.name, c.tokenizer} - {""}):
        old, new = port.official_tree / part, port.load_tree / part
        if not old.is_dir():
            return [
                Item(f"{c.name}: load tree", "blocked", f"there is no {old}", component=c.name, todo="Run: fvport prep")
            ]
        tokens = _of_tokens(c, part)
        for file in _plain(old) if tokens else sorted(old.glob("*.json")):
            other = new / file.relative_to(old)
            if file.suffix != ".json":
                found += _other_bytes(file, other)
            elif tokens or "index" not in file.name:
                found += fields.file_differences(file, other, c, rewritten=not tokens)
    name, todo = f"{c.name}: load tree", "Build it again: fvport check conversion"
    if not found:
        return [Item(name, "pass", "its JSON files are the official ones", component=c.name)]
    return [Item(f"{name}: {where}", "fail", what, component=c.name, todo=todo) for where, what in found]


def _other_bytes(old: Path, new: Path) -> list[tuple[str, str]]:
    import filecmp

    name = f"{old.parent.name}/{old.name}"
    if not new.is_file():
        return [(name, f"{name} is not in the load tree")]
    return [] if filecmp.cmp(old, new, shallow=False) else [(name, f"{name} is another one")]


def index_items(port: Port) -> list[Item]:
    """model_index.json: same components, another pipeline class."""
    files = [folder / "model_index.json" for folder in (port.official_tree, port.load_tree)]
    if port.official.layout != "diffusers" and not files[0].is_file():
        return [Item("model_index", "pass", f"a {port.official.layout} release has none")]
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        todo = "Run: fvport prep, then fvport check conversion"
        return [Item("model_index", "blocked", f"there is no {missing.relative_to(port.root)}", todo=todo)]
    try:
        old, new = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    except ValueError as error:
        todo = "Fetch the release again: fvport prep; then: fvport check conversion"
        return [Item("model_index: JSON", "fail", f"model_index.json is not JSON ({error})", todo=todo)]
    problems = fields.index_problems(old, new, port)
    if not problems:
        return [Item("model_index", "pass", "same components as the official one, with the port's pipeline class")]
    return [Item(f"model_index: {where}", "fail", what) for where, what in problems]


def schedule_items(c: Component, official: Json, native: Json) -> list[Item]:
    """Timesteps and sigmas of several step counts, exact to float32 rounding."""
    theirs, ours = official.get("schedules", {}).get(c.name), native.get("schedules", {}).get(c.name)
    name = f"{c.name}: schedule"
    if not theirs or not ours or "error" in ours:
        reason = (ours or {}).get("error") or "one side gave no schedule"
        return [Item(name, "fail" if ours else "blocked", f"{c.name}: {reason}", component=c.name)]
    return fields.schedule_items(c.name, theirs, ours)


def token_items(c: Component, official: Json, native: Json) -> list[Item]:
    """Token ids and masks on hostile prompts, as the two pipelines make them."""
    theirs, ours = official.get("tokens", {}).get(c.name), native.get("tokens", {}).get(c.name)
    name = f"{c.name}: tokens"
    if ours and "error" in ours:
        return [Item(name, "fail", f"{c.name}: {ours['error']}", component=c.name)]
    if not theirs or not ours:
        why = official["errors"].get("tokens") or "the official pipeline's tokens could not be seen"
        todo = "The official pipeline class must have encode_prompt; see the config check's documentation"
        return [Item(name, "blocked", f"{c.name}: {why}", component=c.name, todo=todo)]
    return fields.token_items(c.name, theirs, ours)
