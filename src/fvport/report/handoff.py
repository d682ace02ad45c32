# SPDX-License-Identifier: Apache-2.0
"""Handoff blocks of FastVideo's add-model contracts, filled from port.toml, the tree and the evidence.

Every field of a block is there; what is known for it is found by `handoff_facts.py`. Tokens appear as the name of an
environment variable only.
"""

from __future__ import annotations

import json
from typing import Any

from fvport import gate
from fvport.errors import UsageError, did_you_mean
from fvport.redact import READ_BY_THE_HUB
from fvport.report import handoff_component, handoff_prep, packet, plan
from fvport.report import handoff_facts as facts
from fvport.report.handoff_facts import Block, unknown
from fvport.spec import Component, Port
from fvport.verdict import Verdict, speaks_of

TOKENS = READ_BY_THE_HUB


def block(port: Port, kind: str, component: str | None = None) -> Block:
    """One handoff block: prep, component, parity, conversion, pipeline or final; `component` needs a name.

    A component's own name in place of a kind gives its component_skill_handoff.
    """
    if kind in port.components and kind not in KINDS:
        return handoff_component.block(port, gate.decide(port), port.component(kind))
    if kind not in KINDS:
        known = [*KINDS, *port.components]
        raise UsageError(f'no handoff "{kind}" (there are: {", ".join(known)}).{did_you_mean(kind, known)}')
    verdict = gate.decide(port)
    if kind == "component":
        if not component:
            raise UsageError("a component handoff needs a component", todo=f"One of: {', '.join(port.components)}")
        return _component(port, verdict, port.component(component))
    found: Block = KINDS[kind](port, verdict)
    return found


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


def _component(port: Port, verdict: Verdict, c: Component) -> Block:
    """component_context and component_skill_handoff in one: what a component is, and how far it is."""
    parity = plan.status(verdict, "parity", c.name)
    row = verdict.row("parity")
    mine = [i for i in (row.record.items if row and row.record else []) if speaks_of(i, c.name)]
    red = [item.reason for item in mine if item.verdict != "pass"]
    files = [c.native_file, c.config_file] if c.mode == "port" else []
    context = packet.block(port, c.name)
    return {
        **context,
        "official_files_used": [c.official],
        "files_changed": [path for path in [*files, port.test_file(c)] if path],
        "conversion": {**facts.conversion_of(port, verdict, c), **context["conversion"]},
        "parity_test": port.test_file(c) if c.needs_parity else "none (passthrough)",
        "parity_status": parity if c.needs_parity else "not needed (passthrough)",
        "production_loader_strictness": facts.strictness(c),
        "strict_load": facts.strict(verdict, c, port),
        "pytest_output": "; ".join(f"{i.name}: {i.verdict}" for i in mine) or unknown("evidence of parity"),
        "blocker": red[0] if red else "",
        "conversion_retry_request": handoff_component.retry(port, verdict, c),
        "readme_updated": (port.folder / "README.md").is_file(),
        "next_step": _next_of(verdict, c, parity),
        "escape_hatch": handoff_component.escape(port, verdict, c),
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
                "missing": facts.missing(verdict, name),
                "coverage_scope": c.scope,
                "official_files": [c.official],
                "concerns": facts.concerns(port, c),
            }
            for name, c in port.components.items()
            if c.needs_parity
        ],
        "pipeline_parity": {"test": pipeline, "status": facts.row_status(verdict, "pipeline")},
        **facts.state_files(port),
        "notes": [note for row in verdict.rows if row.record for note in row.record.notes],
        "escape_hatch": facts.escape(port, verdict),
    }


def _conversion(port: Port, verdict: Verdict) -> Block:
    script = f"scripts/checkpoint_conversion/{port.slug}_to_diffusers.py"
    weighty = [c for c in port.components.values() if c.mode != "passthrough"]
    words = {facts.strict(verdict, c, port) for c in weighty if c.has_weights}
    worst = next((w for w in ("blocked", "not_run", "pass_with_documented_exclusions") if w in words), "pass")
    return {
        "conversion_script": script if (port.root / script).is_file() else "none needed",
        "source_layout": port.official.layout,
        "converted_weights_dir": facts.rel(port, port.load_tree),
        **facts.state_files(port),
        "components_written": [c.name for c in weighty if (port.load_tree / (c.weights or c.name)).is_dir()],
        "passthrough_components": [c.name for c in port.components.values() if c.mode == "passthrough"],
        "strict_load": worst,
        "component_context_updates": [facts.conversion_of(port, verdict, c) for c in weighty],
        "blocked_on": [b for b in facts.blockers(verdict) if b.startswith(("mapping", "keys", "conversion"))],
        "next_step": verdict.next_step,
        "escape_hatch": facts.escape(port, verdict),
    }


def _pipeline(port: Port, verdict: Verdict) -> Block:
    """pipeline_context and pipeline_handoff in one."""
    return {
        "model_family": port.slug,
        "mode": "pipeline",
        **_pipeline_official(port),
        **_pipeline_index(port, verdict),
        **_pipeline_parts(port, verdict),
        **_pipeline_files(port, verdict),
        **_pipeline_proofs(port, verdict),
        **facts.state_files(port),
        "readme_updated": (port.folder / "README.md").is_file(),
        "port_state_updated": (port.folder / "PORT_STATUS.md").is_file(),
        "blockers": facts.blockers(verdict),
        "concerns": verdict.risks,
        "next_step": _pipeline_next(verdict),
        "escape_hatch": facts.escape(port, verdict),
    }


def _pipeline_official(port: Port) -> Block:
    """What the official pipeline is and how it is called."""
    call, workloads = port.official.pipeline, port.port.workload_types
    return {
        "workload_types": list(workloads),
        "modalities": {"inputs": [w[0] for w in workloads], "outputs": [w[-1] for w in workloads]},
        "official_ref_dir": facts.ref(port)[1],
        "official_pipeline_files": [call.cls],
        "official_files_used": [call.cls],
        "official_call": {
            "command_or_api": call.cls,
            "args_and_defaults": dict(call.call),
            "preset_source": {k: v.source for values in port.presets.values() for k, v in values.items()},
            "scheduler_and_rng": {"seeds": list(call.seeds), "scheduler": facts.scheduler(port)},
            "output_contract": {k: call.call[k] for k in ("height", "width", "num_frames") if k in call.call},
        },
    }


def _pipeline_index(port: Port, verdict: Verdict) -> Block:
    """What the load tree's model_index.json asks for, and which class answers."""
    index = facts.index(port, port.load_tree)
    modules = [key for key in index if not key.startswith("_")]
    entry = facts.entry(port, f"fastvideo/pipelines/basic/{port.slug}")
    file, smoke = facts.rel(port, port.load_tree / "model_index.json"), facts.row_status(verdict, "smoke")
    said = index.get("_class_name")
    return {
        "model_index": {
            "class_name": said or unknown(file),
            "entry_class_names": entry,
            "required_modules": modules or unknown("the load tree's model_index.json"),
            "passthrough_modules": [c.name for c in port.components.values() if c.mode == "passthrough"],
        },
        "required_config_modules": {"emitted": modules, "model_index": file, "status": smoke},
        "pipeline_class_resolution": {
            "model_index_class_name": said or unknown("the load tree's model_index.json"),
            "entry_class_names": entry,
            "status": smoke,
        },
    }


def _pipeline_parts(port: Port, verdict: Verdict) -> Block:
    """The stages and components, and what was converted."""
    row = verdict.row("pipeline")
    return {
        "sampling_param": {
            "new_fields": sorted(port.fastvideo.fields),
            "cli_fields": [],
            "placeholder_fields": [],
            "fields_added": sorted(port.fastvideo.fields),
            "cli_fields_added": [],
            "unknown_kwargs_checked": plan.status(verdict, "config", "presets"),
        },
        "stage_chain": _pipeline_said(verdict) if row and row.record else unknown("evidence of pipeline"),
        "components": {name: plan.component_status(verdict, c) for name, c in port.components.items()},
        "conversion": {"dir": facts.rel(port, port.load_tree), "status": facts.row_status(verdict, "conversion")},
    }


def _pipeline_files(port: Port, verdict: Verdict) -> Block:
    """Where the port's files lie, and what of them was looked at."""
    slug, smoke = port.slug, verdict.row("smoke")
    folder, config = f"fastvideo/pipelines/basic/{slug}", f"fastvideo/configs/pipelines/{slug}.py"
    return {
        "pipeline_config": {
            "file": config,
            "classes": facts.classes(port.root / config),
            "official_defaults_checked": facts.row_status(verdict, "config"),
        },
        "presets": {
            "file": f"{folder}/presets.py",
            "names": list(port.presets),
            "status": facts.row_status(verdict, "smoke"),
        },
        "registry": {"status": facts.row_status(verdict, "smoke"), "detectors": facts.items(smoke, "detector")},
        "fastvideo_targets": {
            "pipeline": f"{folder}/{slug}_pipeline.py",
            "stages": f"{folder}/stages/" if (port.root / folder / "stages").is_dir() else "FastVideo's own",
            "pipeline_config": config,
            "presets": f"{folder}/presets.py",
            "registry": "fastvideo/registry.py",
            "examples": f"examples/inference/basic/basic_{slug}.py",
            "smoke_test": _pipeline_test(slug, "smoke"),
            "parity_test": _pipeline_test(slug, "parity"),
        },
        "files_changed": facts.changed(port),
    }


def _pipeline_proofs(port: Port, verdict: Verdict) -> Block:
    """The three runs that prove the pipeline."""
    slug = port.slug
    return {
        "smoke_test": {"path": _pipeline_test(slug, "smoke"), "status": facts.row_status(verdict, "smoke")},
        "pipeline_parity": {
            "path": _pipeline_test(slug, "parity"),
            "status": facts.row_status(verdict, "pipeline"),
            "pytest_output": _pipeline_said(verdict),
            "comparison_target": port.official.pipeline.cls,
        },
        "example": {
            "path": f"examples/inference/basic/basic_{slug}.py",
            "status": facts.row_status(verdict, "example"),
            "output": facts.artifacts(verdict, "example"),
        },
    }


def _pipeline_test(slug: str, what: str) -> str:
    return f"tests/local_tests/pipelines/test_{slug}_pipeline_{what}.py"


def _pipeline_said(verdict: Verdict) -> Any:
    row = verdict.row("pipeline")
    return "; ".join(i.name for i in row.record.items) if row and row.record else unknown("evidence of pipeline")


def _pipeline_next(verdict: Verdict) -> str:
    parity, pipeline = verdict.row("parity"), verdict.row("pipeline")
    if parity is None or parity.verdict not in ("pass", "waived"):
        return "return_to_phase_6"
    return "phase_10_quality_regression" if pipeline and pipeline.verdict in ("pass", "waived") else "phase_7_continue"


def _final(port: Port, verdict: Verdict) -> Block:
    prep = handoff_prep.block(port, verdict)
    open_fields = [key for key, value in prep.items() if isinstance(value, str) and value.startswith("unknown")]
    boundary = verdict.row("boundary")

    def rule(name: str) -> str:
        return "no" if boundary and boundary.passed(name) else f"not proven: {facts.row_status(verdict, 'boundary')}"

    return {
        "workspace": verdict.workspace,
        "branch": verdict.branch,
        "plan": [{"item": i["text"], "done": i["done"]} for i in verdict.plan],
        "gate": verdict.verdict,
        "summary": verdict.summary,
        "prep_handoff_complete": "yes" if not open_fields else f"no: {', '.join(open_fields)}",
        "conversion_status": facts.row_status(verdict, "conversion"),
        "components": [
            {
                "name": name,
                "reuse_or_port": c.mode,
                "parity_test": port.test_file(c) if c.needs_parity else "none (passthrough)",
                "parity_status": plan.status(verdict, "parity", name) if c.needs_parity else "not needed (passthrough)",
                "concerns": facts.concerns(port, c),
            }
            for name, c in port.components.items()
        ],
        "pipeline_smoke": facts.row_status(verdict, "smoke"),
        "pipeline_parity": facts.row_status(verdict, "pipeline"),
        "example_status": facts.row_status(verdict, "example"),
        "quality_regression": facts.row_status(verdict, "ssim"),
        **facts.state_files(port),
        "token_values_committed": rule("FV304"),
        "runtime_third_party_model_imports": rule("FV301"),
        "mappings_signed": verdict.signatures,
        "blockers": facts.blockers(verdict),
        "residual_risks": verdict.risks,
        "escape_hatch": facts.escape(port, verdict),
    }


KINDS: dict[str, Any] = {
    "prep": handoff_prep.block,
    "component": None,
    "parity": _parity,
    "conversion": _conversion,
    "pipeline": _pipeline,
    "final": _final,
}
