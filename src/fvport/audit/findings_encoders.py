# SPDX-License-Identifier: Apache-2.0
"""Where FastVideo's text and image encoders differ from their official twins, and what would make them equal."""

from __future__ import annotations

from fvport.audit.findings import Edit, Finding, Place

N = "fastvideo.models.encoders"
T = "transformers.models"

FINDINGS = [
    Finding(
        "FV-E01",
        "the registry maps BertModel to a CLIP class",
        "A checkpoint with architecture BertModel (HunyuanDiT) is built as CLIPTextModel: no weight of it fits.",
        Place(f"{T}.bert.modeling_bert:BertModel", "class BertModel"),
        Place("fastvideo.models.registry", '"BertModel"'),
        ("bert",),
        "registry entry to a class that loads transformers' BertModel, as t5_hf does for T5",
        "bert_entry",
    ),
    Finding(
        "FV-E02",
        "tensor names without text_model. / vision_model. are not known",
        "transformers 5 dropped the prefix from CLIP and SigLIP state dicts; checkpoints saved with it do not load.",
        Place(f"{T}.clip.modeling_clip:CLIPTextModel.__init__"),
        Place(f"{N}.clip:CLIPTextModel.load_weights", "if name in params_dict"),
        ("clip_text/v5_names", "clip_vision/v5_names", "siglip_vision/v5_names"),
        "add the prefix in load_weights where it is missing",
        "prefixed_names",
    ),
    Finding(
        "FV-E03",
        "rope_parameters of config.json is dropped",
        "transformers 5 writes rope_theta inside rope_parameters. update_model_arch takes only keys that are fields of "
        "the arch config, so the native default theta stands; nothing is said.",
        Place(f"{T}.llama.modeling_llama:LlamaRotaryEmbedding.compute_default_rope_parameters", "rope_theta"),
        Place("fastvideo.configs.models.base:ModelConfig.update_model_arch", "if key in valid_fields"),
        ("llama/v5_config", "qwen3/v5_config", "qwen2_5_vl_text/v5_config"),
        "read rope_theta and rope_scaling out of rope_parameters before the update",
        "rope_parameters",
    ),
    Finding(
        "FV-E04",
        "CLIP text ignores attention_mask",
        "The mask is accepted and never used (the lines that made it are comments). Padding on the right is hidden by "
        "the causal mask; padding on the left changes every real token.",
        Place(f"{T}.clip.modeling_clip:CLIPTextModel.forward", "attention_mask"),
        Place(f"{N}.clip:CLIPTextTransformer.forward", "# attention_mask=attention_mask"),
        ("clip_text/padding_left",),
        "hand causal and padding mask to the attention layers",
        "clip_mask",
    ),
    Finding(
        "FV-E05",
        "Llama ignores attention_mask",
        "attention_mask is an argument of forward that no line reads. Padding on the left changes every real token.",
        Place(f"{T}.llama.modeling_llama:LlamaModel.forward", "create_causal_mask"),
        Place(f"{N}.llama:LlamaModel.forward", "attention_mask"),
        ("llama/padding_left",),
        "hand causal and padding mask to the attention layers",
        "llama_mask",
    ),
    Finding(
        "FV-E06",
        "Llama cannot encode more than one prompt at once",
        "position_ids has batch 1 where the batch is larger; the rotary layer counts tokens from it and folds "
        "the batch "
        "into the heads. Qwen3's forward expands it.",
        Place(f"{T}.llama.modeling_llama:LlamaModel.forward", "position_ids = "),
        Place(f"{N}.llama:LlamaModel.forward", "unsqueeze(0)"),
        ("llama/batch2",),
        "expand position_ids to the batch",
        (
            Edit(
                f"{N}.llama:LlamaModel.forward",
                "device=hidden_states.device).unsqueeze(0)",
                "device=hidden_states.device).unsqueeze(0).expand(hidden_states.shape[0], -1).contiguous()",
            ),
        ),
    ),
    Finding(
        "FV-E07",
        "rope_scaling is refused",
        "get_rope raises for any rope_scaling. Llama 3.1, which HunyuanVideo's LLaVA is built on, has one.",
        Place("transformers.modeling_rope_utils:_compute_llama3_parameters", "low_freq_factor"),
        Place("fastvideo.layers.rotary_embedding:get_rope", "Unknown RoPE scaling"),
        ("llama/llama3_rope",),
        "scale the inverse frequencies as transformers' llama3 rule does",
        "llama3_rope",
    ),
    Finding(
        "FV-E08",
        "a config.json without head_dim cannot be built",
        "getattr(config, 'head_dim', default) never takes its default: the dataclass has the field, as None.",
        Place(f"{T}.llama.modeling_llama:LlamaAttention.__init__", "head_dim"),
        Place(f"{N}.llama:LlamaAttention.__init__", 'getattr(config, "head_dim"'),
        ("llama/no_head_dim",),
        "fall back where head_dim is None",
        (
            Edit(
                f"{N}.llama:LlamaAttention.__init__",
                'getattr(config, "head_dim", self.hidden_size // self.total_num_heads)',
                '(getattr(config, "head_dim", None) or self.hidden_size // self.total_num_heads)',
            ),
        ),
    ),
    Finding(
        "FV-E09",
        "CLIP vision's last_hidden_state is normalised once more",
        "With all layers built, post_layernorm is applied to every token; transformers applies it to the pooled class "
        "token only. Wan I2V builds one layer less (num_hidden_layers_override) and is not touched.",
        Place(f"{T}.clip.modeling_clip:CLIPVisionModel.forward", "post_layernorm"),
        Place("fastvideo.models.encoders.vision:resolve_visual_encoder_outputs", "return post_layer_norm"),
        ("clip_vision", "clip_vision/v5_names", "clip_vision/projection_states"),
        "answer the encoder's output as it is",
        (
            Edit(
                "fastvideo.models.encoders.clip:CLIPVisionTransformer.forward",
                "self.post_layernorm,",
                "None,",
            ),
        ),
    ),
    Finding(
        "FV-E10",
        "CLIPVisionModelWithProjection has no projection",
        "The registry maps it to CLIPVisionModel, which skips visual_projection: there is no image_embeds.",
        Place(f"{T}.clip.modeling_clip:CLIPVisionModelWithProjection.forward", "visual_projection"),
        Place(f"{N}.clip:CLIPVisionModel.load_weights", 'startswith("visual_projection")'),
        ("clip_vision/projection",),
        "keep visual_projection and answer image_embeds",
        "clip_vision_projection",
    ),
    Finding(
        "FV-E11",
        "SigLIP has no pooling head",
        "The head's tensors are skipped and pooler_output is None.",
        Place(f"{T}.siglip.modeling_siglip:SiglipVisionModel.forward", "pooler_output"),
        Place(f"{N}.siglip:SiglipVisionModel.load_weights", "head"),
        ("siglip_vision/pooler",),
        "build, load and call transformers' pooling head",
        "siglip_head",
    ),
    Finding(
        "FV-E12",
        "T5 and UMT5 answer no hidden states",
        "output_hidden_states is accepted and ignored.",
        Place(f"{T}.t5.modeling_t5:T5EncoderModel.forward", "return"),
        Place(f"{N}.t5:T5EncoderModel.forward", "BaseEncoderOutput("),
        ("t5/states", "umt5/states"),
        "collect the input of each block and the normalised end",
        "t5_states",
    ),
    Finding(
        "FV-E13",
        "Qwen2.5-VL needs an attention mask",
        "forward reads attention_mask.shape before it looks whether there is one.",
        Place(f"{T}.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VLTextModel.forward", "attention_mask"),
        Place(f"{N}.qwen2_5:Qwen2_5_VLTextModel.forward", "attention_mask.shape[-1]"),
        ("qwen2_5_vl_text/no_mask",),
        "take the length from the hidden states",
        (
            Edit(
                f"{N}.qwen2_5:Qwen2_5_VLTextModel.forward",
                '"kv_length": attention_mask.shape[-1]',
                '"kv_length": hidden_states.shape[1]',
            ),
            Edit(
                f"{N}.qwen2_5:Qwen2_5_VLTextModel.forward",
                "sdpa_mask(**mask_kwargs)",
                "sdpa_mask(**mask_kwargs, allow_is_causal_skip=False)",
            ),
        ),
    ),
    Finding(
        "FV-E14",
        "Qwen2.5-VL ignores its sliding window",
        "sliding_window is kept on each attention layer and never used: one mask serves all layers.",
        Place(f"{T}.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VLTextModel.forward", "sliding"),
        Place(f"{N}.qwen2_5:Qwen2_5_VLAttention.__init__", "self.sliding_window"),
        ("qwen2_5_vl_text/window",),
        "mask what lies outside the window in layers of kind sliding_attention",
        "qwen25_window",
    ),
    Finding(
        "FV-E15",
        "LTX 2's learnable registers are kept in bfloat16",
        "The parameter is created in bfloat16 whatever the precision asked for: loading rounds the checkpoint's "
        "values, "
        "and a later cast to float32 does not bring them back.",
        Place("diffusers.pipelines.ltx2.connectors:LTX2ConnectorTransformer1d.__init__", "init_registers"),
        Place(f"{N}.gemma:Embeddings1DConnector.__init__", "dtype=torch.bfloat16"),
        (
            "ltx2_connectors",
            "ltx2_connectors/batch2",
            "ltx2_connectors/padding_right",
            "ltx2_connectors/gated",
            "ltx2_connectors/single_rope",
        ),
        "create it in the default dtype",
        (Edit(f"{N}.gemma:Embeddings1DConnector.__init__", "dtype=torch.bfloat16,", ""),),
    ),
    Finding(
        "FV-E16",
        "LTX 2's connectors take one prompt only",
        "The rotary table has batch 1 and the split form reshapes the states by the table's batch.",
        Place("diffusers.pipelines.ltx2.connectors:LTX2ConnectorTransformer1d.forward", "self.rope("),
        Place(f"{N}.gemma:Embeddings1DConnector.forward", "indices_grid[None, None, :]"),
        ("ltx2_connectors/batch2",),
        "build the rotary table for the batch",
        (
            Edit(
                f"{N}.gemma:Embeddings1DConnector.forward",
                "indices_grid = indices_grid[None, None, :]",
                "indices_grid = indices_grid[None, None, :].expand(hidden_states.shape[0], -1, -1)",
            ),
        ),
    ),
]
