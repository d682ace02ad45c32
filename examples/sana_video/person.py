# SPDX-License-Identifier: Apache-2.0
"""What a person writes in the baked port of Sana Video's transformer: six forwards, its text attention, its inputs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.skeleton_fills import FILLS, filled

CLASS = "SanaVideoTransformer3DModel"
SLUG = "sana_video"
NATIVE = f"fastvideo/models/dits/{SLUG}.py"
ORACLE = f"tests/local_tests/{SLUG}/oracle.py"

# Attention over the sequence is linear, the one to the text is masked: FastVideo's layer takes the mask as metadata.
SOFTMAX = """
    else:
        mask = None if attention_mask is None else attention_mask.unsqueeze(1)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return"""
LOCAL = """
    else:
        shown = None if attention_mask is None else SDPAMetadata(current_timestep=0, attn_mask=attention_mask)
        with set_forward_context(current_timestep=0, attn_metadata=shown):
            attended = self.attn(query, key, value).transpose(1, 2)
    return"""
LAYER = """
        # no DistributedAttention: the attention over the sequence is linear
        self.attn = LocalAttention(num_heads=3,
                                   head_size=8,
                                   causal=False,
                                   supported_attention_backends=(AttentionBackendEnum.TORCH_SDPA, ))
"""
IMPORTS = {
    "from fastvideo.configs": """\
from fastvideo.attention import LocalAttention
from fastvideo.attention.backends.sdpa import SDPAMetadata
""",
    "from fastvideo.layers.layernorm": "from fastvideo.forward_context import set_forward_context\n",
}
LAST = "from fastvideo.models.dits.base import BaseDiT\n"
INPUTS = '''
def inputs_transformer(config: dict[str, Any], seed: int) -> dict[str, dict[str, Any]]:
    """Batch of two, not square, ragged text, steps off the grid; then a step a frame and a control net's residual."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    keep = torch.ones(2, 7)
    keep[0, 3:] = 0
    channels, width = config["in_channels"], config["num_attention_heads"] * config["attention_head_dim"]
    text = {"encoder_hidden_states": noise(2, 7, config["caption_channels"]), "encoder_attention_mask": keep}
    return {
        "wide": {"hidden_states": noise(2, channels, 3, 4, 10), "timestep": torch.tensor([998.39, 1.0]), **text},
        "tall": {"hidden_states": noise(2, channels, 2, 8, 4), "timestep": torch.tensor([17.3, 501.7]), **text},
        "one_frame_no_mask": {
            "hidden_states": noise(1, channels, 1, 6, 4),
            "timestep": torch.tensor([250.6]),
            "encoder_hidden_states": noise(1, 9, config["caption_channels"]),
        },
        "controlled": {
            "hidden_states": noise(2, channels, 2, 6, 2),
            "timestep": torch.rand(2, 6, generator=generator) * 999,
            **text,
            "controlnet_block_samples": (noise(2, 6, width), ),
        },
    }
'''


def write(port: Path) -> None:
    """Fill every decision of the transformer in the baked port at `port`."""
    native = port / NATIVE
    native.write_text(transformer(native.read_text(encoding="utf-8")), encoding="utf-8")
    oracle = port / ORACLE
    oracle.write_text(inputs(oracle.read_text(encoding="utf-8")), encoding="utf-8")


def transformer(source: str) -> str:
    """The native source with the six forwards, and the text attention on FastVideo's layer."""
    fill = dict(FILLS[CLASS])
    fill["Attention"] = once(fill["Attention"], SOFTMAX, LOCAL)
    start = source.index("class Attention2(")
    end = source.index("\n\n\nclass ", start)
    source = source[:end] + LAYER.rstrip() + source[end:]
    for before, lines in IMPORTS.items():
        at = source.index(before)
        source = source[:at] + lines + source[at:]
    source = once(source, LAST, f"{LAST}from fastvideo.platforms import AttentionBackendEnum\n")
    return filled(source, fill)


def inputs(source: str) -> str:
    """The oracle with the cases of the comparison in place of its decision."""
    start = source.index("# FVPORT-DECIDE: inputs of transformer")
    end = source.index("\n\n\n", start)
    return source[:start] + INPUTS.strip() + source[end:]


def once(text: str, old: str, new: str) -> str:
    """`text` with the one place that holds `old` changed. ValueError where there is none, or more."""
    if text.count(old) != 1:
        raise ValueError(f"{text.count(old)} places hold: {old.strip()[:60]}")
    return text.replace(old, new)
