# SPDX-License-Identifier: Apache-2.0
"""Inference presets of {{ p.pipeline_class }}. Every value is the official pipeline's; its source stands behind it."""
from fastvideo.api.presets import InferencePreset, PresetStageSpec

_DENOISE_STAGE = PresetStageSpec(
    name="denoise",
    kind="denoising",
    description="The denoising loop",
    allowed_overrides=frozenset({{ '{"num_inference_steps", "guidance_scale", "strength"}' if "strength" in p.defaults else '{"num_inference_steps", "guidance_scale"}' }}),
)

{{ p.preset | upper }} = InferencePreset(
    name="{{ p.preset }}",
    version=1,
    model_family="{{ p.family }}",
    description={{ (p.model ~ ", the official defaults") | pyrepr }},
    workload_type="{{ p.workload }}",
    stage_schemas=(_DENOISE_STAGE, ),
    defaults={
{% for name in ["height", "width", "num_frames", "fps", "num_inference_steps", "guidance_scale", "strength", "audio_start_in_s", "audio_end_in_s"] %}
{% if name in p.defaults and p.defaults[name][0] is not none %}
        "{{ name }}": {{ p.defaults[name][0] | pyrepr }},  # {{ p.defaults[name][1] }}
{% endif %}
{% endfor %}
{% if p.is_image %}
        "num_frames": 1,  # an image
{% elif p.is_stable_audio %}
        "height": 8,  # VideoGenerator asks for a size and a length; nothing of a sound depends on them
        "width": 8,
        "num_frames": 1,
{% elif "fps" not in p.defaults %}
        "fps": {{ p.fps }},  # the gate's; the official pipeline has none
{% endif %}
{% if p.defaults.get("negative_prompt", (none, ""))[0] %}
        "negative_prompt": {{ p.defaults["negative_prompt"][0] | pyrepr }},  # {{ p.defaults["negative_prompt"][1] }}
{% else %}
        "negative_prompt": "",  # the official default is none; FastVideo's own would be another prompt
{% endif %}
    },
)

ALL_PRESETS = ({{ p.preset | upper }}, )
