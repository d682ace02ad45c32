# SPDX-License-Identifier: Apache-2.0
"""BERT, RoBERTa and XLM-RoBERTa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.lines import Rules, field_lines, prefix_of

BERT_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "eos_token_id": None,
    "tie_word_embeddings": True,
}
ROBERTA_DEFAULTS = {**BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class BertFacts:
    """Switches of BERT and its kin."""

    family: str
    prefix: str
    lines: list[str]
    pooler: bool
    positions_from_ids: bool
    ignored: list[str]

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        layer, native = at + r"encoder\.layer\.(\d+)\.", r"layers.\1."
        embeddings = r"embeddings\.(word|position|token_type)_embeddings\.weight"
        rules: Rules = [
            (at + embeddings, r"embeddings.\1_embeddings.weight"),
            (at + r"embeddings\.LayerNorm\.(weight|bias)", r"embeddings.LayerNorm.\1"),
            (layer + r"attention\.output\.(dense|LayerNorm)\.(weight|bias)", native + r"attention.\2.\3"),
            (layer + r"(intermediate|output)\.dense\.(weight|bias)", native + r"\2.\3"),
            (layer + r"output\.LayerNorm\.(weight|bias)", native + r"LayerNorm.\2"),
        ]
        for place, part in enumerate(("query", "key", "value")):
            target = (native + r"attention.qkv_proj.\2", place, 3)
            rules.append((layer + rf"attention\.self\.{part}\.(weight|bias)", target))
        return [*rules, (at + r"pooler\.dense\.(weight|bias)", r"pooler.\1")] if self.pooler else rules


def bert(c: Any) -> BertFacts:
    """The facts of a component whose official class is BertModel, RobertaModel or XLMRobertaModel."""
    roberta = "Roberta" in c.official_class
    names = [*BERT_DEFAULTS, *(["position_embedding_type"] if "position_embedding_type" in c.config else [])]
    buffers = any(name.endswith("position_ids") for name in c.tensors)
    heads = sorted({name.split(".")[0] for name in c.tensors if name.startswith(("cls.", "lm_head."))})
    return BertFacts(
        family="RoBERTa" if roberta else "BERT",
        prefix=prefix_of(c.tensors, "embeddings.word_embeddings.weight", ""),
        lines=field_lines(c.config, names, ROBERTA_DEFAULTS if roberta else BERT_DEFAULTS),
        pooler=not c.tensors or any(name.endswith("pooler.dense.weight") for name in c.tensors),
        positions_from_ids=roberta,
        ignored=[*([r"^.*position_ids$"] if buffers else []), *(rf"^{head}\." for head in heads)],
    )
