# SPDX-License-Identifier: Apache-2.0
{% set own = [p.prefix ~ "DenoisingStage"] + ([] if p.is_stable_audio else [p.prefix ~ "LatentPreparationStage"]) %}
{% for name in own %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages.denoising import {{ name }}
{% endfor %}
{% for name, module in p.own_stages.items() %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages.{{ module }} import {{ name }}
{% endfor %}

__all__ = [
{% for name in own + (p.own_stages | list) %}
    "{{ name }}",
{% endfor %}
]
