# SPDX-License-Identifier: Apache-2.0
{% set encoders = p.text_encoders | selectattr("mode", "ne", "passthrough") | list %}
{% set names = p.components | selectattr("kind", "ne", "tokenizer") | map(attribute="module_name") | list %}
{% set tokenizers = encoders | map(attribute="tokenizer") | select | list %}
{% set experts = p.components | selectattr("name", "equalto", "transformer_2") | list %}
"""{{ p.pipeline_class }}: FastVideo's stages where they do what the official pipeline does, and {{ "one" if p.is_stable_audio and not p.own_stages else "some" }} of its own."""
{% if p.is_stable_audio %}
import os
from typing import Any
{% endif %}

from fastvideo.fastvideo_args import FastVideoArgs
from fastvideo.pipelines import ComposedPipelineBase, LoRAPipeline
from fastvideo.pipelines.basic.{{ p.slug }}.stages import {{ p.prefix }}DenoisingStage
{% if not p.is_stable_audio %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages import {{ p.prefix }}LatentPreparationStage
{% endif %}
{% for name in p.own_stages %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages import {{ name }}
{% endfor %}
{% if p.is_stable_audio %}
from fastvideo.pipelines.basic.{{ p.slug }}.stages.text_and_sound import load_conditioner
from fastvideo.pipelines.stages import ConditioningStage, InputValidationStage, TimestepPreparationStage
{% elif p.is_sd3 and p.renoises %}
from fastvideo.pipelines.stages import ConditioningStage, InputValidationStage
{% elif p.is_sd3 %}
from fastvideo.pipelines.stages import ConditioningStage, InputValidationStage, TimestepPreparationStage
{% elif p.renoises %}
from fastvideo.pipelines.stages import ConditioningStage, DecodingStage, InputValidationStage, TextEncodingStage
{% else %}
from fastvideo.pipelines.stages import (ConditioningStage, DecodingStage, InputValidationStage, TextEncodingStage,
                                        TimestepPreparationStage)
{% endif %}


class {{ p.pipeline_class }}(LoRAPipeline, ComposedPipelineBase):
    """Runs with the scheduler that the checkpoint names; nothing replaces it."""

    is_video_pipeline = {{ p.workload.endswith("2v") }}
    _required_config_modules = [
{% for name in tokenizers + names %}
        "{{ name }}",
{% endfor %}
    ]

{% if p.is_stable_audio %}
    def load_modules(self,
                     fastvideo_args: FastVideoArgs,
                     loaded_modules: dict[str, Any] | None = None) -> dict[str, Any]:
        """The conditioner first: FastVideo would build one without the checkpoint's config."""
        given = dict(loaded_modules or {})
        if "{{ p.conditioner.name }}" not in given:
            folder = os.path.join(self.model_path, "{{ p.conditioner.name }}")
            given["{{ p.conditioner.name }}"] = load_conditioner(folder, fastvideo_args)
        return super().load_modules(fastvideo_args, given)

{% endif %}
    def create_pipeline_stages(self, fastvideo_args: FastVideoArgs) -> None:
        scheduler, transformer = self.get_module("scheduler"), self.get_module("{{ p.dit.name }}")

        self.add_stage("input_validation_stage", InputValidationStage())
{% if p.is_stable_audio %}
        encoder, tokenizer = self.get_module("{{ encoders[0].name }}"), self.get_module("{{ encoders[0].tokenizer }}")
        conditioner, vae = self.get_module("{{ p.conditioner.name }}"), self.get_module("{{ p.vae.name if p.vae else "vae" }}")
        text_stage = {{ p.prefix }}TextAndSecondsStage(encoder, tokenizer, conditioner, vae)
        self.add_stage("prompt_encoding_stage", text_stage)
{% elif encoders %}
        encoders = [
{% for c in encoders %}
            self.get_module("{{ c.name }}"),
{% endfor %}
        ]
        tokenizers = [
{% for c in encoders %}
            self.get_module("{{ c.tokenizer }}"),
{% endfor %}
        ]
        self.add_stage("prompt_encoding_stage", {{ p.prefix ~ "TextStage" if p.is_sd3 else "TextEncodingStage" }}(text_encoders=encoders, tokenizers=tokenizers))
{% endif %}
{% if p.joins_image and p.image_encoders %}
        image_encoder = self.get_module("{{ p.image_encoders[0].name }}")
        image_processor = self.get_module("{{ p.image_processors[0].name if p.image_processors else "image_processor" }}")
        image_stage = {{ p.prefix }}ImageEncodingStage(image_encoder=image_encoder, image_processor=image_processor)
        self.add_stage("image_encoding_stage", image_stage)
{% endif %}
{% if p.workload not in ("t2v", "t2i") and not p.own_stages %}
        # FVPORT-DECIDE: the official pipeline's stages for {{ p.workload }} (its image, video or audio conditioning) go here, in its order.
{% endif %}
        self.add_stage("conditioning_stage", ConditioningStage())
{% if p.scheduler and p.scheduler.config.get("use_dynamic_shifting") %}
        # FVPORT-DECIDE: the checkpoint's scheduler shifts by resolution (use_dynamic_shifting); the shared stage hands it no mu.
{% endif %}
{% if p.renoises %}
        self.add_stage("timestep_preparation_stage", {{ p.prefix }}StrengthStage(scheduler=scheduler))
        vae = self.get_module("{{ p.vae.name if p.vae else "vae" }}")
        self.add_stage("media_latent_stage", {{ p.prefix }}MediaLatentStage(vae=vae))
{% else %}
        self.add_stage("timestep_preparation_stage", TimestepPreparationStage(scheduler=scheduler))
{% endif %}
{% if p.is_stable_audio %}
        self.add_stage("latent_preparation_stage", {{ p.prefix }}SoundLatentStage(scheduler=scheduler))
{% else %}
        latent_stage = {{ p.prefix }}LatentPreparationStage(scheduler, transformer)
        self.add_stage("latent_preparation_stage", latent_stage)
{% endif %}
{% if p.renoises %}
        self.add_stage("noised_start_stage", {{ p.prefix }}NoisedStartStage(scheduler=scheduler))
{% endif %}
{% if p.joins_image %}
        self.add_stage("image_latent_stage", {{ p.prefix }}ImageLatentStage(vae=self.get_module("{{ p.vae.name if p.vae else "vae" }}")))
{% endif %}
{% if experts %}
        experts = (transformer, self.get_module("transformer_2", None))
{% else %}
        experts = (transformer, )
{% endif %}
        self.add_stage("denoising_stage", {{ p.prefix }}DenoisingStage(experts, scheduler))
{% if p.is_stable_audio %}
        self.add_stage("decoding_stage", {{ p.prefix }}SoundDecodingStage(vae=vae))
{% elif p.is_sd3 %}
        decoding_stage = {{ p.prefix }}ImageDecodingStage(vae=self.get_module("{{ p.vae.name if p.vae else "vae" }}"), pipeline=self)
        self.add_stage("decoding_stage", decoding_stage)
{% else %}
        self.add_stage("decoding_stage", DecodingStage(vae=self.get_module("{{ p.vae.name if p.vae else "vae" }}"), pipeline=self))
{% endif %}


EntryClass = {{ p.pipeline_class }}
