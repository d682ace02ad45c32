# SPDX-License-Identifier: Apache-2.0
"""Where FastVideo's transformers, VAEs, upsamplers and schedulers differ from their official twins."""

from __future__ import annotations

from fvport.audit.findings import Edit, Finding, Place

N = "fastvideo.models"
D = "diffusers.models.transformers"
A = "diffusers.models.autoencoders"
UNIPC = f"{N}.schedulers.scheduling_unipc_multistep:UniPCMultistepScheduler"
FLOW = f"{N}.schedulers.scheduling_flow_unipc_multistep:FlowUniPCMultistepScheduler"
OFFICIAL_UNIPC = "diffusers.schedulers.scheduling_unipc_multistep:UniPCMultistepScheduler"
HUNYUAN = f"{N}.dits.hunyuanvideo"

HUNYUAN_BATCH = (
    Edit(f"{HUNYUAN}:MMDoubleStreamBlock.forward", "self.img_mod(vec)", "self.img_mod(vec)[:, None]"),
    Edit(f"{HUNYUAN}:MMDoubleStreamBlock.forward", "self.txt_mod(vec)", "self.txt_mod(vec)[:, None]"),
    Edit(f"{HUNYUAN}:MMSingleStreamBlock.forward", "self.modulation(vec).", "self.modulation(vec)[:, None]."),
    Edit(f"{HUNYUAN}15:MMDoubleStreamBlock.forward", "self.img_mod(vec)", "self.img_mod(vec)[:, None]"),
    Edit(f"{HUNYUAN}15:MMDoubleStreamBlock.forward", "self.txt_mod(vec)", "self.txt_mod(vec)[:, None]"),
)

FINDINGS = [
    Finding(
        "FV-D01",
        "Cosmos: fps is overwritten with 16",
        "The rotary embedding's first line sets fps = 16. The pipeline's fps, and an image without one, get the "
        "positions of a 16 fps video. At exactly 16 fps both sides agree.",
        Place(f"{D}.transformer_cosmos:CosmosRotaryPosEmbed.forward", "if fps is None"),
        Place(f"{N}.dits.cosmos:CosmosRotaryPosEmbed.forward", "fps = 16"),
        ("cosmos2/fps24", "cosmos2/no_fps", "cosmos2/cosmos1"),
        "delete the line",
        (Edit(f"{N}.dits.cosmos:CosmosRotaryPosEmbed.forward", "    fps = 16\n", "    pass\n"),),
    ),
    Finding(
        "FV-D02",
        "HunyuanVideo cannot run a batch of two",
        "The modulation has shape [batch, width] and is multiplied with [batch, tokens, width]: with batch 1 it "
        "broadcasts, with 2 it meets the tokens.",
        Place(f"{D}.transformer_hunyuan_video:HunyuanVideoTransformerBlock.forward", "unsqueeze(1)"),
        Place(f"{HUNYUAN}:MMDoubleStreamBlock.forward", "self.img_mod(vec)"),
        ("hunyuan_video/batch2", "hunyuan_video/padded", "hunyuan_video15/batch2", "hunyuan_video15/padded"),
        "give the modulation a token axis, in both kinds of block",
        HUNYUAN_BATCH,
    ),
    Finding(
        "FV-D03",
        "HunyuanVideo swallows the text mask",
        "forward takes encoder_attention_mask in **kwargs and drops it: padded text is attended to, and counts in the "
        "refiner's mean. FastVideo's pipeline trims the text of one prompt, which hides it; two prompts of different "
        "length cannot be trimmed.",
        Place(f"{D}.transformer_hunyuan_video:HunyuanVideoTransformer3DModel.forward", "attention_mask"),
        Place(f"{HUNYUAN}:HunyuanVideoTransformer3DModel.forward", "**kwargs"),
        ("hunyuan_video/padded",),
        "mask the refiner's mean and every attention",
        "hunyuan_mask",
    ),
    Finding(
        "FV-D04",
        "HunyuanVideo ignores image_condition_type",
        "token_replace (HunyuanVideo I2V) modulates the first frame's tokens with a timestep of zero. The native "
        "config "
        "drops the field and the native blocks have no such path; the same weights load and nothing is said.",
        Place(f"{D}.transformer_hunyuan_video:HunyuanVideoTransformer3DModel.__init__", "token_replace"),
        Place("fastvideo.configs.models.dits.hunyuanvideo:HunyuanVideoArchConfig", "pooled_projection_dim"),
        ("hunyuan_video/token_replace",),
        "none tried: both kinds of block need a second modulation and the forward a second embedding, about 150 lines",
        "",
    ),
    Finding(
        "FV-D05",
        "HunyuanVideo 1.5 has no text masks",
        "The official class masks both texts and puts valid tokens before padded ones; the native forward has no mask "
        "argument. A pipeline that trims the text of one prompt hides it.",
        Place(f"{D}.transformer_hunyuan_video15:HunyuanVideo15Transformer3DModel.forward", "encoder_attention_mask_2"),
        Place(f"{N}.dits.hunyuanvideo15:HunyuanVideo15Transformer3DModel.forward", "encoder_hidden_states_2 = "),
        ("hunyuan_video15/padded",),
        "none tried beyond FV-D02: the forward needs two mask arguments and a reordering of the joined text",
        "",
    ),
    Finding(
        "FV-D06",
        "Wan I2V as diffusers now writes it cannot be loaded",
        "The native cross attention has a norm_added_q that neither side uses. The published checkpoints carry it; "
        "diffusers does not write it, and the loader refuses a parameter that no tensor fills.",
        Place(f"{D}.transformer_wan:WanAttention.__init__", "norm_added_k"),
        Place(f"{N}.dits.wanvideo:WanI2VCrossAttention.__init__", "self.norm_added_q"),
        ("wan/i2v_saved",),
        "delete the unused parameter",
        (
            Edit(
                f"{N}.dits.wanvideo:WanI2VCrossAttention.__init__",
                "self.norm_added_q = RMSNorm(dim, eps=eps) if qk_norm else nn.Identity()",
                "pass",
            ),
        ),
    ),
    Finding(
        "FV-D07",
        "Wan FLF2V is not supported",
        "pos_embed_seq_len is a field that no code reads: the checkpoint's pos_embed has no place, and the context is "
        "split after 257 image tokens although two images bring 514.",
        Place(f"{D}.transformer_wan:WanImageEmbedding.forward", "pos_embed"),
        Place(f"{N}.dits.wanvideo:WanI2VCrossAttention.forward", "257"),
        ("wan/flf2v",),
        "add pos_embed to the image embedder and split the context before its last 512 tokens",
        "wan_image_positions",
    ),
    Finding(
        "FV-D08",
        "Wan refuses cross_attn_norm false",
        "An assertion without a message.",
        Place(f"{D}.transformer_wan:WanTransformerBlock.__init__", "cross_attn_norm else"),
        Place(f"{N}.dits.wanvideo:WanTransformerBlock.__init__", "assert cross_attn_norm is True"),
        ("wan/no_cross_norm",),
        "the identity instead of the norm",
        "wan_no_cross_norm",
    ),
    Finding(
        "FV-D09",
        "Wan refuses a config without qk_norm",
        "The official class normalises query and key whatever qk_norm says; the native one raises an empty Exception.",
        Place(f"{D}.transformer_wan:WanAttention.__init__", "self.norm_q"),
        Place(f"{N}.dits.wanvideo:WanTransformerBlock.__init__", "QK Norm type not supported"),
        ("wan/no_qk_norm",),
        "take no qk_norm as rms_norm_across_heads, as the official class does",
        (
            Edit(
                f"{N}.dits.wanvideo:WanTransformerBlock.__init__",
                'qk_norm == "rms_norm_across_heads"',
                'qk_norm in (None, "rms_norm_across_heads")',
            ),
            Edit(f"{N}.dits.wanvideo:WanTransformerBlock.__init__", "qk_norm=qk_norm,", "qk_norm=True,"),
        ),
    ),
    Finding(
        "FV-D10",
        "Kandinsky 5: the official rotary embedding rounds to bfloat16",
        "The official attention returns rotated query and key as bfloat16 whatever the precision; the native one keeps "
        "the input's. In float32 the native side is the more exact one, and not the official one.",
        Place(f"{D}.transformer_kandinsky:Kandinsky5AttnProcessor.__call__", "torch.bfloat16"),
        Place(f"{N}.dits.kandinsky5:_apply_rotary", "to(x.dtype)"),
        ("kandinsky5", "kandinsky5/batch2", "kandinsky5/visual_cond", "kandinsky5/scale"),
        "round to bfloat16 too",
        (
            Edit(
                f"{N}.dits.kandinsky5:_apply_rotary",
                ".to(x.dtype)",
                ".to(torch.bfloat16)",
            ),
        ),
    ),
    Finding(
        "FV-D11",
        "LTX 2 cannot run rope_type interleaved",
        "apply_ltx_rotary_emb_4d takes the [batch, tokens, width] table of the interleaved form without splitting it "
        "into heads.",
        Place(f"{D}.transformer_ltx2:apply_interleaved_rotary_emb"),
        Place(f"{N}.dits.ltx2:apply_ltx_rotary_emb_4d", "input_tensor * cos_freqs"),
        ("ltx2/interleaved",),
        "split the table into heads",
        (
            Edit(
                f"{N}.dits.ltx2:apply_ltx_rotary_emb_4d",
                "if rope_type == LTXRopeType.INTERLEAVED:",
                "if rope_type == LTXRopeType.INTERLEAVED:\n"
                "        b, h, t, d = input_tensor.shape\n"
                "        cos_freqs, sin_freqs = (f.reshape(f.shape[0], t, h, d).transpose(1, 2) for f in freqs_cis)",
            ),
        ),
    ),
    Finding(
        "FV-D12",
        "LTX 2 drops settings that diffusers names otherwise",
        "A config.json that diffusers wrote has cross_attn_timestep_scale_multiplier, rope_theta, "
        "rope_double_precision; "
        "the native arch config knows other names, drops these, and its multiplier defaults to 1 where the release has "
        "1000.",
        Place(f"{D}.transformer_ltx2:LTX2VideoTransformer3DModel.__init__", "cross_attn_timestep_scale_multiplier"),
        Place("fastvideo.configs.models.dits.ltx2:LTX2VideoArchConfig", "av_ca_timestep_scale_multiplier"),
        ("ltx2/diffusers_config",),
        "map the names",
        "ltx2_record",
    ),
    Finding(
        "FV-D13",
        "Cosmos 2.5: epsilon of the query and key norm",
        "The official attention normalises query and key with 1e-5, the native one with 1e-6. Which of the two is "
        "NVIDIA's own is not decided here.",
        Place(f"{D}.transformer_cosmos:CosmosTransformerBlock.__init__", "qk_norm=qk_norm"),
        Place(f"{N}.dits.cosmos2_5:Cosmos25SelfAttention.__init__", "self.norm_q"),
        ("cosmos25", "cosmos25/batch2", "cosmos25/fps16", "cosmos25/no_fps", "cosmos25/one_level"),
        "1e-5",
        (
            Edit(f"{N}.dits.cosmos2_5:Cosmos25SelfAttention.__init__", "eps=eps", "eps=1e-5"),
            Edit(f"{N}.dits.cosmos2_5:Cosmos25CrossAttention.__init__", "eps=eps", "eps=1e-5"),
        ),
    ),
    Finding(
        "FV-D14",
        "Z-Image: norm_eps reaches the norms of queries and keys",
        "The official attention keeps 1e-5 in its query and key norms whatever norm_eps says; the native one takes "
        "norm_eps. At the release's 1e-5 both sides agree.",
        Place(f"{D}.transformer_z_image:ZImageTransformerBlock.__init__", "eps=1e-5"),
        Place(f"{N}.dits.zimage:ZImageTransformerBlock.__init__", "qk_norm, norm_eps)"),
        ("z_image/norm_eps",),
        "leave the attention its own default, 1e-5",
        (Edit(f"{N}.dits.zimage:ZImageTransformerBlock.__init__", "qk_norm, norm_eps)", "qk_norm)"),),
    ),
    Finding(
        "FV-V01",
        "HunyuanVideo's VAE cannot take a batch of two",
        "The causal mask is [batch, n, n] where attention takes it as [heads, n, n].",
        Place("diffusers.models.attention_processor:Attention.prepare_attention_mask", "repeat_interleave"),
        Place(f"{N}.vaes.hunyuanvae:HunyuanVAEAttention.forward", "attn_mask=attention_mask"),
        ("hunyuan_vae/batch2",),
        "give the mask a head axis",
        (
            Edit(
                f"{N}.vaes.hunyuanvae:HunyuanVAEAttention.forward",
                "attn_mask=attention_mask,",
                "attn_mask=attention_mask[:, None],",
            ),
        ),
    ),
    Finding(
        "FV-V02",
        "Wan's VAE without its feature cache is another function",
        "use_feature_cache false decodes all frames at once and repeats frames where the cached path does not.",
        Place(f"{A}.autoencoder_kl_wan:AutoencoderKLWan._decode", "feat_cache"),
        Place(f"{N}.vaes.wanvae:AutoencoderKLWan.decode", "ParallelTiledVAE.decode"),
        ("wan_vae/no_cache",),
        "use the cached path",
        (
            Edit(f"{N}.vaes.wanvae:AutoencoderKLWan.decode", "if self.use_feature_cache:", "if True:"),
            Edit(f"{N}.vaes.wanvae:AutoencoderKLWan.encode", "if self.use_feature_cache:", "if True:"),
        ),
    ),
    Finding(
        "FV-V03",
        "Wan's VAE ignores enable_tiling while the feature cache is on",
        "decode looks at use_feature_cache first and never at use_tiling: the whole picture is decoded at once, "
        "which is "
        "another result (no seams) and more memory than the caller asked for.",
        Place(f"{A}.autoencoder_kl_wan:AutoencoderKLWan._decode", "self.use_tiling"),
        Place(f"{N}.vaes.wanvae:AutoencoderKLWan.decode", "if self.use_feature_cache:"),
        ("wan_vae/tiling", "wan_vae/tiling_no_cache"),
        "decode each tile with the cache, then blend",
        "wan_tiles",
    ),
    Finding(
        "FV-V04",
        "HY-World's VAE is not the HunyuanVideo 1.5 VAE that it copies",
        "It encodes and decodes in chunks with a cache, in which the attention of the middle block sees one "
        "chunk only; "
        "the official VAE attends to all earlier frames. Its documentation says that HY-WorldPlay does so.",
        Place(f"{A}.autoencoder_kl_hunyuanvideo15:HunyuanVideo15AttnBlock.forward", "prepare_causal_attention_mask"),
        Place(f"{N}.vaes.hyworldvae:AutoencoderKLHYWorld._decode", "for i in range(num_frame)"),
        ("hyworld_vae",),
        "let the attention of the middle block see the chunks before",
        "hyworld_attention",
    ),
    Finding(
        "FV-U01",
        "LTX 2's upsampler reads other names than diffusers writes",
        "use_rational_resampler and rational_spatial_scale are dropped: the plain resampler is built.",
        Place("diffusers.pipelines.ltx2.latent_upsampler:LTX2LatentUpsamplerModel.__init__", "use_rational_resampler:"),
        Place(f"{N}.upsamplers.ltx2_upsampler:LatentUpsamplerConfigurator.from_config", "rational_resampler"),
        ("ltx2_upsampler/rational_saved",),
        "read diffusers' names too",
        (
            Edit(
                f"{N}.upsamplers.ltx2_upsampler:LatentUpsamplerConfigurator.from_config",
                'cfg.get("rational_resampler", False)',
                'cfg.get("use_rational_resampler", False)',
            ),
            Edit(
                f"{N}.upsamplers.ltx2_upsampler:LatentUpsamplerConfigurator.from_config",
                'cfg.get("spatial_scale", 2.0)',
                'cfg.get("rational_spatial_scale", 2.0)',
            ),
        ),
    ),
    Finding(
        "FV-S01",
        "UniPC's flow sigmas are a thousandth lower",
        "Both tables step evenly; the native one is 1 - alpha and starts at 0.999, the official one at 1 (lowered by "
        "1e-6): every sigma differs by 0.001 before the shift, and every step with it.",
        Place(f"{OFFICIAL_UNIPC}.set_timesteps", "sigmas = np.linspace(1,"),
        Place(f"{UNIPC}.set_timesteps", "alphas = np.linspace(1,"),
        ("unipc", "unipc/shift5", "unipc/order3", "unipc/no_corrector", "unipc/dynamic", "unipc/new_config"),
        "the official sigmas",
        (
            Edit(
                f"{UNIPC}.set_timesteps",
                "sigmas = np.flip(self.config.flow_shift * sigmas / (1 + (self.config.flow_shift - 1) * "
                "sigmas))[:-1].copy()",
                "sigmas = alphas[:-1]; "
                "sigmas = self.config.flow_shift * sigmas / (1 + (self.config.flow_shift - 1) * sigmas); "
                "sigmas[0] -= 1e-6 * (abs(sigmas[0] - 1) < 1e-6)",
            ),
        ),
    ),
    Finding(
        "FV-S02",
        "UniPC refuses the config that diffusers 0.42 writes",
        "shift_terminal, sigma_min and sigma_max are keys of scheduler_config.json that the native constructor "
        "does not "
        "know; SchedulerLoader passes every key on.",
        Place(f"{OFFICIAL_UNIPC}.__init__", "shift_terminal"),
        Place(f"{UNIPC}.__init__", "time_shift_type"),
        ("unipc/new_config",),
        "accept the keys",
        "unipc_keys",
    ),
    Finding(
        "FV-S03",
        "FlowUniPC's schedule ends at a sigma that was shifted twice",
        "sigma_max and sigma_min are taken from the shifted training table and then shifted again; the official "
        "schedule "
        "shifts 1 ... 1/1000 once and lowers the first sigma by 1e-6.",
        Place(f"{OFFICIAL_UNIPC}.set_timesteps", "sigmas = np.linspace(1,"),
        Place(f"{FLOW}.set_timesteps", "np.linspace(self.sigma_max, self.sigma_min"),
        ("flow_unipc", "flow_unipc/steps20", "flow_unipc/order3"),
        "start from 1 ... 1/1000",
        (
            Edit(
                f"{FLOW}.set_timesteps",
                "np.linspace(self.sigma_max, self.sigma_min,",
                "np.linspace(1, 1 / self.config.num_train_timesteps,",
            ),
            Edit(
                f"{FLOW}.set_timesteps",
                'if self.config.final_sigmas_type == "sigma_min":',
                'sigmas[0] -= 1e-6 * (abs(sigmas[0] - 1) < 1e-6)\n    if self.config.final_sigmas_type == "sigma_min":',
            ),
        ),
    ),
]
