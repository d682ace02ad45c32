# SPDX-License-Identifier: Apache-2.0
"""Make a raw release of the tiny Wan: one `model.safetensors` in a layout of its own, without a Diffusers config.

    python examples/raw_wan/make_raw.py build/official/raw_wan [--from build/official/tiny_wan]

DiT, text encoder and VAE lie under the prefixes `model.diffusion_model.`, `cond_stage_model.` and `first_stage_model.`
with other names than diffusers' and transformers'; q/k/v, k/v and gate/up are fused, one convolution is stored as a
matrix, another transposed; a table that is computed and a running average lie beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

DIT, TEXT, VAE, EMA = "model.diffusion_model.", "cond_stage_model.", "first_stage_model.", "model_ema."
CONFIG = {
    "name": "raw_wan",
    "dit": {"dim": 48, "heads": 2, "layers": 2, "ffn": 64, "text": 32, "freq": 32, "channels": 16, "max_seq": 32},
    "text": {"vocab": 512, "dim": 32, "heads": 4, "head_dim": 8, "ffn": 48, "layers": 2, "buckets": 16, "far": 40},
    "vae": {"base": 8, "z": 16, "mult": [1, 1, 1, 1], "blocks": 1},
    "sampler": {"shift": 3.0},
}


def make(out: Path, source: Path) -> Path:
    """Write the raw release of the tiny Wan in `source` to `out`; one that is there stays."""
    from safetensors.numpy import load_file, save_file

    if (out / "model.safetensors").is_file():
        return out
    held = {
        part: load_file(source / part / file)
        for part, file in (
            ("transformer", "diffusion_pytorch_model.safetensors"),
            ("text_encoder", "model.safetensors"),
            ("vae", "diffusion_pytorch_model.safetensors"),
        )
    }
    raw = {DIT + name: value for name, value in dit(held["transformer"]).items()}
    raw |= {TEXT + name: value for name, value in text(held["text_encoder"]).items()}
    raw |= {VAE + name: value for name, value in vae(held["vae"]).items()}
    raw |= average(raw)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    part.chmod(0o755)
    save_file(raw, part / "model.safetensors", metadata={"format": "pt", "release": "raw_wan"})
    (part / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    shutil.copytree(source / "tokenizer", part / "tokenizer")
    for file in part.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    os.replace(part, out)
    return out


def dit(held: dict[str, Any]) -> dict[str, Any]:
    """diffusers' names -> the release's."""
    import numpy as np

    made: dict[str, Any] = {}
    for name, value in held.items():
        new = _said(
            name,
            (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
            (r"condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
            (r"condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
            (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
            (r"condition_embedder\.time_proj", "time_projection.1"),
            (r"attn1", "self_attn"),
            (r"attn2", "cross_attn"),
            (r"to_out\.0", "o"),
            (r"ffn\.net\.0\.proj", "ffn.0"),
            (r"ffn\.net\.2", "ffn.2"),
            (r"(blocks\.\d+)\.norm2", r"\1.norm3"),
            (r"(blocks\.\d+)\.scale_shift_table", r"\1.modulation"),
            (r"^scale_shift_table", "head.modulation"),
            (r"^proj_out", "head.head"),
        )
        found = re.fullmatch(r"(.*)\.to_([qkv])\.(weight|bias)", new)
        if not found:
            made[new] = value.reshape(value.shape[0], -1) if new == "patch_embedding.weight" else value
        elif found[2] == "v":
            parts = [held[re.sub(r"to_v", f"to_{letter}", name)] for letter in "qkv"]
            if "self_attn" in new:
                made[f"{found[1]}.qkv.{found[3]}"] = np.concatenate(parts)
            else:
                made[f"{found[1]}.q.{found[3]}"] = parts[0]
                made[f"{found[1]}.kv.{found[3]}"] = np.concatenate(parts[1:])
    made["freqs"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    return made


def text(held: dict[str, Any]) -> dict[str, Any]:
    """transformers' names -> the release's."""
    import numpy as np

    made: dict[str, Any] = {}
    for name, value in held.items():
        new = _said(
            name,
            (r"^shared\.", "token_embedding."),
            (r"^encoder\.final_layer_norm", "norm"),
            (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias", r"blocks.\1.pos_embedding"),
            (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention", r"blocks.\1.attn"),
            (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm", r"blocks.\1.norm1"),
            (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo", r"blocks.\1.ffn.down"),
            (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense", r"blocks.\1.ffn"),
            (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm", r"blocks.\1.norm2"),
        )
        if new.endswith(".attn.v.weight"):
            made[new.replace(".v.", ".qkv.")] = np.concatenate([held[name.replace(".v.", f".{x}.")] for x in "qkv"])
        elif new.endswith(".ffn.wi_1.weight"):
            made[new.replace("wi_1", "gate_up")] = np.concatenate([held[name.replace("wi_1", "wi_0")], value])
        elif not re.search(r"\.attn\.[qk]\.|\.wi_0\.|embed_tokens", new):
            made[new] = value
    return made


def vae(held: dict[str, Any]) -> dict[str, Any]:
    """diffusers' names -> the release's; the projections of the attentions are stored as transposed matrices."""
    import numpy as np

    made: dict[str, Any] = {}
    for name, value in held.items():
        new = _said(
            name,
            (r"^quant_conv", "conv1"),
            (r"^post_quant_conv", "conv2"),
            (r"down_blocks\.", "downsamples."),
            (r"up_blocks\.(\d+)\.resnets\.", r"upsamples.\1.res."),
            (r"up_blocks\.(\d+)\.upsamplers\.0", r"upsamples.\1.up"),
            (r"mid_block\.(resnets|attentions)", r"middle.\1"),
            (r"\.norm1\.", ".residual.0."),
            (r"\.conv1\.(?=weight|bias)", ".residual.2."),
            (r"\.norm2\.", ".residual.3."),
            (r"\.conv2\.(?=weight|bias)", ".residual.6."),
            (r"conv_shortcut", "shortcut"),
        )
        if new.endswith("attentions.0.proj.weight"):
            value = np.ascontiguousarray(value[:, :, 0, 0].T)
        made[new] = value
    return made


def average(raw: dict[str, Any]) -> dict[str, Any]:
    """A running average of the DiT, which differs from it, and how it was made."""
    import numpy as np

    found = {EMA + name.removeprefix(DIT).replace(".", ""): 0.9 * v for name, v in raw.items() if name.startswith(DIT)}
    found = {name: np.asarray(value, np.float32) for name, value in found.items()}
    return {**found, f"{EMA}decay": np.asarray(0.9999, np.float32), f"{EMA}num_updates": np.asarray(1000, np.int32)}


def _said(name: str, *words: tuple[str, str]) -> str:
    for pattern, replacement in words:
        name = re.sub(pattern, replacement, name)
    return name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a raw release of the tiny Wan.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--from", dest="source", type=Path, help="the tiny Wan (made beside `out` when left out)")
    options = parser.parse_args(arguments)
    source = options.source
    if source is None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from examples.tiny_wan import make_official

        source = make_official.make(options.out.parent / "tiny_wan")
    print(make(options.out, source))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
