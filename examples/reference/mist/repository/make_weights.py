# SPDX-License-Identifier: Apache-2.0
"""Make a tiny release of Mist: `python make_weights.py OUT [--seed 0]`. Random weights, the same for the same seed."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any

import diffusers
import numpy
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from mist import MistDenoiser, MistTextEncoder
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = "a an the of in on at with over under through runs fox cat tree river city night day rain snow red blue slow"
VAE = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
QUIET = 0.03  # what a norm reads is quiet, or its eps would have no say in anything
READ_BY_A_NORM = ("embed.", ".wq.", ".wk.", ".wo.", ".down.", "word.", "place.", ".out.", ".fc2.")


def make(out: Path, seed: int = 0) -> Path:
    """Write the release: a folder a part, and an index of what made each."""
    fill(MistTextEncoder(), "text_encoder", seed).save(out / "text_encoder")
    fill(MistDenoiser(), "transformer", seed).save(out / "transformer")
    fill(AutoencoderKLWan(**VAE), "vae", seed).save_pretrained(out / "vae")
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(out / "scheduler")
    tokenizer().save_pretrained(out / "tokenizer")
    index = {
        "_class_name": "MistSampler",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["mist", "MistTextEncoder"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["mist", "MistDenoiser"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)
    return out


def fill(model: Any, part: str, seed: int) -> Any:
    """Random values for every parameter, norms near one; a parameter's values depend on its own name and the seed."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random = numpy.random.default_rng([seed, zlib.crc32(f"{part}.{name}".encode())])
            values = torch.from_numpy(random.standard_normal(tuple(parameter.shape)))
            mean, spread = scale(name, tuple(parameter.shape))
            parameter.copy_(mean + spread * values)
    return model


def scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    quiet = QUIET if any(word in name for word in READ_BY_A_NORM) else 1.0
    if name.endswith("bias"):
        return 0.0, 0.2 * quiet
    if name.endswith("gamma") or (name.endswith("weight") and len(shape) == 1):
        return 1.0, 0.2
    if "word." in name or "place." in name:
        return 0.0, quiet
    loud = 2.5 if ".ask." in name or name.startswith("text.") else 1.2
    return 0.0, quiet * loud / math.sqrt(math.prod(shape[1:]))


def tokenizer() -> Any:
    """Whole words and single bytes; 0 pads on the right, 1 ends every prompt."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    pieces += [("\u2581" + word, -4.0 - 0.01 * rank) for rank, word in enumerate(WORDS.split())]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="\u2581")])
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
        truncation_side="right",
        model_max_length=64,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a tiny release of Mist.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
