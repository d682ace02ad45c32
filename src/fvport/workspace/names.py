# SPDX-License-Identifier: Apache-2.0
"""What a port registers under which names, all from port.toml, and the edits that follow from it."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

from fvport.errors import FvportError, UsageError
from fvport.spec import Port
from fvport.workspace import docedit, fieldedit, pyedit

REGISTRY = "fastvideo/registry.py"
PIPELINE_CONFIGS = "fastvideo/configs/pipelines/__init__.py"
INVENTORY = "docs/design/inference_schema_parity_inventory.yaml"
MATRIX = "docs/inference/support_matrix.md"
MKDOCS = "mkdocs.yml"
FASTVIDEO_WORKLOADS = (
    "t2v",
    "i2v",
    "t2i",
    "i2i",
    "t2a",
    "v2a",
)  # WorkloadType of 0.2.1; anything else registers with ()
EXAMPLES = "https://github.com/hao-ai-lab/FastVideo/blob/main/examples/inference/basic"


@dataclass(frozen=True)
class Target:
    """A file of the FastVideo tree and the edits it needs. An optional file may be absent or have no anchor."""

    path: str
    edits: tuple[pyedit.Edit, ...]
    optional: bool = False


def prefix(slug: str) -> str:
    """CamelCase of a slug: `tiny_wan` -> `TinyWan`."""
    return "".join(part.capitalize() for part in slug.split("_"))


def pipeline_class(slug: str) -> str:
    return f"{prefix(slug)}Pipeline"


def pipeline_config(slug: str) -> str:
    return f"{prefix(slug)}PipelineConfig"


def presets_group(slug: str) -> str:
    return f"{slug.upper()}_PRESETS"


def hub_id(port: Port) -> str:
    """`org/name` of the official weights on the hub, or '' when they are only local."""
    candidates = [str(getattr(port.official, "hub_id", "")), port.official.weights]
    for name, key in (("port.lock.json", "hub_id"), ("inspection.json", "hub_id")):
        try:
            value = json.loads(port.lock_file.with_name(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict):
            candidates.append(str(value.get(key) or ""))
    for value in candidates:
        local = value.startswith(("official_weights/", "converted_weights/", ".", "/"))
        if re.fullmatch(r"[\w.-]+/[\w.-]+", value) and not local and not (port.root / value).exists():
            return value
    return ""


def folders(port: Port) -> tuple[str, ...]:
    """The last two parts, lower case, of the folders that this port is loaded from."""
    found = [f"converted_weights/{port.load_tree.name}", f"official_weights/{port.key}"]
    parts = Path(port.official.weights).parts
    if port.official.weights and port.official.weights != hub_id(port):
        if len(parts) < 2:
            raise UsageError(
                f'official.weights "{port.official.weights}" is a folder name that other models may have too',
                where=str(port.file),
                todo=f'Give it a folder of its own: weights = "official_weights/{port.key}"',
            )
        found.append("/".join(parts[-2:]))
    return tuple(dict.fromkeys(name.lower() for name in found))


def detectors(port: Port) -> list[str]:
    """Exact detectors as source. FastVideo calls each with the lower-cased path and with the lower-cased pipeline name.

    A folder counts by its last two parts, so a copy elsewhere on the disk is found and `/models/<slug>` is not taken
    from anyone; a hub id counts by the folder that the hub's cache gives it, whatever the snapshot's path is.
    """
    lines = [f'lambda name: name == "{pipeline_class(port.key).lower()}",']
    lines += [f'lambda path: f"/{{path}}".rstrip("/").endswith("/{name}"),' for name in folders(port)]
    if hub_id(port):
        cached = "models--" + hub_id(port).lower().replace("/", "--")
        lines.append(f'lambda path: "{cached}" in path.split("/"),')
    return lines


def register_block(port: Port, with_hub_id: bool) -> tuple[str, ...]:
    """The `register_configs` call of this port, laid out as FastVideo's formatter would."""
    said = " ".join(f"{port.port.model} {port.variant}".split())
    known = [kind for kind in port.port.workload_types if kind in FASTVIDEO_WORKLOADS]
    types = ", ".join(f"WorkloadType.{kind.upper()}" for kind in known)
    types = f"({types}, )" if len(known) == 1 else f"({types})"
    paths = ["    hf_model_paths=[", f'        "{hub_id(port)}",', "    ],"] if with_hub_id and hub_id(port) else []
    return (
        f"# {said}: exact names only, and before the substring detectors below.",
        "register_configs(",
        "    sampling_param_cls=None,",
        f"    pipeline_config_cls={pipeline_config(port.key)},",
        f"    workload_types={types},",
        *paths,
        "    model_detectors=[",
        *(f"        {line}" for line in detectors(port)),
        "    ],",
        f'    model_family="{port.slug}",',
        f'    default_preset="{port.preset_name}",',
        f'    pipeline_cls_name="{pipeline_class(port.key)}",',
        ")",
    )


def targets(port: Port, root: Path) -> list[Target]:
    """Every registration edit of this port, or of this variant of it, on the tree at `root`."""
    found = [registry_target(port, root), *([] if port.variant else _config_exports(port))]
    config = f"fastvideo.configs.pipelines.{port.key}"
    exports = (
        pyedit.Import(config, pipeline_config(port.key), r"fastvideo\.configs\.pipelines\.\w+"),
        pyedit.Element("__all__", f'"{pipeline_config(port.key)}"'),
    )
    found.append(Target(PIPELINE_CONFIGS, exports, optional=True))
    if not port.variant:
        found += [Target(path, edits) for path, edits in fieldedit.of_port(port).items()]
    found += _docs(port, root)
    return found


def of_all(port: Port, root: Path) -> list[Target]:
    """The edits of the port and of all its variants."""
    return [target for view in (port, *port.views) for target in targets(view, root)]


def presets_module(port: Port) -> str:
    """The module of its presets: `presets`, and for a variant one of its own beside it."""
    name = f"presets_{port.variant}" if port.variant else "presets"
    return f"fastvideo.pipelines.basic.{port.slug}.{name}"


def registry_target(port: Port, root: Path) -> Target:
    slug, presets = port.key, presets_module(port)
    with_hub_id = hub_id(port) not in registered_ids(root, but=pipeline_config(slug))
    edits: tuple[pyedit.Edit, ...] = (
        pyedit.Import(
            f"fastvideo.configs.pipelines.{slug}", pipeline_config(slug), r"fastvideo\.configs\.pipelines\.\w+"
        ),
        pyedit.Block(
            "_register_configs", register_block(port, with_hub_id), "pipeline_config_cls", pipeline_config(slug)
        ),
        pyedit.Import(
            presets,
            "ALL_PRESETS",
            r"fastvideo\.pipelines\.basic\.\w+\.presets\w*",
            "_register_presets",
            presets_group(slug),
        ),
        pyedit.Element("all_preset_groups", presets_group(slug), "_register_presets"),
    )
    return Target(REGISTRY, edits)


def _config_exports(port: Port) -> list[Target]:
    found: dict[str, list[pyedit.Edit]] = {}
    for component in port.components.values():
        if component.mode != "port" or not component.config:
            continue
        module, _, name = component.config.partition(":")
        package = module.rpartition(".")[0]
        edits = found.setdefault(package.replace(".", "/") + "/__init__.py", [])
        for edit in (
            pyedit.Import(module, name, re.escape(package) + r"\.\w+"),
            pyedit.Element("__all__", f'"{name}"'),
        ):
            if edit not in edits:
                edits.append(edit)
    return [Target(path, tuple(edits)) for path, edits in found.items()]


def _docs(port: Port, root: Path) -> list[Target]:
    slug = port.key
    model_id = f"`{hub_id(port) or f'converted_weights/{port.load_tree.name}'}`"
    workloads = ", ".join(kind.upper() for kind in port.port.workload_types if kind in FASTVIDEO_WORKLOADS) or "—"
    example = f"[basic_{slug}.py]({EXAMPLES}/basic_{slug}.py)"
    fields = new_config_fields(root, slug)
    source = f"fastvideo.configs.pipelines.{slug}.{pipeline_config(slug)}"
    return [
        Target(MATRIX, (docedit.MatrixRow(slug, model_id, workloads, example),), optional=True),
        *([] if port.variant else [Target(MKDOCS, (docedit.NavEntry(port.port.model, f"inference/{slug}.md"),), True)]),
        Target(INVENTORY, tuple(docedit.InventoryField(name, source) for name in fields), optional=True),
    ]


def _parse(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except SyntaxError as error:
        raise FvportError(
            f"is not valid Python (line {error.lineno})", where=str(path), todo="Repair the file first"
        ) from None


def _fields(tree: ast.Module | None, only: str = "") -> list[str]:
    """Annotated class fields of a file's classes (of the one called `only`)."""
    found = []
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and only in ("", node.name):
            for item in node.body:
                if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                    continue
                if "ClassVar" not in ast.unparse(item.annotation):
                    found.append(item.target.id)
    return found


def new_config_fields(root: Path, slug: str) -> list[str]:
    """Dataclass fields that the port's pipeline config adds to FastVideo's PipelineConfig."""
    base = _fields(_parse(root / "fastvideo/configs/pipelines/base.py"), "PipelineConfig")
    own = _fields(_parse(root / f"fastvideo/configs/pipelines/{slug}.py"))
    return [name for name in dict.fromkeys(own) if name not in base]


def register_calls(root: Path) -> list[ast.Call]:
    """The `register_configs(...)` calls of `_register_configs`, in order."""
    tree = _parse(root / REGISTRY)
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == "_register_configs":
            calls = (item.value for item in node.body if isinstance(item, ast.Expr))
            return [c for c in calls if isinstance(c, ast.Call) and ast.unparse(c.func) == "register_configs"]
    return []


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def literal(node: ast.expr | None) -> object:
    """The value of a literal expression; None for anything else."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def registered_ids(root: Path, but: str = "") -> set[str]:
    """Hub ids that FastVideo's registry names, but for the block of the config class `but`."""
    found: set[str] = set()
    for call in register_calls(root):
        config = keyword(call, "pipeline_config_cls")
        if config is None or ast.unparse(config) != but:
            found.update(str(item) for item in literal(keyword(call, "hf_model_paths")) or [])  # type: ignore[attr-defined]
    return found
