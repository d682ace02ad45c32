# SPDX-License-Identifier: Apache-2.0
"""What an encoder's config.json and tensor names decide in its source: one frozen object a family, read by templates.

A switch that follows from the class alone (Gemma's norms) is here and not on the native config; a value that the config
holds stays a field of the arch config, so that a checkpoint of another size loads without a new bake.
"""

from __future__ import annotations

from fvport.scaffold.encoder_facts.audio import audio
from fvport.scaffold.encoder_facts.bert import bert
from fvport.scaffold.encoder_facts.clip_text import clip_text
from fvport.scaffold.encoder_facts.conditioner import conditioner
from fvport.scaffold.encoder_facts.decoder_lm import decoder
from fvport.scaffold.encoder_facts.lines import arch_line, ignored_table, rule_table
from fvport.scaffold.encoder_facts.vit import vit

FILTERS = {
    "decoder_facts": decoder,
    "clip_text_facts": clip_text,
    "bert_facts": bert,
    "vit_facts": vit,
    "audio_facts": audio,
    "conditioner_facts": conditioner,
    "rule_table": rule_table,
    "ignored_table": ignored_table,
    "arch_line": arch_line,
}
