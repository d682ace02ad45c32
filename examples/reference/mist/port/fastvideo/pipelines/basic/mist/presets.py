# SPDX-License-Identifier: Apache-2.0
"""Inference presets of MistPipeline. Every value is the official pipeline's; its source stands behind it."""
from fastvideo.api.presets import InferencePreset, PresetStageSpec

_DENOISE_STAGE = PresetStageSpec(
    name="denoise",
    kind="denoising",
    description="The denoising loop",
    allowed_overrides=frozenset({"num_inference_steps", "guidance_scale"}),
)

MIST_DEFAULT = InferencePreset(
    name="mist_default",
    version=1,
    model_family="mist",
    description="Mist, the official defaults",
    workload_type="t2v",
    stage_schemas=(_DENOISE_STAGE, ),
    defaults={
        "height": 64,  # MistSampler.__call__
        "width": 96,  # MistSampler.__call__
        "num_frames": 9,  # MistSampler.__call__
        "num_inference_steps": 8,  # MistSampler.__call__
        "guidance_scale": 4.0,  # MistSampler.__call__
        "fps": 16,  # the gate's; the official pipeline has none
        "negative_prompt": "",  # MistSampler.__call__
    },
)

ALL_PRESETS = (MIST_DEFAULT, )
