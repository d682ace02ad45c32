# SPDX-License-Identifier: Apache-2.0
"""Reference pages from the code: port.toml from spec.py, the commands from the CLI, the planted faults."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ci.site_rules import cell

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "src" / "fvport" / "spec.py"
FAULTS = ROOT / "tests" / "test_end_to_end_faults.py"

TABLES = {  # dataclass -> its table in port.toml, and one sentence
    "PortInfo": ("port", "What is ported."),
    "FastVideoSource": ("fastvideo", "Which FastVideo the port is made for."),
    "Official": ("official", "The original: its code and its weights."),
    "OfficialPipeline": ("official.pipeline", "How the original is called."),
    "Component": ("components.NAME", "One part of the model, such as `transformer` or `vae`."),
    "Tolerance": ("components.NAME.tolerance", "How far the native outputs may lie from the official ones."),
    "MappingReview": ("components.NAME.mapping", "What a person has said of the weight mapping."),
    "Variant": ("variants[]", "Another release of the same model, with pipeline, config and preset of its own."),
    "PresetValue": ("presets.NAME.KEY", "A default of the model, and where it is written."),
    "Quality": ("quality", "How generated media are compared."),
    "Gate": ("gate", "What must be green."),
    "Waiver": ("waivers[]", "A red check that a person has excused until a day."),
}
MEANINGS = {  # of keys that have no comment in the code
    "PortInfo.model": "the model's name, as people say it",
    "PortInfo.slug": "name of files and modules; the folder of port.toml is called so",
    "PortInfo.workload_types": "what goes in and comes out: t2v, i2v, t2i, i2i, t2a, v2a, v2v",
    "FastVideoSource.source": "where FastVideo comes from: the installed wheel, a worktree of a checkout, or a clone",
    "FastVideoSource.version": "its version",
    "FastVideoSource.repo": "address or folder of the repository, for worktree and clone",
    "FastVideoSource.ref": "branch, tag or commit of it",
    "FastVideoSource.branch_prefix": "the port's branch is called this and the slug",
    "OfficialPipeline.call": "arguments of the call, such as frames, height, width, steps",
    "OfficialPipeline.prompts": "the texts that it is called with",
    "OfficialPipeline.images": "files (from the root) that a call begins with, and one to change to; none: drawn",
    "OfficialPipeline.videos": "videos (from the root) that a call begins with, and one to change to; none: drawn",
    "OfficialPipeline.negative_prompt": "the negative text",
    "OfficialPipeline.seeds": "seeds of the noise",
    "Official.library": "the Python library that has the official classes, such as `diffusers`",
    "Official.repo": "address of the official code, where it is in no library",
    "Official.commit": "the commit of it that the port is checked against",
    "Official.import_root": "the folder that the official code is imported from",
    "Official.requirements": "what the official code needs to be installed",
    "Official.weights": "the release: a folder relative to the port, or a hub id",
    "Official.revision": "the hub's revision of it",
    "Official.layout": "how the release lies on disk",
    "Official.needs_conversion": "whether `fvport convert` first makes a Diffusers release of it",
    "Official.pipeline": "a table of its own, below",
    "Tolerance.mode": "`calibrated`: by the official model's own rounding error; `fixed`: atol and rtol, with a reason",
    "Tolerance.factor": "how many floors are allowed, 1 to 10; above 3 with a reason",
    "Tolerance.atol": "absolute, for fixed",
    "Tolerance.rtol": "relative, for fixed",
    "Tolerance.reason": "why, where it is not the default",
    "MappingReview.signed_by": "who signed; written by `fvport mapping review --sign`",
    "MappingReview.signed_on": "when",
    "MappingReview.digest": "of the rules that were signed",
    "Component.name": "the table's own name; not written",
    "Component.kind": "what it is; the closed list is `KINDS` in `words.py`: dit, vae, text_encoder, scheduler ...",
    "Component.mode": "`port`: new code; `reuse`: FastVideo's class; `passthrough`: copied; `external`: a wrapper",
    "Component.archetype": "the archetype that the code was made from",
    "Component.official": "the official class, `module:Class`",
    "Component.native": "the native class, `module:Class`",
    "Component.config": "the native config's class, `module:Class`",
    "Component.weights": "folder of its weights in the release, where it is not the component's name",
    "Component.scope": "what parity compares: what the production loader gives, a submodule, or both",
    "Component.tolerance": "a table of its own, below",
    "Component.tiny": "fields of a small twin; declared, and not used by any check yet",
    "Component.mapping": "a table of its own, below",
    "Component.tokenizer": "folder of the tokenizer that belongs to it",
    "Component.path": "the wrapper's file, for external",
    "Component.reason": "why, for external",
    "Variant.name": "its name: a part of its files' and classes' names",
    "Variant.weights": "its release: folder, or hub id",
    "Variant.revision": "branch, tag or commit of a hub id",
    "PresetValue.value": "the default",
    "PresetValue.source": "where the original says so",
    "Quality.metric": "ssim, ms_ssim, mel_l1 or mr_stft",
    "Quality.threshold": "least similarity (or greatest distance, of sounds)",
    "Quality.reference": "`official`: made by the official pipeline here; `approved`: one that a person approved",
    "Quality.store": "where approved references lie: a folder or any fsspec address",
    "Quality.audio_threshold": "greatest distance of the sound, up to 0.5",
    "Gate.checks": "the checks that must be green",
    "Gate.require_device": "whose evidence counts: cuda or cpu",
    "Gate.require_scale": "`full` for the real weights",
    "Gate.strength": "least share of planted faults that parity must see",
    "Waiver.id": "its name",
    "Waiver.check": "the check that it excuses",
    "Waiver.reason": "why",
    "Waiver.approved_by": "who",
    "Waiver.expires": "the day after which it counts no more",
}


def fields() -> dict[str, list[dict[str, str]]]:
    """{dataclass: [{key, type, default, comment}]} of spec.py, from its text: comments are a part of the schema."""
    text = SPEC.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, list[dict[str, str]]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name in TABLES:
            found[node.name] = [_field(item, lines) for item in node.body if isinstance(item, ast.AnnAssign)]
    return found


def _field(item: ast.AnnAssign, lines: list[str]) -> dict[str, str]:
    assert isinstance(item.target, ast.Name)
    line = lines[item.end_lineno - 1] if item.end_lineno else ""
    comment = line.partition("  # ")[2]
    default = "" if item.value is None else ast.unparse(item.value)
    return {"key": item.target.id, "type": _type(item.annotation), "default": _default(default), "comment": comment}


def _type(node: ast.expr) -> str:
    text = ast.unparse(node)
    if text.startswith("typing.Literal["):
        return "one of " + ", ".join(part.strip(" '") for part in text[15:-1].split(","))
    if text.startswith("tuple["):
        return "list of " + {"str": "texts", "int": "numbers"}[text[6:].split(",")[0]]
    words = {"str": "text", "bool": "true or false", "float": "number", "int": "whole number", "Any": "any value"}
    return "date" if text == "datetime.date" else words.get(text, "table")


def _default(text: str) -> str:
    if text.startswith("field("):
        return "{}" if "dict" in text else ""
    words = {"": "required", "()": "[]", "False": "false", "True": "true", "CHECKS": "all", "''": '""'}
    return words.get(text, text.replace("'", '"').replace("(0,)", "[0]"))


def meaning(table: str, field: dict[str, str]) -> str:
    """What a key means. KeyError: a new key needs a comment in spec.py or a line in MEANINGS."""
    return MEANINGS.get(f"{table}.{field['key']}") or field["comment"] or MEANINGS[f"{table}.{field['key']}"]


def port_toml() -> str:
    lines = [
        "# port.toml",
        "",
        "A port's one declaration: `tests/local_tests/SLUG/port.toml`. Made from the schema in the code, `spec.py`.",
        "An unknown key, a wrong type or an unknown word is refused with file, line and key (exit code 2).",
        "The first line of the file is `schema = 1`. A file of a newer schema is refused, not guessed at.",
    ]
    for table, rows in fields().items():
        name, sentence = TABLES[table]
        head = f"[[{name[:-2]}]]" if name.endswith("[]") else f"[{name}]"
        lines += [
            "",
            f"## `{head}`",
            "",
            sentence,
            "",
            "| key | type | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for row in rows:
            if (table, row["key"]) == ("Component", "name"):
                continue
            key = "class" if row["key"] == "cls" else row["key"]
            default = f"`{row['default']}`" if row["default"] not in ("", "required", "all") else row["default"]
            lines.append(f"| `{key}` | {row['type']} | {default} | {cell(meaning(table, row))} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The command reference, from the command tree itself."""
    import typer.main

    from fvport import cli

    root: Any = typer.main.get_command(cli.app)
    lines = [
        "# Commands",
        "",
        "Made from the command line itself. Exit codes: 0 pass, 1 fail, 2 wrong use, 3 blocked, 4 a fault of fvport,",
        "130 interrupted. `--json` writes one JSON document to standard output; messages go to standard error.",
        "",
        "## `fvport`",
        "",
        *_options(root),
    ]
    for name, command in sorted(root.commands.items()):
        lines += _command(f"fvport {name}", command)
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Any) -> list[str]:
    lines = ["", f"## `{name}`", "", cell(" ".join((command.help or "").split())), ""]
    if hasattr(command, "commands"):
        return [*lines[:-1], *(x for n, c in sorted(command.commands.items()) for x in _command(f"{name} {n}", c))]
    return [*lines, *_options(command)]


def _options(command: Any) -> list[str]:
    rows = []
    for item in command.params:
        argument = type(item).__name__.endswith("Argument")
        words = item.name.upper() if argument else ", ".join([*item.opts, *item.secondary_opts])
        default = item.default
        shown = "" if default in (None, "", False, [], ()) or callable(default) else f"`{default}`"
        if argument and item.required:
            shown = "required"
        rows.append(f"| `{words}` | {cell(item.help or '')} | {shown} |")
    return ["| option | meaning | default |", "| --- | --- | --- |", *rows] if rows else []


def faults() -> dict[str, list[dict[str, Any]]]:
    """{check: its planted faults}, from the table of the end-to-end test."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in ast.walk(ast.parse(FAULTS.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Fault":
            words = [arg.value if isinstance(arg, ast.Constant) else ast.unparse(arg) for arg in node.args]
            more = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg in ("also", "light")}
            row = {"id": words[0], "names": words[2], "first": words[1], "light": more.get("light", False)}
            for check in (words[1], *more.get("also", ())):
                found.setdefault(str(check), []).append(row)
    return found


def fault_table(check: str) -> str:
    """The block of a check's page: what the test suite plants in the demo's port for it. The stock fault is bold."""
    lines = ["| planted in the demo's port | first red | the red line names |", "| --- | --- | --- |"]
    for row in faults()[check]:
        name = f"**{row['id']}**" if row["light"] and row["first"] == check else row["id"]
        lines.append(f"| {name} | {row['first']} | `{cell(str(row['names']))}` |")
    return "\n".join(lines)
