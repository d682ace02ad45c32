# SPDX-License-Identifier: Apache-2.0
"""What a person writes into oracle.py for a raw release: how its own code reads it. Functions of a name that oracle.py
has take its place, the others are added.

Nothing of the conversion is used here: where a name of the release goes is said once more, from the official model's
side, tensor by tensor.
"""

import json
import pathlib
import tempfile

import torch

_LOADED = {}  # oracle.py has one


def release(folder):
    """(the release's config, its tensors)."""
    from safetensors.torch import load_file

    folder = pathlib.Path(folder)
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def loaded(model, state, dtype, word="torch_dtype"):
    """The official class with these weights, in the dtype as its own `from_pretrained` gives it."""
    model.load_state_dict(state, strict=True)
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        return type(model).from_pretrained(place, **{word: dtype}).eval()


def build_transformer(folder, dtype):
    """The official transformer, its weights read as the release's own code reads them."""
    from diffusers import WanTransformer3DModel

    config, held = release(folder)
    c = config["dit"]
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=c["heads"],
        attention_head_dim=c["dim"] // c["heads"],
        in_channels=c["channels"],
        out_channels=c["channels"],
        text_dim=c["text"],
        freq_dim=c["freq"],
        ffn_dim=c["ffn"],
        num_layers=c["layers"],
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=c["max_seq"],
    )
    own = {
        "scale_shift_table": "head.modulation",
        "patch_embedding.bias": "patch_embedding.bias",
        "patch_embedding.weight": "patch_embedding.weight",
    }
    for leaf in ("weight", "bias"):
        own[f"proj_out.{leaf}"] = f"head.head.{leaf}"
        own[f"condition_embedder.time_proj.{leaf}"] = f"time_projection.1.{leaf}"
        for part in ("text", "time"):
            own[f"condition_embedder.{part}_embedder.linear_1.{leaf}"] = f"{part}_embedding.0.{leaf}"
            own[f"condition_embedder.{part}_embedder.linear_2.{leaf}"] = f"{part}_embedding.2.{leaf}"
    prefix, dim = "model.diffusion_model.", c["dim"]
    state = {name: held[prefix + there] for name, there in own.items()}
    state["patch_embedding.weight"] = state["patch_embedding.weight"].view(dim, c["channels"], 1, 2, 2)
    for n in range(c["layers"]):
        here, there = f"blocks.{n}.", f"{prefix}blocks.{n}."
        state[here + "scale_shift_table"] = held[there + "modulation"]
        for leaf in ("weight", "bias"):
            qkv, kv = held[f"{there}self_attn.qkv.{leaf}"], held[f"{there}cross_attn.kv.{leaf}"]
            state[f"{here}attn1.to_q.{leaf}"] = qkv[:dim].clone()
            state[f"{here}attn1.to_k.{leaf}"] = qkv[dim : 2 * dim].clone()
            state[f"{here}attn1.to_v.{leaf}"] = qkv[2 * dim :].clone()
            state[f"{here}attn2.to_q.{leaf}"] = held[f"{there}cross_attn.q.{leaf}"]
            state[f"{here}attn2.to_k.{leaf}"] = kv[:dim].clone()
            state[f"{here}attn2.to_v.{leaf}"] = kv[dim:].clone()
            state[f"{here}attn1.to_out.0.{leaf}"] = held[f"{there}self_attn.o.{leaf}"]
            state[f"{here}attn2.to_out.0.{leaf}"] = held[f"{there}cross_attn.o.{leaf}"]
            state[f"{here}ffn.net.0.proj.{leaf}"] = held[f"{there}ffn.0.{leaf}"]
            state[f"{here}ffn.net.2.{leaf}"] = held[f"{there}ffn.2.{leaf}"]
            state[f"{here}norm2.{leaf}"] = held[f"{there}norm3.{leaf}"]
        for attn, name in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for norm in ("norm_q", "norm_k"):
                state[f"{here}{attn}.{norm}.weight"] = held[f"{there}{name}.{norm}.weight"]
    model = loaded(model, state, dtype)
    # Some parts stay in fp32 whatever is asked: a higher precision must reach those too.
    return model.to(dtype) if dtype == torch.float64 else model


def build_text_encoder(folder, dtype):
    """The official text encoder, its weights read as the release's own code reads them."""
    from transformers import UMT5Config, UMT5EncoderModel

    config, held = release(folder)
    c = config["text"]
    model = UMT5EncoderModel(
        UMT5Config(
            vocab_size=c["vocab"],
            d_model=c["dim"],
            d_kv=c["head_dim"],
            d_ff=c["ffn"],
            num_layers=c["layers"],
            num_heads=c["heads"],
            relative_attention_num_buckets=c["buckets"],
            relative_attention_max_distance=c["far"],
            feed_forward_proj="gated-gelu",
        )
    )
    prefix = "cond_stage_model."
    table = held[prefix + "token_embedding.weight"]
    state = {"shared.weight": table, "encoder.embed_tokens.weight": table}
    state["encoder.final_layer_norm.weight"] = held[prefix + "norm.weight"]
    for n in range(c["layers"]):
        there, attn = f"{prefix}blocks.{n}.", f"encoder.block.{n}.layer.0."
        feed = f"encoder.block.{n}.layer.1."
        q, k, v = held[there + "attn.qkv.weight"].chunk(3)
        gate, up = held[there + "ffn.gate_up.weight"].chunk(2)
        state |= {f"{attn}SelfAttention.{x}.weight": t.clone() for x, t in (("q", q), ("k", k), ("v", v))}
        state[f"{attn}SelfAttention.o.weight"] = held[there + "attn.o.weight"]
        state[f"{attn}SelfAttention.relative_attention_bias.weight"] = held[there + "pos_embedding.weight"]
        state[f"{attn}layer_norm.weight"] = held[there + "norm1.weight"]
        state[f"{feed}DenseReluDense.wi_0.weight"] = gate.clone()
        state[f"{feed}DenseReluDense.wi_1.weight"] = up.clone()
        state[f"{feed}DenseReluDense.wo.weight"] = held[there + "ffn.down.weight"]
        state[f"{feed}layer_norm.weight"] = held[there + "norm2.weight"]
    return loaded(model, state, dtype, "dtype").to(dtype)


def build_vae(folder, dtype):
    """The official VAE, its weights read as the release's own code reads them."""
    from diffusers import AutoencoderKLWan

    config, held = release(folder)
    c = config["vae"]
    model = AutoencoderKLWan(base_dim=c["base"], z_dim=c["z"], dim_mult=c["mult"], num_res_blocks=c["blocks"])
    state = {}
    for name, wanted in model.state_dict().items():
        there = name.replace("post_quant_conv.", "conv2.") if name.startswith("post_quant") else name
        there = "conv1." + there.removeprefix("quant_conv.") if there.startswith("quant_conv.") else there
        words = there.split(".")
        if "resnets" in words or ("down_blocks" in words and "resample" not in words):
            leaf = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
            words = [leaf.get(word, "shortcut" if word == "conv_shortcut" else word) for word in words]
        there = ".".join(words).replace("mid_block.", "middle.").replace("down_blocks.", "downsamples.")
        there = there.replace("up_blocks.", "upsamples.").replace("upsamplers.0", "up")
        if "upsamples." in there:
            there = there.replace(".resnets.", ".res.")
        value = held["first_stage_model." + there]
        if there.endswith("attentions.0.proj.weight"):
            value = value.t().contiguous()
        state[name] = value.reshape(wanted.shape)
    return loaded(model, state, dtype).to(dtype)


def build_pipeline(folder, dtype, device="cpu"):
    """The official pipeline put together from the release's parts; kept, so that several calls load it once."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
    from transformers import AutoTokenizer

    key = (str(folder), str(dtype), str(device))
    if key not in _LOADED:
        _LOADED.clear()
        config, _ = release(folder)
        pipeline = WanPipeline(
            tokenizer=AutoTokenizer.from_pretrained(pathlib.Path(folder) / "tokenizer"),
            text_encoder=build_text_encoder(folder, dtype),
            vae=build_vae(folder, dtype),
            transformer=build_transformer(folder, dtype),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=config["sampler"]["shift"]),
        )
        for module in pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                module.to(device).eval().requires_grad_(False)
        pipeline.set_progress_bar_config(disable=True)
        _LOADED[key] = pipeline
    return _LOADED[key]
