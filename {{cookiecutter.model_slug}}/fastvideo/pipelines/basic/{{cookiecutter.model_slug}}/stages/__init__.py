# SPDX-License-Identifier: Apache-2.0
from fastvideo.pipelines.basic.{{ p.slug }}.stages.denoising import {{ p.prefix }}DenoisingStage
{% for name, module in p.own_stages.items() %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages.{{ module }} import {{ name }}
{% endfor %}

{% if p.own_stages %}
__all__ = [
    "{{ p.prefix }}DenoisingStage",
{% for name in p.own_stages %}
    "{{ name }}",
{% endfor %}
]
{% else %}
__all__ = ["{{ p.prefix }}DenoisingStage"]
{% endif %}
