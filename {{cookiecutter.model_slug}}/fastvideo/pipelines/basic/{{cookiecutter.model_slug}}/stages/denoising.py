# SPDX-License-Identifier: Apache-2.0
"""{{ "Denoising as the official pipeline does it." if p.is_stable_audio else "Noise and denoising as the official pipeline makes them." }}

FastVideo's shared stage computes in bf16 under autocast whatever the configuration says. This one computes in `dit_precision`,
without autocast, and keeps the latents between steps as the scheduler returns them.
"""

import inspect
from typing import Any

import torch
from tqdm.auto import tqdm

from fastvideo.distributed import get_local_torch_device, get_world_group
from fastvideo.fastvideo_args import FastVideoArgs
from fastvideo.forward_context import set_forward_context
from fastvideo.pipelines.pipeline_batch_info import ForwardBatch
from fastvideo.pipelines.stages.base import PipelineStage
{% if not p.is_stable_audio %}
from fastvideo.pipelines.stages.latent_preparation import LatentPreparationStage
{% endif %}
from fastvideo.pipelines.stages.validators import StageValidators as V
from fastvideo.pipelines.stages.validators import VerificationResult
from fastvideo.utils import PRECISION_TO_TYPE

{% if not p.is_stable_audio %}

class {{ p.prefix }}LatentPreparationStage(LatentPreparationStage):
    """Noise in float32: FastVideo's stage draws it in the dtype of the prompt's embeddings, bf16 where an encoder is."""

    def forward(self, batch: ForwardBatch, fastvideo_args: FastVideoArgs) -> ForwardBatch:
        embeds = batch.prompt_embeds
        batch.prompt_embeds = [embed.float() for embed in embeds]
        batch = super().forward(batch, fastvideo_args)
        batch.prompt_embeds = embeds or batch.prompt_embeds  # the shared stage puts one where there is none
        return batch

{% endif %}

class {{ p.prefix }}DenoisingStage(PipelineStage):
    """Noise to latents: one conditional and, under guidance, one unconditional evaluation a step."""
    performance_component_metric = "dit_time_s"

    def __init__(self, experts: tuple[Any, ...], scheduler: Any) -> None:
        """`experts` is the transformer, or the one for high noise and the one for low noise."""
        super().__init__()
        self.experts = tuple(expert for expert in experts if expert is not None)
        self.scheduler = scheduler
        self.accepted = frozenset(inspect.signature(self.experts[0].forward).parameters)
        self.step_accepted = frozenset(inspect.signature(scheduler.step).parameters)

    @torch.no_grad()
    def forward(self, batch: ForwardBatch, fastvideo_args: FastVideoArgs) -> ForwardBatch:
        dtype = PRECISION_TO_TYPE[fastvideo_args.pipeline_config.dit_precision]
        latents, timesteps = batch.latents, batch.timesteps
        if latents is None or timesteps is None:
            raise ValueError("latents and timesteps must be prepared before denoising")
        positive = self._conditions(batch.prompt_embeds, batch.prompt_attention_mask, {{ "batch.image_embeds, " if p.joins_image }}{{ "batch.clip_embedding_pos, " if p.is_sd3 or p.is_stable_audio }}dtype)
        negative = None
        if batch.do_classifier_free_guidance:
{% if p.joins_image %}
            negative = self._conditions(batch.negative_prompt_embeds, batch.negative_attention_mask, batch.image_embeds,
                                        dtype)
{% elif p.is_sd3 or p.is_stable_audio %}
            negative = self._conditions(batch.negative_prompt_embeds, batch.negative_attention_mask,
                                        batch.clip_embedding_neg, dtype)
{% else %}
            negative = self._conditions(batch.negative_prompt_embeds, batch.negative_attention_mask, dtype)
{% endif %}
        step_kwargs: dict[str, Any] = {"generator": batch.generator} if "generator" in self.step_accepted else {}
        if isinstance(step_kwargs.get("generator"), list) and len(step_kwargs["generator"]) == 1:
            step_kwargs["generator"] = step_kwargs["generator"][0]

        trajectory: list[torch.Tensor] = []
        for index, t in enumerate(tqdm(timesteps, disable=get_world_group().local_rank != 0)):
            model, scale = self._expert(t, batch, fastvideo_args)
{% if p.joins_image %}
            noisy = self.scheduler.scale_model_input(latents, t)
            model_input = torch.cat([noisy, batch.image_latent.to(noisy)], dim=1).to(dtype)
{% else %}
            model_input = self.scheduler.scale_model_input(latents, t).to(dtype)
{% endif %}
            timestep = t.expand(latents.shape[0]).to(latents.device)
            batch.is_cfg_negative = False
            prediction = self._predict(model, model_input, timestep, positive, index, batch)
            if negative is not None:
                batch.is_cfg_negative = True
                unconditional = self._predict(model, model_input, timestep, negative, index, batch)
                prediction = unconditional + scale * (prediction - unconditional)
            latents = self.scheduler.step(prediction, t, latents, **step_kwargs, return_dict=False)[0]
            if batch.return_trajectory_latents:
                trajectory.append(latents)

        if trajectory:
            batch.trajectory_latents = torch.stack(trajectory, dim=1).cpu()
            batch.trajectory_timesteps = timesteps.cpu()
        batch.latents = latents
        self._release(fastvideo_args)
        return batch

    def _conditions(self, embeds, mask, {{ "images, " if p.joins_image }}{{ "pooled, " if p.is_sd3 else "front, " if p.is_stable_audio }}dtype: torch.dtype) -> dict[str, Any]:
        """What the transformer is told beside latents and timestep: one tensor for one encoder, a list for several."""
        cast = [embed.to(device=get_local_torch_device(), dtype=dtype) for embed in embeds or []]
        conditions: dict[str, Any] = {"encoder_hidden_states": cast[0] if len(cast) == 1 else cast}
        if "encoder_attention_mask" in self.accepted and mask:
            conditions["encoder_attention_mask"] = mask[0] if len(mask) == 1 else mask
{% if p.joins_image %}
        if images and "encoder_hidden_states_image" in self.accepted:
            conditions["encoder_hidden_states_image"] = images[0].to(device=get_local_torch_device(), dtype=dtype)
{% endif %}
{% if p.is_sd3 %}
        conditions["pooled_projections"] = pooled[0].to(device=get_local_torch_device(), dtype=dtype)
{% elif p.is_stable_audio %}
        conditions["global_hidden_states"] = front[0].to(device=get_local_torch_device(), dtype=dtype)
{% endif %}
        return conditions

    def _predict(self, model, latents, timestep, conditions, index: int, batch: ForwardBatch) -> torch.Tensor:
        with set_forward_context(current_timestep=index, attn_metadata=None, forward_batch=batch):
            return model(hidden_states=latents, timestep=timestep, **conditions)

    def _expert(self, t: torch.Tensor, batch: ForwardBatch, fastvideo_args: FastVideoArgs) -> tuple[Any, float]:
        """The transformer and the guidance scale of this timestep, on the device where it computes."""
        model, scale = self.experts[0], batch.guidance_scale
        boundary = fastvideo_args.pipeline_config.dit_config.boundary_ratio
        if boundary is not None and len(self.experts) > 1 and t < boundary * self.scheduler.config.num_train_timesteps:
            model, scale = self.experts[1], batch.guidance_scale_2
        device = get_local_torch_device()
        parked = fastvideo_args.dit_cpu_offload and not (fastvideo_args.dit_layerwise_offload
                                                         or fastvideo_args.use_fsdp_inference)
        if parked and next(model.parameters()).device.type != device.type:
            model.to(device)
        return model, scale

    def _release(self, fastvideo_args: FastVideoArgs) -> None:
        if not fastvideo_args.dit_layerwise_offload:
            return
        for model in self.experts:
            manager = getattr(model, "_layerwise_offload_manager", None)
            if manager is not None and getattr(manager, "enabled", False):
                manager.release_all()

    def verify_input(self, batch: ForwardBatch, fastvideo_args: FastVideoArgs) -> VerificationResult:
        result = VerificationResult()
        result.add_check("timesteps", batch.timesteps, [V.is_tensor, V.min_dims(1)])
        result.add_check("latents", batch.latents, V.is_tensor)
{% if p.joins_image %}
        result.add_check("image_latent", batch.image_latent, [V.is_tensor, V.with_dims(5)])
{% endif %}
        result.add_check("prompt_embeds", batch.prompt_embeds, V.list_not_empty)
        result.add_check("guidance_scale", batch.guidance_scale, V.positive_float)
        result.add_check("negative_prompt_embeds", batch.negative_prompt_embeds,
                         lambda x: not batch.do_classifier_free_guidance or V.list_not_empty(x))
        return result

    def verify_output(self, batch: ForwardBatch, fastvideo_args: FastVideoArgs) -> VerificationResult:
        result = VerificationResult()
        result.add_check("latents", batch.latents, V.is_tensor)
        return result
