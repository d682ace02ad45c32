# SPDX-License-Identifier: Apache-2.0
from fastvideo.pipelines.basic.{{ p.slug }}.stages.denoising import {{ p.prefix }}DenoisingStage
{% if p.joins_image %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages.image_conditioning import {{ p.prefix ~ "ImageEncodingStage, " if p.image_encoders }}{{ p.prefix }}ImageLatentStage
{% endif %}

{% if p.joins_image %}
__all__ = [{{ '"' ~ p.prefix ~ 'DenoisingStage", ' }}{{ '"' ~ p.prefix ~ 'ImageEncodingStage", ' if p.image_encoders }}"{{ p.prefix }}ImageLatentStage"]
{% else %}
__all__ = ["{{ p.prefix }}DenoisingStage"]
{% endif %}
