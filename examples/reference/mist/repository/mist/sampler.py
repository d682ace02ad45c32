# SPDX-License-Identifier: Apache-2.0
"""Prompt to video: text, noise, a few steps along the flow, the autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import AutoTokenizer

from mist.denoiser import MistDenoiser
from mist.text import MistTextEncoder


class MistSampler:
    """The parts of one release, and how they make a video."""

    def __init__(self, tokenizer: Any, text_encoder: Any, transformer: Any, vae: Any, scheduler: Any) -> None:
        self.tokenizer, self.text_encoder, self.transformer = tokenizer, text_encoder, transformer
        self.vae, self.scheduler = vae, scheduler

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> MistSampler:
        folder = Path(folder)
        return cls(
            AutoTokenizer.from_pretrained(folder / "tokenizer"),
            MistTextEncoder.load(folder / "text_encoder", dtype),
            MistDenoiser.load(folder / "transformer", dtype),
            AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=dtype).to(dtype).eval(),
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        )

    @property
    def modules(self) -> list[torch.nn.Module]:
        return [self.text_encoder, self.transformer, self.vae]

    def read(self, prompt: str) -> Tensor:
        """(1, longest, width): the prompt's hidden states, zeros after its last token."""
        longest = self.text_encoder.config["longest"]
        found = self.tokenizer(prompt, padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
        device = next(self.text_encoder.parameters()).device
        tokens, mask = found.input_ids.to(device), found.attention_mask.to(device)
        states = self.text_encoder(tokens=tokens, mask=mask)
        return states * mask[:, :, None].to(states)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        negative_prompt: str = "",
        height: int = 64,
        width: int = 96,
        num_frames: int = 9,
        num_inference_steps: int = 8,
        guidance_scale: float = 4.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"frames": (1, frames, height, width, 3) from 0 to 1}."""
        text = self.read(prompt)
        other = self.read(negative_prompt) if guidance_scale > 1.0 else None
        shape = (1, self.transformer.channels, (num_frames - 1) // 4 + 1, height // 8, width // 8)
        latents = torch.randn(shape, generator=generator, dtype=torch.float32).to(text.device)
        self.scheduler.set_timesteps(num_inference_steps, device=text.device)
        for t in self.scheduler.timesteps:
            velocity = self.transformer(latents=latents.to(text.dtype), time=t.expand(1), text=text)
            if other is not None:
                without = self.transformer(latents=latents.to(text.dtype), time=t.expand(1), text=other)
                velocity = without + guidance_scale * (velocity - without)
            latents = self.scheduler.step(velocity, t, latents, return_dict=False)[0]
        return {"frames": self.show(latents.to(text.dtype))}

    def show(self, latents: Tensor) -> Tensor:
        """Latents to frames; the autoencoder's own mean and deviation are put back first."""
        config = self.vae.config
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (config.latents_mean, config.latents_std)
        )
        frames = self.vae.decode(latents * std + mean, return_dict=False)[0]
        return (frames / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
