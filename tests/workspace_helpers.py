# SPDX-License-Identifier: Apache-2.0
"""Small FastVideo-like trees and hand-made ports for the tests of the workspace and of registration."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
from pathlib import Path

from fvport import spec

BUCKETS = ("dits", "vaes", "encoders")
FILES = (
    "fastvideo/registry.py",
    "fastvideo/configs/pipelines/__init__.py",
    "fastvideo/configs/pipelines/base.py",
    *(f"fastvideo/configs/models/{bucket}/__init__.py" for bucket in BUCKETS),
)
MKDOCS = """\
site_name: FastVideo
nav:
  - Home: index.md
  - Inference:
    - Quick Start: inference/inference_quick_start.md
    - Add Pipeline: inference/add_pipeline.md
    - Examples:
      - Basic: inference/examples/basic.md
  - Training:
    - Overview: training/overview.md
"""
MATRIX = """\
# Compatibility Matrix

| Family | HuggingFace Model ID | Workloads | Example |
|--------|----------------------|-----------|---------|
| cosmos | `nvidia/Cosmos` | T2V | — |
| wan | `Wan-AI/Wan2.1-T2V-1.3B-Diffusers` | T2V | — |

| Model Name | HuggingFace Model ID |
|---|---|
| Wan | `Wan-AI/x` |
"""
INVENTORY = """\
surfaces:
  pipeline_config_base:
    preset_owned:
      flow_shift: generator.x
  pipeline_config_extensions:
    preset_owned:
      # a comment
      expand_timesteps:
        sources:
          - fastvideo.configs.pipelines.wan.Wan2_2_TI2V_5B_Config

  sampling_param_base:
    kept:
      seed: request.sampling.seed
"""


def wheel_file(path: str) -> bytes:
    found = importlib.metadata.distribution("fastvideo").locate_file(path)
    return Path(str(found)).read_bytes()


def small_registry() -> bytes:
    """The wheel's registry.py, cut to its imports, three calls of `_register_configs` and `_register_presets`."""
    lines = wheel_file("fastvideo/registry.py").splitlines(keepends=True)
    found = []
    for node in ast.parse(b"".join(lines)).body:
        whole = lines[node.lineno - 1 : node.end_lineno]
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += whole
        elif isinstance(node, ast.FunctionDef) and node.name == "_register_configs":
            found += [b"\n\n", *lines[node.lineno - 1 : node.body[1].end_lineno]]
            found += lines[node.body[-2].end_lineno : node.end_lineno]
        elif isinstance(node, ast.FunctionDef) and node.name == "_register_presets":
            found += [b"\n\n", *whole]
    return b"".join(found)


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def small_fastvideo(root: Path, docs: bool = True) -> Path:
    """A tree with the files that registration edits, taken from the installed wheel, and small docs pages."""
    write(root, {name: small_registry() if name == FILES[0] else wheel_file(name) for name in FILES})
    if docs:
        pages = {"mkdocs.yml": MKDOCS, "docs/inference/support_matrix.md": MATRIX}
        write(root, pages | {"docs/design/inference_schema_parity_inventory.yaml": INVENTORY})
    return root


def port_toml(slug: str = "tiny_wan", fastvideo: str = "", weights: str = "", workload: str = "t2v") -> str:
    prefix = "".join(part.capitalize() for part in slug.split("_"))
    return f"""\
schema = 1
[port]
model = "Tiny: {prefix}"
slug = "{slug}"
workload_types = ["{workload}"]
[fastvideo]
{fastvideo}
[official]
library = "diffusers"
weights = "{weights or f"official_weights/{slug}"}"
[official.pipeline]
class = "diffusers:WanPipeline"
[components.transformer]
kind = "dit"
mode = "port"
official = "diffusers:WanTransformer3DModel"
native = "fastvideo.models.dits.{slug}:{prefix}Transformer3DModel"
config = "fastvideo.configs.models.dits.{slug}:{prefix}Config"
weights = "transformer"
[components.text_encoder]
kind = "text_encoder"
mode = "port"
official = "transformers:UMT5EncoderModel"
native = "fastvideo.models.encoders.{slug}:{prefix}TextEncoder"
config = "fastvideo.configs.models.encoders.{slug}:{prefix}TextConfig"
weights = "text_encoder"
[components.vae]
kind = "vae"
mode = "reuse"
official = "diffusers:AutoencoderKLWan"
native = "fastvideo.models.vaes.wanvae:AutoencoderKLWan"
config = "fastvideo.configs.models.vaes.wanvae:WanVAEConfig"
weights = "vae"
"""


def port_files(slug: str = "tiny_wan", **keys: str) -> dict[str, str]:
    """A hand-made port that FastVideo can import: configs, pipeline and presets on FastVideo's own classes."""
    prefix = "".join(part.capitalize() for part in slug.split("_"))
    head = "# SPDX-License-Identifier: Apache-2.0\n"
    dit = "from fastvideo.configs.models.dits.wanvideo import WanVideoConfig"
    encoder = "from fastvideo.configs.models.encoders.t5 import T5Config"
    base = "from fastvideo.configs.pipelines.base import PipelineConfig"
    run = "from fastvideo.pipelines.basic.wan.wan_pipeline import WanPipeline"
    preset = f'InferencePreset(name="{slug}_default", version=1, model_family="{slug}", workload_type="t2v")'
    return {
        f"tests/local_tests/{slug}/port.toml": port_toml(slug, **keys),
        f"tests/local_tests/{slug}/PLAN.md": f"# {slug}\n",
        f"fastvideo/configs/models/dits/{slug}.py": f"{head}{dit}\n\n\nclass {prefix}Config(WanVideoConfig):\n"
        "    pass\n",
        f"fastvideo/configs/models/encoders/{slug}.py": f"{head}{encoder}\n\n\nclass {prefix}TextConfig(T5Config):\n"
        "    pass\n",
        f"fastvideo/configs/pipelines/{slug}.py": f"{head}from dataclasses import dataclass\n\n{base}\n\n\n@dataclass\n"
        f"class {prefix}PipelineConfig(PipelineConfig):\n    {slug}_extra: int = 3\n"
        "    flow_shift: float | None = 3.0\n",
        f"fastvideo/pipelines/basic/{slug}/__init__.py": "",
        f"fastvideo/pipelines/basic/{slug}/{slug}_pipeline.py": f"{head}{run}\n\n\n"
        f"class {prefix}Pipeline(WanPipeline):\n"
        f"    pass\n\n\nEntryClass = {prefix}Pipeline\n",
        f"fastvideo/pipelines/basic/{slug}/presets.py": f"{head}from fastvideo.api.presets import InferencePreset\n\n"
        f"ALL_PRESETS = ({preset}, )\n",
        "noxfile.py": "# the same for every port\n",
    }


def make_port(root: Path, slug: str = "tiny_wan", **keys: str) -> spec.Port:
    write(root, port_files(slug, **keys))
    return spec.parse(root / f"tests/local_tests/{slug}/port.toml")


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file's bytes but for git's and fvport's own."""
    skip = {".git", ".fvport"}
    found = (p for p in root.rglob("*") if p.is_file() and not skip & set(p.relative_to(root).parts))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in found}


def git(root: Path, *args: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(root), *args]
    env = {key: value for key, value in os.environ.items() if key != "GIT_DIR"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()
