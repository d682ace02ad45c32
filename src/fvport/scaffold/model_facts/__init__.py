# SPDX-License-Identifier: Apache-2.0
"""What the source templates of transformers and autoencoders ask: lines of an arch config, rules in order."""

from __future__ import annotations

from fvport.scaffold.model_facts.audio import audio_fields, audio_rules
from fvport.scaffold.model_facts.cross import cross_family, cross_fields, cross_rules
from fvport.scaffold.model_facts.joint import joint_fields, joint_rules
from fvport.scaffold.model_facts.lines import config_field, dit_rules

FILTERS = {
    "audio_fields": audio_fields,
    "audio_rules": audio_rules,
    "config_field": config_field,
    "cross_family": cross_family,
    "cross_fields": cross_fields,
    "cross_rules": cross_rules,
    "dit_rules": dit_rules,
    "joint_fields": joint_fields,
    "joint_rules": joint_rules,
}
