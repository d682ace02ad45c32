# SPDX-License-Identifier: Apache-2.0
"""The packet of a component: FastVideo's `component_context`, from port.toml, port.lock.json, the tree and evidence.

Read from files alone; nothing is imported. What is not known is `unknown` with the search that was made. `missing` says
which fields a mode cannot do without: a check that needs the packet refuses an incomplete one and names the field.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.report import handoff_facts as facts
from fvport.report import official_files
from fvport.report.handoff_facts import Block, unknown
from fvport.spec import Component, Port

TYPES = {  # component kind -> FastVideo's component_type
    "dit": "dit",
    "vae": "vae",
    "text_encoder": "encoder",
    "image_encoder": "encoder",
    "audio_encoder": "encoder",
    "conditioner": "conditioner",
    "scheduler": "scheduler",
    "upsampler": "upsampler",
    "vocoder": "vocoder",
}
MODES = ("parity-scaffold", "prototype", "parity-debug")


def block(port: Port, name: str) -> Block:
    """`component_context` of one component, with the strict-load words of its evidence."""
    from fvport import gate

    component = port.component(name)
    verdict = gate.decide(port)
    found = _known(port, component)
    conversion = facts.conversion_of(port, verdict, component)
    row = verdict.row("parity")
    ran = row is not None and row.record is not None
    mode = "parity-debug" if ran else "prototype" if _dumped(found) else "parity-scaffold"
    found["mode"] = mode
    found["conversion"] = {
        "script": conversion["script"],
        "converted_component_dir": _there(port, str(conversion["converted_component_dir"])),
        "model_index_library": conversion["model_index_library"],
        "config_file": conversion["config_file"],
        "mapping_notes": conversion["mapping_notes"],
        "production_loader_strictness": conversion["production_loader_strictness"],
        "strict_load": conversion["strict_load"],
    }
    found["concerns_or_unknowns"] = [*facts.concerns(port, component), *concerns(port, component)]
    return {name: found[name] for name in ORDER}


ORDER = (
    *("model_family", "component", "component_type", "mode", "official_ref_dir", "official_definition_files"),
    *("official_instantiation_files", "official_weight_source", "weights", "tokenizer", "fastvideo_target_files"),
    *("local_tests_readme", "port_state_file", "parity_test", "prototype_key_dumps", "conversion"),
    "concerns_or_unknowns",
)


def missing(port: Port, component: Component, mode: str) -> list[str]:
    """`field: unknown (looked at: ...)` of each field that the mode cannot do without, and that is not known.

    Everything else may stay unknown: a file that defines a class, say, is for people.
    """
    found, made = _known(port, component), _instantiation(port, component)
    definition = found["official_definition_files"][0]
    needed: list[tuple[str, Any]] = [("official_definition_files", definition["symbols"] or definition["path"])]
    if mode != "parity-scaffold":
        needed.append(("official_instantiation_files", made["symbols"]))
        needed.append(("fastvideo_target_files", found["fastvideo_target_files"]))
    if mode == "prototype" and not component.official.startswith("oracle:"):
        needed.append(("official_instantiation_files (args)", made["args"]))
    if mode == "parity-debug":
        needed += [(name, found[name]) for name in ("official_weight_source", "parity_test")]
    return [f"{name} is {words}" for name, value in needed for words in _unknowns(value)]


def require(port: Port, component: Component, mode: str) -> None:
    """BlockedError that names the fields, where the packet is not complete enough for the mode."""
    lacking = missing(port, component, mode)
    if lacking:
        what = f"the packet of {component.name} is incomplete for {mode}: {'; '.join(lacking)}"
        raise BlockedError(what, where=str(port.file), todo=f"fvport packet {component.name} prints all of it")


def _unknowns(value: Any) -> Iterator[str]:
    """Every `unknown ...` in a value, however deep."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _unknowns(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _unknowns(inner)
    elif isinstance(value, str) and value.startswith("unknown"):
        yield value


def _known(port: Port, c: Component) -> Block:
    """The fields that need no evidence."""
    reference, folder, _ = facts.ref(port)
    return {
        "model_family": port.slug,
        "component": c.name,
        "component_type": TYPES.get(c.kind, "generic"),
        "official_ref_dir": folder,
        "official_definition_files": [official_files.definition(port, c, reference)],
        "official_instantiation_files": [_instantiation(port, c)],
        "official_weight_source": _weight_source(port, c),
        "weights": facts.rel(port, port.load_tree / (c.weights or c.name)),
        "tokenizer": _tokenizer(port, c),
        "fastvideo_target_files": _targets(port, c),
        **facts.state_files(port),
        "parity_test": _test(port, c),
        "prototype_key_dumps": facts.dumps(c, port),
    }


def _test(port: Port, c: Component) -> str:
    if not c.needs_parity:
        return "none (passthrough)"
    path = port.test_file(c)
    return path if (port.root / path).is_file() else unknown(path)


def _targets(port: Port, c: Component) -> list[str]:
    if c.mode not in ("port", "reuse"):
        return [f"none ({c.mode})"]
    files = [c.native_file, c.config_file] if c.config else [c.native_file]
    own = c.mode == "port"  # FastVideo's own file lies in the workspace, which may not be made yet
    return [path if not own or (port.root / path).is_file() else unknown(path) for path in files]


def _weight_source(port: Port, c: Component) -> str:
    """Where the weights lie, and the digest by which port.lock.json knows them."""
    from fvport import evidence as ev

    if not c.has_weights:
        return "none (no weights)"
    folder = port.official_tree / (c.weights or c.name)
    shown = f"{port.official.weights}/{c.weights or c.name}"
    if not folder.is_dir():
        return unknown(shown, "port.lock.json")
    entry = ev.lock(port).get("components", {}).get(c.name, {})
    files = [f for f in entry.get("files", []) if isinstance(f, dict)] if isinstance(entry, dict) else []
    hashed = sum(bool(f.get("blake3")) for f in files)
    return f"{shown} ({hashed} of {len(files)} files locked)" if files else f"{shown} (not locked: fvport prep)"


def _tokenizer(port: Port, c: Component) -> str:
    if c.kind != "text_encoder":
        return "none needed"
    if not c.tokenizer:
        return unknown(f"{port.file.name} components.{c.name}.tokenizer", "model_index.json of the release")
    folder = port.official_tree / c.tokenizer
    return f"{port.official.weights}/{c.tokenizer}" if folder.is_dir() else unknown(str(c.tokenizer))


def _there(port: Port, path: str) -> str:
    return path if (port.root / path).exists() else unknown(path)


def _dumped(found: Block) -> bool:
    return not any(str(path).startswith("unknown") for path in found["prototype_key_dumps"].values())


# --- how the official side is instantiated ----------------------------------------------------------------------------


def _instantiation(port: Port, c: Component) -> Block:
    """oracle.py's build function with the calls it makes, and the configuration that decides the arguments."""
    oracle = port.folder / "oracle.py"
    name, path = f"build_{c.name}", facts.rel(port, oracle)
    found = _function(oracle, name)
    config = _config(port, c)
    if found is None:
        return {"path": path, "symbols": [unknown(f"{path}: def {name}")], "args": config}
    return {"path": f"{path}:{found.lineno}", "symbols": [name], "calls": _calls(found, c), "args": config}


def _config(port: Port, c: Component) -> str:
    """The JSON whose values are the official constructor's arguments."""
    if not c.needs_parity:
        return "none needed"
    name = "scheduler_config.json" if c.kind == "scheduler" else "config.json"
    inside = f"{c.weights or c.name}/{name}"
    found = (port.official_tree / inside).is_file()
    return f"{port.official.weights}/{inside}" if found else unknown(f"{port.official.weights}/{inside}")


def _function(file: Path, name: str) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def _calls(function: ast.FunctionDef, c: Component) -> list[str]:
    """Calls in it that make the object: those of the official class, or of something called from_pretrained."""
    wanted = (c.official.partition(":")[2] or "from_pretrained", "from_pretrained", "from_config")
    calls = [ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Call)]
    found = [text for text in calls if any(text.partition("(")[0].endswith(word) for word in wanted)]
    found = [text for text in found if not any(text in other for other in found if other != text)]
    return list(dict.fromkeys(found)) or [ast.unparse(function.body[-1])]


# --- what a person should know ----------------------------------------------------------------------------------------

OWN_CODE_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def remote_code(port: Port, c: Component) -> list[str]:
    """`file: class that the release wants to bring itself`, from `auto_map` of its JSON files."""
    parts = dict.fromkeys([c.weights or c.name, *([c.tokenizer] if c.tokenizer else [])])
    found = []
    for part in parts:
        for name in OWN_CODE_FILES:
            mapped = _json(port.official_tree / part / name).get("auto_map")
            if isinstance(mapped, dict) and mapped:
                found.append(f"{part}/{name}: {', '.join(sorted(map(str, mapped)))}")
    return found


def concerns(port: Port, c: Component) -> list[str]:
    """What the release says that a port may get wrong, in plain sentences."""
    found = [f"the release would bring code of its own ({where}): it is never run" for where in remote_code(port, c)]
    if c.kind == "text_encoder" and c.tokenizer:
        said = _json(port.official_tree / c.tokenizer / "tokenizer_config.json")
        if said and not said.get("pad_token"):
            found.append("the tokenizer has no pad token: FastVideo's loader puts the end token in its place")
        if said.get("padding_side") == "left":
            found.append(
                "the tokenizer pads on the left: the arch config must say padding_side, or FastVideo pads right"
            )
        sides = _sides(port)
        if len(set(sides.values())) > 1:
            shown = ", ".join(f"{name} {side}" for name, side in sides.items())
            found.append(f"tokenizers pad on different sides ({shown}), and FastVideo's loader gives all of them one")
    return found


def _sides(port: Port) -> dict[str, str]:
    texts = [c for c in port.components.values() if c.kind == "text_encoder" and c.tokenizer]
    said = {c.name: _json(port.official_tree / c.tokenizer / "tokenizer_config.json") for c in texts}
    return {name: str(config.get("padding_side", "right")) for name, config in said.items() if config}


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
