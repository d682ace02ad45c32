# SPDX-License-Identifier: Apache-2.0
"""Every archetype against its official class, in a process of its own: `python FILE OUT FOLDER [all | PLACE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import archetypes_encoders as encoders
import archetypes_support as support

IMAGE = {"image_dim": 20, "added_kv_proj_dim": 48, "in_channels": 20}
OTHER_DIT = {
    "qk_norm": None,
    "cross_attn_norm": False,
    "patch_size": (2, 1, 2),
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "text_dim": 20,
    "rope_max_seq_len": 9,
    "in_channels": 5,
    "out_channels": None,
    "eps": 1e-3,
}
DITS: dict[str, dict[str, Any]] = {
    "t2v": {},
    "i2v": IMAGE,
    "first_last_frame": {**IMAGE, "pos_embed_seq_len": 34, "num_layers": 1},
    "image_without_added_kv": {"image_dim": 20},
    "all_switches": OTHER_DIT,
}
SMALL = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "umt5": ("UMT5", {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 40}),
    "t5_v1_0": ("T5", {"feed_forward_proj": "relu"}),
    "t5_v1_1": ("T5", {"feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-3}),
    "t5_silu": ("T5", {"feed_forward_proj": "gated-silu"}),
    "t5_exact_gelu": ("T5", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}),
    "mt5": ("MT5", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}),
}


def compare(kind: str, oracle: Any, call: Any, folder: Path, native: Any, config: dict[str, Any]) -> dict[str, Any]:
    """{case: {output: [difference, official floor]}}, both relative to the largest value."""
    import torch

    build, run = getattr(oracle, f"build_{kind}"), getattr(oracle, f"call_{kind}")
    single, double = build(folder, torch.float32), build(folder, torch.float64)
    found = {}
    for name, case in getattr(oracle, f"inputs_{kind}")(config, 0).items():
        official = run(single, case)
        floors, differences = support.worst(official, run(double, case)), support.worst(official, call(native, case))
        found[name] = {key: [differences[key], floors[key]] for key in official}
    return found


def wiggled(kind: str, oracle: Any, call: Any, folder: Path, native: Any, config: dict[str, Any]) -> list[str]:
    """Native parameters whose change by a fiftieth no case sees."""
    import torch

    single = getattr(oracle, f"build_{kind}")(folder, torch.float32)
    cases = {"ragged": getattr(oracle, f"inputs_{kind}")(config, 0)["ragged"]}
    official = {name: getattr(oracle, f"call_{kind}")(single, case) for name, case in cases.items()}
    unseen = []
    for name, parameter in native.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.add_(0.02 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(1)))
        seen = any(max(support.worst(official[n], call(native, case)).values()) > 1e-5 for n, case in cases.items())
        parameter.data.copy_(kept)
        if not seen:
            unseen.append(name)
    return unseen


def dit(name: str, switches: dict[str, Any], folder: Path) -> dict[str, Any]:
    import diffusers
    import torch

    maker, kind = support.make_official(), "dit"
    official = maker.randomise(diffusers.WanTransformer3DModel(**{**maker.TRANSFORMER, **switches}), "transformer")
    official.save_pretrained(folder / name)
    config = json.loads((folder / name / "config.json").read_text())
    weights = official.state_dict()
    p, c = support.context("cross_attention_dit", "diffusers:WanTransformer3DModel", config)
    cls, native_config = support.native("cross_attention_dit", p, c, folder)
    native = support.load_dit(cls, native_config, iter((k, v.clone()) for k, v in weights.items()))
    oracle, call = (f("cross_attention_dit", p, c, folder) for f in (support.oracle, support.call))
    found = {"cases": compare(kind, oracle, call, folder / name, native, config)}
    found["unnamed"] = unnamed("cross_attention_dit", native_config.param_names_mapping, config, weights)
    if name == "i2v":
        found["unseen"] = wiggled(kind, oracle, call, folder / name, native, config)
        found["bfloat16"] = half(oracle, call, cls, native_config, folder / name, weights, torch.bfloat16)
    return found


def half(oracle: Any, call: Any, cls: type, config: Any, folder: Path, weights: Any, dtype: Any) -> float:
    import torch

    native = support.load_dit(cls, config, iter((k, v.clone()) for k, v in weights.items()), dtype)
    case = oracle.inputs_dit(json.loads((folder / "config.json").read_text()), 0)["ragged"]
    with torch.no_grad():
        return max(support.worst(oracle.call_dit(oracle.build_dit(folder, dtype), case), call(native, case)).values())


def unnamed(archetype: str, rules: dict[str, Any], config: dict[str, Any], weights: Any) -> dict[str, list[str]]:
    """Keys that neither a rule nor the passthrough list names, and rules or passthroughs that no key uses."""
    import re

    entries = support.library.get(archetype).data["passthrough"]
    passing = [e["pattern"] for e in entries if all(config.get(field) for field in e.get("when", ()))]
    names = [*rules, *passing]
    return {
        "keys": [key for key in weights if not any(re.match(pattern, key) for pattern in names)],
        "rules": [pattern for pattern in names if not any(re.match(pattern, key) for key in weights)],
    }


def encoder(name: str, family: str, switches: dict[str, Any], folder: Path) -> dict[str, Any]:
    import transformers
    from safetensors.torch import load_file

    kind, maker = "text_encoder", support.make_official()
    made = getattr(transformers, f"{family}Config")(**SMALL, **switches)
    official = maker.randomise(getattr(transformers, f"{family}EncoderModel")(made), "text_encoder")
    official.save_pretrained(folder / name)
    config = json.loads((folder / name / "config.json").read_text())
    weights = load_file(folder / name / "model.safetensors")
    tensors = {key: ("F32", tuple(value.shape)) for key, value in weights.items()}
    p, c = support.context("t5_encoder", f"transformers:{family}EncoderModel", config, tensors=tensors)
    cls, native_config = support.native("t5_encoder", p, c, folder)
    native: Any = cls(native_config).eval()
    loaded = native.load_weights(weights.items())
    oracle, call = (f("t5_encoder", p, c, folder) for f in (support.oracle, support.call))
    found: dict[str, Any] = {"cases": compare(kind, oracle, call, folder / name, native, config)}
    found["loaded"] = sorted(loaded) == sorted(n for n, _ in native.named_parameters())
    found["ignored"] = fields_left(config, native_config)
    if name == "umt5":
        found["unseen"] = wiggled(kind, oracle, call, folder / name, native, config)
        found["refusals"] = refusals(cls, native_config, weights)
    return found


def fields_left(config: dict[str, Any], native_config: Any) -> list[str]:
    """Official fields that are neither a native field nor ignored with a reason."""
    import dataclasses

    known = {f.name for f in dataclasses.fields(native_config.arch_config)}
    return sorted(set(config) - known - set(support.library.get("t5_encoder").data["config_ignored"]))


def refusals(cls: Any, config: Any, weights: dict[str, Any]) -> dict[str, str]:
    """What load_weights says to a damaged checkpoint."""
    import torch

    q, wi = "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"
    o = "encoder.block.0.layer.0.SelfAttention.o.weight"
    without = {key: {k: v for k, v in weights.items() if k != key} for key in (q, wi, o)}
    damaged = {
        "unknown key": {**weights, "encoder.block.0.surprise": torch.zeros(1)},
        "part missing": without[q],
        "gate missing": without[wi],
        "whole missing": without[o],
        "too large": {**weights, o: torch.cat([weights[o], weights[o]], dim=1)},
        "part too large": {**weights, q: torch.cat([weights[q], weights[q]])},
        "no such layer": {**weights, "encoder.block.9.layer.0.layer_norm.weight": torch.ones(32)},
    }
    said = {}
    for name, state in damaged.items():
        try:
            cls(config).load_weights(state.items())
            said[name] = ""
        except ValueError as error:
            said[name] = str(error)
    try:
        cls(config).load_weights([*weights.items(), (o, weights[o])])
    except ValueError as error:
        said["twice"] = str(error)
    return said


def reused(folder: Path) -> dict[str, Any]:
    """The VAE and the scheduler of the tiny checkpoint: FastVideo's own classes through the same templates."""
    from fastvideo.configs.models.vaes.wanvae import WanVAEConfig
    from fastvideo.models.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from fastvideo.models.vaes.wanvae import AutoencoderKLWan
    from safetensors.torch import load_file

    official = support.make_official().make(folder / "official")
    config = json.loads((official / "vae" / "config.json").read_text())
    p, c = support.context("causal_video_vae", "diffusers:AutoencoderKLWan", config)
    c.native_module = "fastvideo.models.vaes.wanvae"
    vae_config = WanVAEConfig()
    vae_config.update_model_arch({k: v for k, v in config.items() if not k.startswith("_")})
    vae_config.arch_config.__post_init__()
    vae = AutoencoderKLWan(vae_config).eval()
    vae.load_state_dict(load_file(official / "vae" / "diffusion_pytorch_model.safetensors"), strict=True)
    oracle, call = (f("causal_video_vae", p, c, folder) for f in (support.oracle, support.call))
    found = {"vae": {"cases": compare("vae", oracle, call, official, vae, config)}}

    config = json.loads((official / "scheduler" / "scheduler_config.json").read_text())
    p, c = support.context("flow_match_scheduler", "diffusers:FlowMatchEulerDiscreteScheduler", config)
    oracle, call = (f("flow_match_scheduler", p, c, folder) for f in (support.oracle, support.call))
    scheduler = FlowMatchEulerDiscreteScheduler(**{k: v for k, v in config.items() if not k.startswith("_")})
    found["scheduler"] = {"cases": compare("scheduler", oracle, call, official, scheduler, config)}
    return found


def main(out: Path, folder: Path, what: str = "") -> None:
    """`what`: "all" for all encoders of the case table and nothing else, or the folder of a real BertModel."""
    from fvport import fastvideo_api

    fastvideo_api.boot(support.SITE, "cpu")
    cases = encoders.encoder_cases.CASES
    if what not in ("", "all"):
        out.write_text(json.dumps(encoders.real(Path(what), folder)), encoding="utf-8")
        return
    if what:
        measured = {name: encoders.measure(case, folder / "encoders") for name, case in cases.items()}
        out.write_text(json.dumps(measured), encoding="utf-8")
        return
    found: dict[str, Any] = {f"dit {name}": dit(name, switches, folder) for name, switches in DITS.items()}
    found |= {f"encoder {name}": encoder(name, *value, folder) for name, value in ENCODERS.items()}
    found |= {f"archetype {name}": encoders.measure(cases[name], folder / "encoders") for name in encoders.FEW}
    found |= reused(folder)
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
