# SPDX-License-Identifier: Apache-2.0
"""What FastVideo and diffusers already have, as two data files beside this module. Read at bake time, made by

    python -m fvport.scaffold.facts SITE_PACKAGES

which parses the sources below SITE_PACKAGES (nothing is imported) and writes the data files again.
"""

from __future__ import annotations

import ast
import difflib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from fvport.words import FRAMES

HERE = Path(__file__).parent
BUCKETS = ("dits", "vaes", "encoders", "schedulers", "upsamplers", "audio")
CALL_KEYS = (
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "embedded_guidance_scale",
    "max_sequence_length",
    "frame_rate",
    "fps",
    "audio_end_in_s",
    "audio_length_in_s",
    "strength",
)
MEDIA_INPUTS = ("image", "video", "audio", "control_image", "control_video")


@cache
def fastvideo() -> dict[str, Any]:
    """{version, families, modules, classes: {registered name: {bucket, native, config}}, config_classes, ...}."""
    return _table("fastvideo_facts.json")


@cache
def pipelines() -> dict[str, Any]:
    """{version, pipelines: {class: {call: {argument: default}, inputs: [media argument]}}} of diffusers' signatures.

    `frames` is there where the call names the number of frames otherwise; `call` has it as num_frames all the same.
    """
    return _table("diffusers_facts.json")


def _table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return found


def pipeline(name: str) -> dict[str, Any]:
    """A pipeline class's call defaults and media inputs; {} where diffusers has no such class."""
    found: dict[str, Any] = pipelines()["pipelines"].get(name, {})
    return found


def registered(cls: str) -> dict[str, str]:
    """Where FastVideo's class for an official class name lies; {} where its registry has none, or only a dead entry."""
    found = fastvideo()["classes"].get(cls, {})
    return found if found.get("native") and (found["config"] or found["bucket"] == "schedulers") else {}


# --- making the data files -------------------------------------------------------------------------------------------


def read_fastvideo(root: Path, version: str) -> dict[str, Any]:
    """The facts of one FastVideo tree (`root` is the package's folder), by parsing."""
    registry = ast.parse((root / "registry.py").read_text(encoding="utf-8"))
    families = {
        keyword.value.value
        for node in ast.walk(registry)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "model_family" and isinstance(keyword.value, ast.Constant)
    }
    folders = [root / "models" / b for b in BUCKETS] + [root / "configs/models" / b for b in BUCKETS]
    folders += [root / "configs/pipelines", root / "pipelines/basic"]
    modules = {p.stem for folder in folders if folder.is_dir() for p in folder.iterdir() if not p.name.startswith("_")}
    configs = _classes(root / "configs")
    return {
        "version": version,
        "families": sorted(families),
        "modules": sorted(modules),
        "classes": dict(sorted(_registry(root, configs).items())),
        "config_classes": sorted(configs),
        "pipeline_classes": sorted(n for n in _classes(root / "pipelines") if n.endswith("Pipeline")),
    }


def _classes(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, file)
    return found


def _registry(root: Path, configs: dict[str, Path]) -> dict[str, dict[str, str]]:
    """What ModelRegistry would hold: classes named by `EntryClass` first, then the legacy tables of registry.py."""
    entries: dict[str, tuple[str, str, str]] = {}
    for file in sorted((root / "models").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bucket, *rest = file.relative_to(root / "models").with_suffix("").parts
        module = ".".join(part for part in rest if part != "__init__")
        for name in _entry_classes(tree) if rest else ():
            entries[name] = (bucket, module, name)
    legacy = ast.parse((root / "models/registry.py").read_text(encoding="utf-8"))
    for node in ast.walk(legacy):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                listed = key.value if isinstance(key, ast.Constant) else None
                if isinstance(listed, str) and isinstance(value, ast.Tuple) and len(value.elts) == 3:
                    entries.setdefault(listed, tuple(ast.literal_eval(value)))
    return {name: _located(root, configs, *entry) for name, entry in entries.items()}


def _entry_classes(tree: ast.Module) -> list[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "EntryClass" for t in node.targets):
            items = node.value.elts if isinstance(node.value, (ast.List, ast.Tuple)) else [node.value]
            return [str(getattr(item, "id", getattr(item, "value", ""))) for item in items]
    return []


def _located(root: Path, configs: dict[str, Path], bucket: str, module: str, cls: str) -> dict[str, str]:
    """Module, class and the config class that its constructor is annotated with (its own, else its bases')."""
    dotted = f"fastvideo.models.{bucket}.{module}"
    path = root / "models" / bucket / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():  # an entry of the legacy tables whose file is gone
        return {"bucket": bucket, "native": "", "config": ""}
    beside = root / "configs/models" / bucket / f"{module.split('.')[0]}.py"
    config = _config_of(file, cls)
    config = config if config in configs else _config_beside(beside, cls)
    where = configs.get(config)
    named = f"fastvideo.{'.'.join(where.relative_to(root).with_suffix('').parts)}:{config}" if where else ""
    return {"bucket": bucket, "native": f"{dotted}:{cls}", "config": named}


def _config_beside(file: Path, cls: str) -> str:
    """The config class of the file of the same name whose own name is most like the class's; '' where there is none."""
    if not file.is_file():
        return ""
    names = [node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    names = [name for name in names if name.endswith("Config") and not name.endswith("ArchConfig")]
    return max(names, key=lambda name: difflib.SequenceMatcher(None, name, cls).ratio(), default="")


def _config_of(file: Path, cls: str) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    while cls in classes:
        for node in classes[cls].body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                for arg in node.args.args:
                    if arg.arg == "config" and arg.annotation is not None:
                        return ast.unparse(arg.annotation).split("|")[0].split(".")[-1].strip()
        bases = [ast.unparse(base) for base in classes[cls].bases]
        cls = next((base for base in bases if base in classes), "")
    return ""


def read_diffusers(root: Path, version: str) -> dict[str, Any]:
    """Defaults and media inputs of every pipeline's `__call__` (`root` is the package's folder), by parsing."""
    found: dict[str, Any] = {}
    for file in sorted((root / "pipelines").rglob("pipeline_*.py")):
        if "deprecated" in file.parts:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Pipeline"):
                call = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__call__"), None)
                if call is not None:
                    found[node.name] = _signature(call)
    return {"version": version, "pipelines": dict(sorted(found.items()))}


def _signature(call: ast.FunctionDef) -> dict[str, Any]:
    args = call.args.posonlyargs + call.args.args + call.args.kwonlyargs
    plain = call.args.posonlyargs + call.args.args
    given = call.args.defaults  # of the last arguments
    defaults = dict(zip([a.arg for a in plain[len(plain) - len(given) :]], given, strict=True))
    values: dict[str, Any] = {}
    for arg in args:
        if arg.arg in CALL_KEYS:
            default = defaults.get(arg.arg)
            values[arg.arg] = default.value if isinstance(default, ast.Constant) else None
    names = [arg.arg for arg in args if arg.arg in FRAMES[1:]]
    if names and "num_frames" not in values:
        default = defaults.get(names[0])
        values["num_frames"] = default.value if isinstance(default, ast.Constant) else None
        return {"call": values, "inputs": _media(args), "frames": names[0]}
    return {"call": values, "inputs": _media(args)}


def _media(args: list[ast.arg]) -> list[str]:
    return [arg.arg for arg in args if arg.arg in MEDIA_INPUTS]


def _dump(name: str, data: dict[str, Any]) -> None:
    """One entry a line: small, and a change of one fact is a change of one line."""

    def block(value: Any) -> str:
        rows = value.items() if isinstance(value, dict) else [(None, item) for item in value]
        lines = [(f"{json.dumps(k)}: " if k else "") + json.dumps(v) for k, v in rows]
        opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
        return opening + "\n  " + ",\n  ".join(lines) + "\n " + closing

    rows = [f" {json.dumps(k)}: {block(v) if isinstance(v, (dict, list)) else json.dumps(v)}" for k, v in data.items()]
    (HERE / name).write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def main(site: Path) -> None:
    def version(name: str) -> str:
        return next(site.glob(f"{name}-*.dist-info")).name.removesuffix(".dist-info").split("-")[1]

    _dump("fastvideo_facts.json", read_fastvideo(site / "fastvideo", version("fastvideo")))
    _dump("diffusers_facts.json", read_diffusers(site / "diffusers", version("diffusers")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
