# SPDX-License-Identifier: Apache-2.0
"""What `fvport inspect` foresees of each component is what `fvport new` then makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from weights_support import release

from fvport import quick
from fvport.scaffold import native_side


@pytest.mark.parametrize(
    ("official", "kind", "config", "mode", "why"),
    [
        ("diffusers:FluxTransformer2DModel", "dit", {}, "reuse", "registers FluxTransformer2DModel"),
        ("diffusers:WanTransformer3DModel", "dit", {}, "port", "FastVideo's WanTransformer3DModel differs: "),
        ("diffusers:UniPCMultistepScheduler", "scheduler", {"use_flow_sigmas": True}, "port", "differs: "),
        ("diffusers:NobodysTransformer2DModel", "dit", {}, "port", "no archetype covers it yet"),
        ("transformers:AutoTokenizer", "tokenizer", {}, "passthrough", "files that the pipeline reads"),
    ],
)
def test_each_native_side(official: str, kind: str, config: dict, mode: str, why: str) -> None:
    """FastVideo's class where it is the official one, a port where it is known to differ, else what covers it."""
    side = native_side.of(official, official.partition(":")[2], kind, config)
    assert (side.mode, why in side.why) == (mode, True), side


BFLOAT16 = "its timestep embedding computes in bfloat16 where the official keeps float32"
NO_PADDING = "its tokenizer settings pad nothing, so that a batch of prompts is refused"
MEASURED = [  # each as `components=NAME=reuse` on a tiny release: parity green, or red with these words
    ("diffusers:WanTransformer3DModel", "dit", {}, BFLOAT16),
    ("diffusers:WanTransformer3DModel", "dit", {"image_dim": 20}, "one timestep a token is refused for a batch of two"),
    ("diffusers:WanTransformer3DModel", "dit", {"added_kv_proj_dim": 48}, "FV-D06"),
    ("diffusers:CosmosTransformer3DModel", "dit", {}, "FV-D01"),
    ("diffusers:CosmosTransformer3DModel", "dit", {"use_crossattn_projection": True}, "no projection of the text"),
    ("diffusers:HunyuanVideoTransformer3DModel", "dit", {}, "FV-D02"),
    ("diffusers:SD3Transformer2DModel", "dit", {"qk_norm": "rms_norm"}, "latents of four dimensions"),
    ("diffusers:FluxTransformer2DModel", "dit", {"guidance_embeds": True}, ""),
    ("diffusers:ZImageTransformer2DModel", "dit", {}, ""),
    ("diffusers:ZImageTransformer2DModel", "dit", {"norm_eps": 1e-05}, ""),
    ("diffusers:ZImageTransformer2DModel", "dit", {"norm_eps": 1e-03}, "FV-D14"),
    ("diffusers:AutoencoderKL", "vae", {"use_quant_conv": False}, ""),
    ("diffusers:AutoencoderKLWan", "vae", {}, ""),
    ("diffusers:AutoencoderKLWan", "vae", {"is_residual": True, "patch_size": 2}, ""),
    ("diffusers:FlowMatchEulerDiscreteScheduler", "scheduler", {"use_dynamic_shifting": True}, ""),
    ("transformers:CLIPTextModel", "text_encoder", {}, NO_PADDING),
    ("transformers:CLIPTextModelWithProjection", "text_encoder", {}, NO_PADDING),
    ("transformers:CLIPVisionModel", "image_encoder", {"num_hidden_layers": 32}, "it builds 31 layers"),
    ("transformers:SiglipVisionModel", "image_encoder", {}, "FV-E11"),
    ("transformers:SiglipVisionModel", "image_encoder", {"vision_use_head": False}, ""),
]


@pytest.mark.parametrize(("official", "kind", "config", "words"), MEASURED)
def test_what_is_known_to_differ_is_ported(official: str, kind: str, config: dict, words: str) -> None:
    """A class whose parity was measured red as reuse is a native port by default; the reason is the measured one."""
    side = native_side.of(official, official.partition(":")[2], kind, config)
    if words:
        assert (side.mode, words in side.text()) == ("port", True), side
        assert "a skeleton" not in side.text()
    else:
        assert (side.mode, side.differs) == ("reuse", "")


def test_a_skeleton_is_called_one() -> None:
    """A component that a person must write is not called like one that an archetype writes."""
    skeleton = native_side.of("diffusers:Nobodys", "Nobodys", "dit", {})
    written = native_side.of("diffusers:UniPCMultistepScheduler", "UniPCMultistepScheduler", "scheduler", {})
    assert "a skeleton" in skeleton.text()
    assert "a skeleton" not in written.text()


def test_inspect_says_it(tmp_path: Path) -> None:
    """The text names each component's native side before the next step; the JSON is inspection.json's."""
    folder = release(tmp_path)
    text = quick.inspect(str(folder), "main", False)
    assert "  scheduler: port (a skeleton, which a person writes): no archetype covers it yet\n" in text
    assert "  transformer: port: FastVideo's WanTransformer3DModel differs: " in text
    assert text.index("new would make") < text.index("Next: ")
    assert set(json.loads(quick.inspect(str(folder), "main", True))) >= {"schema", "components"}
