# SPDX-License-Identifier: Apache-2.0
"""Closed lists of words and the spelling of names that the template and port.toml share. Standard library only."""

from __future__ import annotations

KINDS = {  # component kind -> FastVideo's bucket folder
    "dit": "dits",
    "vae": "vaes",
    "text_encoder": "encoders",
    "image_encoder": "encoders",
    "audio_encoder": "encoders",
    "conditioner": "encoders",
    "scheduler": "schedulers",
    "upsampler": "upsamplers",
    "vocoder": "audio",
    "tokenizer": "",
    "processor": "",
}
MODULES = {  # kinds that FastVideo has loaders for under these names only, the plain one first
    "upsampler": ("upsampler", "upsampler_2", "spatial_upsampler", "temporal_upsampler"),
    "vocoder": ("vocoder",),
}
COPIED = ("tokenizer", "processor")  # kinds that compute nothing of the model: copied as they are, never compared
OWN = ("dit", "scheduler")  # kinds that must be FastVideo's own: an external wrapper is no port of them
TEST_FOLDERS = {"dits": "transformers", "vaes": "vaes", "encoders": "encoders", "schedulers": "schedulers"}
MODES = ("port", "reuse", "passthrough", "external")
WORKLOADS = ("t2v", "i2v", "t2i", "i2i", "t2a", "v2a", "v2v")
CHECKS = (  # the gate's, cheap before dear
    "mapping",
    "keys",
    "config",
    "conversion",
    "parity",
    "smoke",
    "pipeline",
    "ssim",
    "example",
    "docs",
    "boundary",
)


def camel(slug: str) -> str:
    """tiny_wan -> TinyWan"""
    return "".join(word[:1].upper() + word[1:] for word in slug.split("_"))


def module_name(name: str, kind: str) -> str:
    """FastVideo's name for a component: its own, or the one by which FastVideo finds a loader for its kind."""
    known = MODULES.get(kind, ())
    if not known or name in known:
        return name
    said = (module for module in known if module.partition("_")[0] in ("spatial", "temporal"))
    second = known[1] if name.endswith("_2") and len(known) > 1 else known[0]
    return next((module for module in said if module.partition("_")[0] in name), second)


def wrong_mode(kind: str, mode: str) -> str:
    """Why a component of this kind cannot have this mode, or ''."""
    if mode == "passthrough" and kind not in COPIED:
        return f"a {kind} computes, so it is compared: passthrough is for a tokenizer or a processor"
    if mode == "external" and kind in OWN:
        return f"a {kind} must be FastVideo's own: external is for encoders and the like"
    return ""


FRAMES = ("num_frames", "frames", "video_length")  # what an official pipeline's call may name the number of frames
