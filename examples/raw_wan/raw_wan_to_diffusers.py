# SPDX-License-Identifier: Apache-2.0
"""How the raw release of Raw Wan becomes Diffusers layout: a declaration, and a call.

    fvport convert                                                                   # in the port
    python scripts/checkpoint_conversion/raw_wan_to_diffusers.py SOURCE TARGET       # anywhere

fvport reads the literals below and executes nothing of them.
"""

PIPELINE = ["diffusers", "WanPipeline"]
INDEX = {"boundary_ratio": None, "expand_timesteps": False, "transformer_2": [None, None]}

TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 32,
    "pos_embed_seq_len": None,
}
TEXT_ENCODER = {
    "model_type": "umt5",
    "vocab_size": 512,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 40,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
VAE = {
    "base_dim": 8,
    "decoder_base_dim": None,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
    "latents_mean": [
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ],
    "latents_std": [
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916,
    ],
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}  # fmt: skip

COMPONENTS = {
    "transformer": {
        "class": ["diffusers", "WanTransformer3DModel"],
        "prefix": "model.diffusion_model.",
        "config": TRANSFORMER,
        "rename": [
            [r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."],
            [r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."],
            [r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."],
            [r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."],
            [r"^time_projection\.1\.", "condition_embedder.time_proj."],
            [r"\.self_attn\.", ".attn1."],
            [r"\.cross_attn\.", ".attn2."],
            [r"\.q\.", ".to_q."],
            [r"\.o\.", ".to_out.0."],
            [r"\.ffn\.0\.", ".ffn.net.0.proj."],
            [r"\.ffn\.2\.", ".ffn.net.2."],
            [r"\.norm3\.", ".norm2."],
            [r"^head\.modulation$", "scale_shift_table"],
            [r"\.modulation$", ".scale_shift_table"],
            [r"^head\.head\.", "proj_out."],
        ],
        "rules": [
            [r"(.*)\.qkv\.(.*)", [r"\1.to_q.\2", r"\1.to_k.\2", r"\1.to_v.\2"], ["split", 0, 3]],
            [r"(.*)\.kv\.(.*)", [r"\1.to_k.\2", r"\1.to_v.\2"], ["split", 0, 2]],
            [r"patch_embedding\.weight", "patch_embedding.weight", ["reshape", [-1, 16, 1, 2, 2]]],
        ],
        "skip": {"freqs": "the rotary table, which both sides compute"},
    },
    "text_encoder": {
        "class": ["transformers", "UMT5EncoderModel"],
        "prefix": "cond_stage_model.",
        "config": TEXT_ENCODER,
        "rename": [
            [r"^token_embedding\.", "shared."],
            [r"^norm\.", "encoder.final_layer_norm."],
            [r"^blocks\.(\d+)\.pos_embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."],
            [r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."],
            [r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."],
            [r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."],
            [r"^blocks\.(\d+)\.ffn\.down\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."],
            [r"^blocks\.(\d+)\.ffn\.", r"encoder.block.\1.layer.1.DenseReluDense."],
        ],
        "rules": [
            [r"(.*)\.qkv\.weight", [r"\1.q.weight", r"\1.k.weight", r"\1.v.weight"], ["split", 0, 3]],
            [r"(.*)\.gate_up\.weight", [r"\1.wi_0.weight", r"\1.wi_1.weight"], ["split", 0, 2]],
        ],
    },
    "vae": {
        "class": ["diffusers", "AutoencoderKLWan"],
        "prefix": "first_stage_model.",
        "config": VAE,
        "rename": [
            [r"^conv1\.", "quant_conv."],
            [r"^conv2\.", "post_quant_conv."],
            [r"\.downsamples\.", ".down_blocks."],
            [r"\.upsamples\.(\d+)\.res\.", r".up_blocks.\1.resnets."],
            [r"\.upsamples\.(\d+)\.up\.", r".up_blocks.\1.upsamplers.0."],
            [r"\.middle\.", ".mid_block."],
            [r"\.residual\.0\.", ".norm1."],
            [r"\.residual\.2\.", ".conv1."],
            [r"\.residual\.3\.", ".norm2."],
            [r"\.residual\.6\.", ".conv2."],
            [r"\.shortcut\.", ".conv_shortcut."],
        ],
        "rules": [
            [
                r"(.*\.attentions\.0\.proj\.weight)", r"\1",
                ["transpose", [1, 0]], ["reshape", [8, 8, 1, 1]],
            ],
        ],
    },
    "tokenizer": {"class": ["transformers", "T5TokenizerFast"], "folder": "tokenizer"},
    "scheduler": {"class": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "config": {"shift": 3.0}},
}  # fmt: skip
SKIP = {r"^model_ema\.": "the running average of training"}

if __name__ == "__main__":
    from fvport.weights.converter import main

    main(__file__)
