# SPDX-License-Identifier: Apache-2.0
"""Published layouts as lines of names: what `suggest` is tried on beside FastVideo's own classes.

`old -> new  shape leaves`: `#` stands for layer numbers, `{a,b} -> c` for a merge along dimension 0, `a -> {b,c}` for
a split; shapes are in letters (d = width, f = feed-forward, ...), leaves `wb`, `w`, or none for a bare tensor.
"""

from __future__ import annotations

SIZES = {"d": 64, "f": 256, "t": 48, "p": 40, "c": 16, "h": 32, "v": 1000, "n": 77, "o": 24}

FLUX = """
img_in -> x_embedder  d,c wb
txt_in -> context_embedder  d,t wb
time_in.in_layer -> time_text_embed.timestep_embedder.linear_1  d,h wb
time_in.out_layer -> time_text_embed.timestep_embedder.linear_2  d,d wb
guidance_in.in_layer -> time_text_embed.guidance_embedder.linear_1  d,h wb
guidance_in.out_layer -> time_text_embed.guidance_embedder.linear_2  d,d wb
vector_in.in_layer -> time_text_embed.text_embedder.linear_1  d,p wb
vector_in.out_layer -> time_text_embed.text_embedder.linear_2  d,d wb
double_blocks.#.img_mod.lin -> transformer_blocks.#.norm1.linear  6d,d wb
double_blocks.#.txt_mod.lin -> transformer_blocks.#.norm1_context.linear  6d,d wb
double_blocks.#.img_attn.qkv -> transformer_blocks.#.attn.{to_q,to_k,to_v}  3d,d wb
double_blocks.#.txt_attn.qkv -> transformer_blocks.#.attn.{add_q_proj,add_k_proj,add_v_proj}  3d,d wb
double_blocks.#.img_attn.norm.query_norm.scale -> transformer_blocks.#.attn.norm_q.weight  h
double_blocks.#.img_attn.norm.key_norm.scale -> transformer_blocks.#.attn.norm_k.weight  h
double_blocks.#.txt_attn.norm.query_norm.scale -> transformer_blocks.#.attn.norm_added_q.weight  h
double_blocks.#.txt_attn.norm.key_norm.scale -> transformer_blocks.#.attn.norm_added_k.weight  h
double_blocks.#.img_attn.proj -> transformer_blocks.#.attn.to_out.0  d,d wb
double_blocks.#.txt_attn.proj -> transformer_blocks.#.attn.to_add_out  d,d wb
double_blocks.#.img_mlp.0 -> transformer_blocks.#.ff.net.0.proj  f,d wb
double_blocks.#.img_mlp.2 -> transformer_blocks.#.ff.net.2  d,f wb
double_blocks.#.txt_mlp.0 -> transformer_blocks.#.ff_context.net.0.proj  f,d wb
double_blocks.#.txt_mlp.2 -> transformer_blocks.#.ff_context.net.2  d,f wb
final_layer.linear -> proj_out  c,d wb
final_layer.adaLN_modulation.1 -> norm_out.linear  2d,d wb
"""

PIXART = """
x_embedder.proj -> pos_embed.proj  d,4,2,2 wb
t_embedder.mlp.0 -> adaln_single.emb.timestep_embedder.linear_1  d,h wb
t_embedder.mlp.2 -> adaln_single.emb.timestep_embedder.linear_2  d,d wb
t_block.1 -> adaln_single.linear  6d,d wb
y_embedder.y_proj.fc1 -> caption_projection.linear_1  d,t wb
y_embedder.y_proj.fc2 -> caption_projection.linear_2  d,d wb
blocks.#.scale_shift_table -> transformer_blocks.#.scale_shift_table  6,d
blocks.#.attn.qkv -> transformer_blocks.#.attn1.{to_q,to_k,to_v}  3d,d wb
blocks.#.attn.proj -> transformer_blocks.#.attn1.to_out.0  d,d wb
blocks.#.cross_attn.q_linear -> transformer_blocks.#.attn2.to_q  d,d wb
blocks.#.cross_attn.kv_linear -> transformer_blocks.#.attn2.{to_k,to_v}  2d,d wb
blocks.#.cross_attn.proj -> transformer_blocks.#.attn2.to_out.0  d,d wb
blocks.#.mlp.fc1 -> transformer_blocks.#.ff.net.0.proj  f,d wb
blocks.#.mlp.fc2 -> transformer_blocks.#.ff.net.2  d,f wb
final_layer.linear -> proj_out  o,d wb
final_layer.scale_shift_table -> scale_shift_table  2,d
"""

LLAMA = """
tok_embeddings -> model.embed_tokens  v,d w
layers.#.attention.wq -> model.layers.#.self_attn.q_proj  d,d w
layers.#.attention.wk -> model.layers.#.self_attn.k_proj  h,d w
layers.#.attention.wv -> model.layers.#.self_attn.v_proj  h,d w
layers.#.attention.wo -> model.layers.#.self_attn.o_proj  d,d w
layers.#.feed_forward.w1 -> model.layers.#.mlp.gate_proj  f,d w
layers.#.feed_forward.w2 -> model.layers.#.mlp.down_proj  d,f w
layers.#.feed_forward.w3 -> model.layers.#.mlp.up_proj  f,d w
layers.#.attention_norm -> model.layers.#.input_layernorm  d w
layers.#.ffn_norm -> model.layers.#.post_attention_layernorm  d w
norm -> model.norm  d w
output -> lm_head  v,d w
"""

BERT = """
embeddings.word_embeddings -> tokens  v,d w
embeddings.position_embeddings -> positions  n,d w
embeddings.LayerNorm -> embed_norm  d wb
encoder.layer.#.attention.self.{query,key,value} -> layers.#.attn.qkv  d,d wb
encoder.layer.#.attention.output.dense -> layers.#.attn.out  d,d wb
encoder.layer.#.attention.output.LayerNorm -> layers.#.norm_attn  d wb
encoder.layer.#.intermediate.dense -> layers.#.mlp.fc_in  f,d wb
encoder.layer.#.output.dense -> layers.#.mlp.fc_out  d,f wb
encoder.layer.#.output.LayerNorm -> layers.#.norm_mlp  d wb
pooler.dense -> pooler  d,d wb
"""

WAN = """
patch_embedding -> patch_embedding  d,c,1,2,2 wb
text_embedding.0 -> condition_embedder.text_embedder.linear_1  d,t wb
text_embedding.2 -> condition_embedder.text_embedder.linear_2  d,d wb
time_embedding.0 -> condition_embedder.time_embedder.linear_1  d,h wb
time_embedding.2 -> condition_embedder.time_embedder.linear_2  d,d wb
time_projection.1 -> condition_embedder.time_proj  6d,d wb
img_emb.proj.0 -> condition_embedder.image_embedder.norm1  p wb
img_emb.proj.1 -> condition_embedder.image_embedder.ff.net.0.proj  p,p wb
img_emb.proj.3 -> condition_embedder.image_embedder.ff.net.2  d,p wb
img_emb.proj.4 -> condition_embedder.image_embedder.norm2  d wb
blocks.#.modulation -> blocks.#.scale_shift_table  1,6,d
blocks.#.self_attn.q -> blocks.#.attn1.to_q  d,d wb
blocks.#.self_attn.k -> blocks.#.attn1.to_k  d,d wb
blocks.#.self_attn.v -> blocks.#.attn1.to_v  d,d wb
blocks.#.self_attn.o -> blocks.#.attn1.to_out.0  d,d wb
blocks.#.self_attn.norm_q -> blocks.#.attn1.norm_q  d w
blocks.#.self_attn.norm_k -> blocks.#.attn1.norm_k  d w
blocks.#.norm3 -> blocks.#.norm2  d wb
blocks.#.cross_attn.q -> blocks.#.attn2.to_q  d,d wb
blocks.#.cross_attn.k -> blocks.#.attn2.to_k  d,d wb
blocks.#.cross_attn.v -> blocks.#.attn2.to_v  d,d wb
blocks.#.cross_attn.o -> blocks.#.attn2.to_out.0  d,d wb
blocks.#.cross_attn.norm_q -> blocks.#.attn2.norm_q  d w
blocks.#.cross_attn.norm_k -> blocks.#.attn2.norm_k  d w
blocks.#.cross_attn.k_img -> blocks.#.attn2.add_k_proj  d,d wb
blocks.#.cross_attn.v_img -> blocks.#.attn2.add_v_proj  d,d wb
blocks.#.cross_attn.norm_k_img -> blocks.#.attn2.norm_added_k  d w
blocks.#.ffn.0 -> blocks.#.ffn.net.0.proj  f,d wb
blocks.#.ffn.2 -> blocks.#.ffn.net.2  d,f wb
head.head -> proj_out  o,d wb
head.modulation -> scale_shift_table  1,2,d
"""

COGVIDEO = """
mixins.patch_embed.proj -> patch_embed.proj  d,c,2,2 wb
mixins.patch_embed.text_proj -> patch_embed.text_proj  d,t wb
time_embed.0 -> time_embedding.linear_1  h,d wb
time_embed.2 -> time_embedding.linear_2  h,h wb
transformer.layers.#.attention.query_key_value -> transformer_blocks.#.attn1.{to_q,to_k,to_v}  3d,d wb
transformer.layers.#.attention.dense -> transformer_blocks.#.attn1.to_out.0  d,d wb
transformer.layers.#.mlp.dense_h_to_4h -> transformer_blocks.#.ff.net.0.proj  f,d wb
transformer.layers.#.mlp.dense_4h_to_h -> transformer_blocks.#.ff.net.2  d,f wb
transformer.layers.#.input_layernorm -> transformer_blocks.#.norm1.norm  d wb
transformer.layers.#.post_attention_layernorm -> transformer_blocks.#.norm2.norm  d wb
mixins.final_layer.norm_final -> norm_out.norm  d wb
mixins.final_layer.linear -> proj_out  o,d wb
mixins.final_layer.adaLN_modulation.1 -> norm_out.linear  2d,h wb
transformer.final_layernorm -> norm_final  d wb
"""

GPT2 = """
wte -> embed_tokens  v,d w
wpe -> embed_positions  n,d w
h.#.ln_1 -> layers.#.attn_norm  d wb
h.#.attn.c_attn -> layers.#.attn.qkv_proj  d,3d>3d,d wb
h.#.attn.c_proj -> layers.#.attn.out_proj  d,d wb
h.#.ln_2 -> layers.#.mlp_norm  d wb
h.#.mlp.c_fc -> layers.#.mlp.fc_in  d,f>f,d wb
h.#.mlp.c_proj -> layers.#.mlp.fc_out  f,d>d,f wb
ln_f -> final_norm  d wb
"""

LAYOUTS = {"flux": FLUX, "pixart": PIXART, "llama": LLAMA, "bert": BERT, "wan": WAN, "cogvideo": COGVIDEO, "gpt2": GPT2}
Names = dict[str, tuple[int, ...]]
Truth = set[tuple[str, str, int | None]]  # (official, native, which part of a merge or split)


def tables(text: str, layers: int = 5) -> tuple[Names, Names, Truth]:
    """(official, native, truth) of one layout."""
    official: Names = {}
    native: Names = {}
    truth: Truth = set()
    for line in text.strip().splitlines():
        names, _, rest = line.partition("  ")
        shape, _, leaves = rest.partition(" ")
        old, new = (_several(side) for side in names.split(" -> "))
        for layer in range(layers if "#" in names else 1):
            for leaf in leaves or [""]:
                _one(old, new, shape, layer, leaf, official, native, truth)
    return official, native, truth


def _one(
    old: list[str], new: list[str], shape: str, layer: int, leaf: str, official: Names, native: Names, truth: Truth
) -> None:
    ending = {"w": ".weight", "b": ".bias", "": ""}[leaf]
    before, _, after = shape.partition(">")
    mine, theirs = _shape(before, leaf), _shape(after or before, leaf)
    if leaf == "b" and after:
        mine = theirs
    for place, source in enumerate(old):
        for part, target in enumerate(new):
            here, there = source.replace("#", str(layer)) + ending, target.replace("#", str(layer)) + ending
            official[here] = mine
            native[there] = (theirs[0] * len(old) // len(new), *theirs[1:])
            truth.add((here, there, place if len(old) > 1 else part if len(new) > 1 else None))


def _several(side: str) -> list[str]:
    head, _, rest = side.partition("{")
    return [head + word for word in rest.rstrip("}").split(",")]


def _shape(text: str, leaf: str) -> tuple[int, ...]:
    sizes = [int(word) if word.isdigit() else int(word[:-1] or 1) * SIZES[word[-1]] for word in text.split(",")]
    return tuple(sizes[:1] if leaf == "b" else sizes)
