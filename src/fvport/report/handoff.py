# SPDX-License-Identifier: Apache-2.0
"""Handoff blocks of FastVideo's add-model contracts, filled from port.toml, the tree and the evidence.

Every field of a block is there. What is not known is `unknown` with the search that was made. Tokens appear as the name
of an environment variable only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import gate
from fvport.errors import UsageError, did_you_mean
from fvport.gate import Verdict
from fvport.report import plan
from fvport.spec import Component, Port

Block = dict[str, Any]
TOKENS = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_API_KEY")


def block(port: Port, kind: str, component: str | None = None) -> Block:
    """One handoff block: prep, component, parity, conversion, pipeline or final. `component` needs a name."""
    if kind not in KINDS:
        raise UsageError(f'no handoff "{kind}" (there are: {", ".join(KINDS)}).{did_you_mean(kind, KINDS)}')
    verdict = gate.decide(port)
    if kind == "component":
        if not component:
            raise UsageError("a component handoff needs a component", todo=f"One of: {', '.join(port.components)}")
        return _component(port, verdict, port.component(component))
    return KINDS[kind](port, verdict)


def text(block: Block) -> str:
    """The block as YAML that a person reads and a tool parses (every scalar is a JSON string or number)."""
    return "\n".join(_yaml(block, 0))


def _yaml(value: Any, depth: int) -> list[str]:
    pad, lines = "  " * depth, []
    pairs = value.items() if isinstance(value, dict) else ((None, v) for v in value)
    for key, inner in pairs:
        head = f"{pad}{key}:" if key is not None else f"{pad}-"
        if isinstance(inner, dict | list) and inner:
            lines += [head, *_yaml(inner, depth + 1)]
        else:
            lines.append(f"{head} {json.dumps(inner, ensure_ascii=False, default=str)}")
    return lines


def unknown(*searched: str) -> str:
    return f"unknown (looked at: {', '.join(searched)})"


# --- what several blocks say -----------------------------------------------------------------------------------------


def _rel(port: Port, path: Path) -> str:
    return path.relative_to(port.root).as_posix()


def _state_files(port: Port) -> Block:
    return {
        "local_tests_readme": _rel(port, port.folder / "README.md"),
        "port_state_file": _rel(port, port.folder / "PORT_STATUS.md"),
    }


def _escape(port: Port, verdict: Verdict, kind: str = "") -> Block:
    """Needed only for what a tool cannot decide: here a waiver that does not hold, or nothing."""
    broken = [risk for risk in verdict.risks if risk.startswith("waiver ")]
    return {
        "needs_user_input": bool(broken),
        "decision_type": "blocker" if broken else "none",
        "question": broken[0] if broken else "",
        "recommended_option": "clear the blocker; else renew the waiver and its row in PORT_STATUS.md"
        if broken
        else "",
        "options": ["clear the blocker", "renew the waiver"] if broken else [],
        "safe_default": "the gate stays shut" if broken else "",
        "blocked_until_answered": bool(broken),
        "state_snapshot": {
            "phase": "{} {}".format(*plan.phase(verdict)),
            "files_changed": _changed(port),
            "command_or_test": verdict.next_step,
            "evidence": _rel(port, ev.folder(port)),
        },
    }


def _changed(port: Port) -> list[str]:
    from fvport.checks import _sources

    return _sources.paths(port)


def _official_files(port: Port) -> Block:
    """Where the official classes are defined and built."""
    repo = port.official.repo or f"package {port.official.library}"
    return {name: f"{c.official} ({repo})" for name, c in port.components.items() if c.official}


def _ref(port: Port) -> tuple[str, str, str]:
    """(official reference, its folder, its commit)."""
    lock = ev.lock(port).get("official", {})
    if port.official.repo:
        name = port.official.repo.rstrip("/").removesuffix(".git").rpartition("/")[2]
        commit = port.official.commit or lock.get("commit") or unknown("port.toml [official]", "port.lock.json")
        return port.official.repo, name, commit
    library = port.official.library or "diffusers"
    version = ev.package_digest(library).partition("==")[2]
    commit = version or unknown("installed distributions")
    return f"{library} {version}".strip(), f"installed package {library}", commit


def _index(port: Port, folder: Path) -> Block:
    try:
        return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _strict(verdict: Verdict, component: Component, port: Port) -> str:
    """Strict-load word: not_run, pass, pass_with_documented_exclusions, blocked."""
    word = plan.status(verdict, "conversion", component.name)
    if word == "non_skip_pass":
        return "pass_with_documented_exclusions" if component.mapping.exclude else "pass"
    row = verdict.row("conversion")
    return "not_run" if row is None or row.record is None else "blocked"


def _strictness(component: Component) -> str:
    """What FastVideo's own loader checks for this kind (fvport's coverage is strict for all)."""
    if not component.has_weights:
        return "stateless"
    return "strict" if component.kind == "dit" else "non_strict_with_allowed_keys"


def _dumps(component: Component, port: Port) -> Block:
    folder = f"converted_weights/{port.slug}/_mapping"
    found = {}
    for side in ("official", "fastvideo"):
        path = f"{folder}/{component.name}_{side}_keys.json"
        found[side] = path if (port.root / path).is_file() else unknown(path)
    return found


def _row_status(verdict: Verdict, check: str) -> str:
    row = verdict.row(check)
    return "not in the gate" if row is None else f"{row.verdict} ({row.status})"


def _blockers(verdict: Verdict) -> list[str]:
    return [f"{row.check}: {row.reasons[0] if row.reasons else row.state}" for row in verdict.red]


def _concerns(port: Port, c: Component) -> list[str]:
    found = [f"config field {key} is ignored: {why}" for key, why in c.config_ignored.items()]
    found += [f"official keys {key} are not loaded: {why}" for key, why in c.mapping.exclude.items()]
    if c.tolerance.mode == "fixed":
        found.append(f"fixed tolerance: {c.tolerance.reason}")
    if c.mode == "external":
        found.append(f"external wrapper: {c.reason}")
    return found


# --- the blocks ------------------------------------------------------------------------------------------------------


def _prep(port: Port, verdict: Verdict) -> Block:
    reference, folder, commit = _ref(port)
    index = _index(port, port.official_weights)
    lock = ev.lock(port)
    parity = verdict.row("parity")
    ran = parity is not None and parity.record is not None and parity.record.verdict == "pass"
    return {
        "model_family": port.slug,
        "workload_types": list(port.port.workload_types),
        "official_ref": reference,
        "official_ref_dir": folder,
        "official_ref_commit": commit,
        "hf_weights_path": lock.get("hub_id") or lock.get("source") or unknown("port.lock.json"),
        "hf_revision": port.official.revision,
        "local_weights_dir": port.official.weights,
        "source_layout": port.official.layout,
        "model_index_class": index.get("_class_name") or unknown(f"{port.official.weights}/model_index.json"),
        "components_seen": [key for key in index if not key.startswith("_")] or list(port.components),
        "needs_conversion": "yes" if port.official.needs_conversion else "no",
        "hf_token_env": next((name for name in TOKENS if os.environ.get(name)), "none set"),
        "dependency_changes": port.official.requirements or "none",
        "official_env_status": "imports_ok" if ran else unknown("evidence of parity"),
        **_state_files(port),
        "gitignore_entries_added": "none (.git/info/exclude: .fvport official_weights converted_weights)",
        "next_step": verdict.next_step,
        "open_questions": _open_questions(port),
        "escape_hatch": _escape(port, verdict),
    }


def _open_questions(port: Port) -> list[str]:
    """Rows Q### of PORT_STATUS.md that are not closed."""
    status = port.folder / "PORT_STATUS.md"
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return [line.strip("| ") for line in lines if line.startswith("| Q") and "resolved" not in line.lower()]


def _component(port: Port, verdict: Verdict, c: Component) -> Block:
    """component_context and component_skill_handoff in one: what a component is, and how far it is."""
    parity = plan.status(verdict, "parity", c.name)
    row = verdict.row("parity")
    mine = [i for i in (row.record.items if row and row.record else []) if gate._speaks_of(i, c.name)]
    red = [item.reason for item in mine if item.verdict != "pass"]
    files = [c.native_file, c.config_file] if c.mode == "port" else []
    reference, folder, _ = _ref(port)
    return {
        "model_family": port.slug,
        "component": c.name,
        "component_type": c.kind,
        "mode": "parity-debug" if row and row.record else "parity-scaffold",
        "official_ref_dir": folder,
        "official_definition_files": [
            {"path": c.official, "symbols": [c.official.partition(":")[2]], "notes": reference}
        ],
        "official_instantiation_files": [
            {
                "path": _rel(port, port.folder / "oracle.py"),
                "symbols": [f"build_{c.name}"],
                "args": _config_file(port, c),
            }
        ],
        "official_files_used": [c.official],
        "official_weight_source": f"{port.official.weights}/{c.weights}" if c.weights else port.official.weights,
        "fastvideo_target_files": [c.native_file, c.config_file] if c.config else [c.native_file],
        **_state_files(port),
        "files_changed": [path for path in [*files, port.test_file(c)] if path],
        "prototype_key_dumps": _dumps(c, port),
        "conversion": _conversion_of(port, verdict, c),
        "parity_test": port.test_file(c) if c.needs_parity else "none (passthrough)",
        "parity_status": parity if c.needs_parity else "not needed (passthrough)",
        "production_loader_strictness": _strictness(c),
        "strict_load": _strict(verdict, c, port),
        "pytest_output": "; ".join(f"{i.name}: {i.verdict}" for i in mine) or unknown("evidence of parity"),
        "blocker": red[0] if red else "",
        "conversion_retry_request": _retry(port, verdict, c),
        "readme_updated": (port.folder / "README.md").is_file(),
        "next_step": _next_of(verdict, c, parity),
        "concerns_or_unknowns": _concerns(port, c),
        "escape_hatch": _escape(port, verdict),
    }


def _config_file(port: Port, c: Component) -> str:
    name = "scheduler_config.json" if c.kind == "scheduler" else "config.json"
    path = f"{port.official.weights}/{c.weights or c.name}/{name}"
    return path if (port.root / path).is_file() else unknown(path)


def _conversion_of(port: Port, verdict: Verdict, c: Component) -> Block:
    entry = _index(port, port.load_tree).get(c.name)
    script = f"scripts/checkpoint_conversion/{port.slug}_to_diffusers.py"
    signed = f"signed by {c.mapping.signed_by} on {c.mapping.signed_on}" if c.mapping.signed_by else "not signed"
    return {
        "component": c.name,
        "script": script if (port.root / script).is_file() else "none needed (the load tree links the weights)",
        "converted_component_dir": f"converted_weights/{port.slug}/{c.weights or c.name}",
        "model_index_library": entry[0] if isinstance(entry, list) else unknown("the load tree's model_index.json"),
        "config_file": "scheduler_config.json" if c.kind == "scheduler" else "config.json",
        "config_validation": plan.status(verdict, "config", c.name),
        "mapping_notes": signed,
        "production_loader_strictness": _strictness(c),
        "strict_load": _strict(verdict, c, port),
        "retry_resolved": plan.status(verdict, "keys", c.name) == "non_skip_pass",
        "concerns": _concerns(port, c),
    }


def _retry(port: Port, verdict: Verdict, c: Component) -> Block:
    row = verdict.row("keys")
    items = [i for i in (row.record.items if row and row.record else []) if gate._speaks_of(i, c.name)]
    red = [item.reason for item in items if item.verdict != "pass"]
    return {
        "component": c.name,
        "parity_test": port.test_file(c),
        "failing_keys": red,
        "expected_actual_shapes": [reason for reason in red if "shape" in reason],
        "source_prefix_or_path": c.weights or c.name,
        "evidence": _rel(port, ev.folder(port) / "keys.json"),
        "suspected_fix": "unknown (looked at: evidence of keys)" if red else "none",
    }


def _next_of(verdict: Verdict, c: Component, parity: str) -> str:
    if parity == "non_skip_pass" or not c.needs_parity:
        return "none: this component is done"
    keys = plan.status(verdict, "keys", c.name)
    return "phase_6_continue" if keys == "non_skip_pass" else "phase_5_conversion"


def _parity(port: Port, verdict: Verdict) -> Block:
    pipeline = f"tests/local_tests/pipelines/test_{port.slug}_pipeline_parity.py"
    return {
        "component_parity": [
            {
                "component": name,
                "test": port.test_file(c),
                "status": plan.status(verdict, "parity", name),
                "missing": _missing(verdict, name),
                "coverage_scope": c.scope,
                "official_files": [c.official],
                "concerns": _concerns(port, c),
            }
            for name, c in port.components.items()
            if c.needs_parity
        ],
        "pipeline_parity": {"test": pipeline, "status": _row_status(verdict, "pipeline")},
        **_state_files(port),
        "notes": [note for row in verdict.rows if row.record for note in row.record.notes],
        "escape_hatch": _escape(port, verdict),
    }


def _missing(verdict: Verdict, name: str) -> str:
    row = verdict.row("parity")
    if row is None or row.record is None:
        return "never run"
    return next((i.reason for i in row.record.items if gate._speaks_of(i, name) and i.verdict == "blocked"), "")


def _conversion(port: Port, verdict: Verdict) -> Block:
    script = f"scripts/checkpoint_conversion/{port.slug}_to_diffusers.py"
    weighty = [c for c in port.components.values() if c.mode != "passthrough"]
    words = {_strict(verdict, c, port) for c in weighty if c.has_weights}
    worst = next((w for w in ("blocked", "not_run", "pass_with_documented_exclusions") if w in words), "pass")
    return {
        "conversion_script": script if (port.root / script).is_file() else "none needed",
        "source_layout": port.official.layout,
        "converted_weights_dir": _rel(port, port.load_tree),
        **_state_files(port),
        "components_written": [c.name for c in weighty if (port.load_tree / (c.weights or c.name)).is_dir()],
        "passthrough_components": [c.name for c in port.components.values() if c.mode == "passthrough"],
        "strict_load": worst,
        "component_context_updates": [_conversion_of(port, verdict, c) for c in weighty],
        "blocked_on": [b for b in _blockers(verdict) if b.startswith(("mapping", "keys", "conversion"))],
        "next_step": verdict.next_step,
        "escape_hatch": _escape(port, verdict),
    }


def _pipeline(port: Port, verdict: Verdict) -> Block:
    """pipeline_context and pipeline_handoff in one."""
    slug, call = port.slug, port.official.pipeline
    index = _index(port, port.load_tree)
    modules = [key for key in index if not key.startswith("_")]
    passthrough = [c.name for c in port.components.values() if c.mode == "passthrough"]
    folder = f"fastvideo/pipelines/basic/{slug}"
    smoke = verdict.row("smoke")
    entry = _entry(port, folder)
    config = f"fastvideo/configs/pipelines/{slug}.py"
    tests = "tests/local_tests/pipelines"
    row = verdict.row("pipeline")
    said = "; ".join(i.name for i in row.record.items) if row and row.record else unknown("evidence of pipeline")
    return {
        "model_family": slug,
        "mode": "pipeline",
        "workload_types": list(port.port.workload_types),
        "modalities": {
            "inputs": [w[0] for w in port.port.workload_types],
            "outputs": [w[-1] for w in port.port.workload_types],
        },
        "official_ref_dir": _ref(port)[1],
        "official_pipeline_files": [call.cls],
        "official_files_used": [call.cls],
        "official_call": {
            "command_or_api": call.cls,
            "args_and_defaults": dict(call.call),
            "preset_source": {k: v.source for values in port.presets.values() for k, v in values.items()},
            "scheduler_and_rng": {"seeds": list(call.seeds), "scheduler": _scheduler(port)},
            "output_contract": {k: call.call[k] for k in ("height", "width", "num_frames") if k in call.call},
        },
        "model_index": {
            "class_name": index.get("_class_name") or unknown(f"{_rel(port, port.load_tree)}/model_index.json"),
            "entry_class_names": entry,
            "required_modules": modules or unknown("the load tree's model_index.json"),
            "passthrough_modules": passthrough,
        },
        "required_config_modules": {
            "emitted": modules,
            "model_index": _rel(port, port.load_tree / "model_index.json"),
            "status": _row_status(verdict, "smoke"),
        },
        "pipeline_class_resolution": {
            "model_index_class_name": index.get("_class_name") or unknown("the load tree's model_index.json"),
            "entry_class_names": entry,
            "status": _row_status(verdict, "smoke"),
        },
        "sampling_param": {
            "new_fields": [],
            "cli_fields": [],
            "placeholder_fields": [],
            "fields_added": [],
            "cli_fields_added": [],
            "unknown_kwargs_checked": plan.status(verdict, "config", "presets"),
        },
        "stage_chain": unknown("evidence of pipeline") if not (row and row.record) else said,
        "components": {name: plan.component_status(verdict, c) for name, c in port.components.items()},
        "conversion": {"dir": _rel(port, port.load_tree), "status": _row_status(verdict, "conversion")},
        "pipeline_config": {
            "file": config,
            "classes": _classes(port.root / config),
            "official_defaults_checked": _row_status(verdict, "config"),
        },
        "presets": {
            "file": f"{folder}/presets.py",
            "names": list(port.presets),
            "status": _row_status(verdict, "smoke"),
        },
        "registry": {"status": _row_status(verdict, "smoke"), "detectors": _items(smoke, "detector")},
        "fastvideo_targets": {
            "pipeline": f"{folder}/{slug}_pipeline.py",
            "stages": f"{folder}/stages/" if (port.root / folder / "stages").is_dir() else "FastVideo's own",
            "pipeline_config": config,
            "presets": f"{folder}/presets.py",
            "registry": "fastvideo/registry.py",
            "examples": f"examples/inference/basic/basic_{slug}.py",
            "smoke_test": f"{tests}/test_{slug}_pipeline_smoke.py",
            "parity_test": f"{tests}/test_{slug}_pipeline_parity.py",
        },
        "files_changed": _changed(port),
        "smoke_test": {"path": f"{tests}/test_{slug}_pipeline_smoke.py", "status": _row_status(verdict, "smoke")},
        "pipeline_parity": {
            "path": f"{tests}/test_{slug}_pipeline_parity.py",
            "status": _row_status(verdict, "pipeline"),
            "pytest_output": said,
            "comparison_target": call.cls,
        },
        "example": {
            "path": f"examples/inference/basic/basic_{slug}.py",
            "status": _row_status(verdict, "example"),
            "output": _artifacts(verdict, "example"),
        },
        **_state_files(port),
        "readme_updated": (port.folder / "README.md").is_file(),
        "port_state_updated": (port.folder / "PORT_STATUS.md").is_file(),
        "blockers": _blockers(verdict),
        "concerns": verdict.risks,
        "next_step": _pipeline_next(verdict),
        "escape_hatch": _escape(port, verdict),
    }


def _pipeline_next(verdict: Verdict) -> str:
    parity, pipeline = verdict.row("parity"), verdict.row("pipeline")
    if parity is None or parity.verdict not in ("pass", "waived"):
        return "return_to_phase_6"
    return "phase_10_quality_regression" if pipeline and pipeline.verdict in ("pass", "waived") else "phase_7_continue"


def _entry(port: Port, folder: str) -> list[str]:
    from fvport.checks import _classes

    files = sorted((port.root / folder).glob("*.py"))
    return [name for file in files for name in _classes.entry_class(file) or []] or [unknown(f"{folder}/*.py")]


def _classes(path: Path) -> list[str]:
    import ast

    from fvport.checks import _classes

    tree = _classes.parse(path)
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)] if tree else [unknown(path.name)]


def _scheduler(port: Port) -> str:
    return next((c.official for c in port.components.values() if c.kind == "scheduler"), "none declared")


def _items(row: gate.Row | None, word: str) -> list[str]:
    items = row.record.items if row and row.record else []
    return [item.reason or item.name for item in items if word in (item.name + item.reason).lower()] or [
        unknown("evidence of smoke")
    ]


def _artifacts(verdict: Verdict, check: str) -> list[str]:
    row = verdict.row(check)
    return row.record.artifacts if row and row.record else []


def _final(port: Port, verdict: Verdict) -> Block:
    prep = _prep(port, verdict)
    open_fields = [key for key, value in prep.items() if isinstance(value, str) and value.startswith("unknown")]
    boundary = verdict.row("boundary")

    def rule(name: str) -> str:
        return "no" if boundary and boundary.passed(name) else f"not proven: {_row_status(verdict, 'boundary')}"

    return {
        "workspace": verdict.workspace,
        "branch": verdict.branch,
        "plan": [{"item": i["text"], "done": i["done"]} for i in verdict.plan],
        "gate": verdict.verdict,
        "summary": verdict.summary,
        "prep_handoff_complete": "yes" if not open_fields else f"no: {', '.join(open_fields)}",
        "conversion_status": _row_status(verdict, "conversion"),
        "components": [
            {
                "name": name,
                "reuse_or_port": c.mode,
                "parity_test": port.test_file(c) if c.needs_parity else "none (passthrough)",
                "parity_status": plan.status(verdict, "parity", name) if c.needs_parity else "not needed (passthrough)",
                "concerns": _concerns(port, c),
            }
            for name, c in port.components.items()
        ],
        "pipeline_smoke": _row_status(verdict, "smoke"),
        "pipeline_parity": _row_status(verdict, "pipeline"),
        "example_status": _row_status(verdict, "example"),
        "quality_regression": _row_status(verdict, "ssim"),
        **_state_files(port),
        "token_values_committed": rule("FV304"),
        "runtime_third_party_model_imports": rule("FV301"),
        "mappings_signed": verdict.signatures,
        "blockers": _blockers(verdict),
        "residual_risks": verdict.risks,
        "escape_hatch": _escape(port, verdict),
    }


KINDS: dict[str, Any] = {
    "prep": _prep,
    "component": None,
    "parity": _parity,
    "conversion": _conversion,
    "pipeline": _pipeline,
    "final": _final,
}
