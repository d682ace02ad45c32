# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Wan text-to-video checkpoint (Diffusers layout, under 1 MB) with the real classes.

    python examples/tiny_wan/make_official.py build/official/tiny_wan [--seed 0]

Every parameter is random, also those that the libraries initialise to zeros or ones: with default initialisation a
forgotten norm weight, bias or table changes nothing and a wrong port looks right. The same seed and library versions
make the same bytes; a folder that is already valid is left alone.

The scheduler is FlowMatchEulerDiscreteScheduler (shift 3.0) where real Wan ships UniPCMultistepScheduler
(flow_prediction, use_flow_sigmas, flow_shift). Measured with diffusers 0.42.1: FastVideo 0.2.1's class of that name
refuses three keys of the official JSON (sigma_min, sigma_max, shift_terminal: TypeError); without them its timesteps
differ by up to 3, its sigmas by up to 2.8e-3 and a step by up to 1.5e-2. FastVideo's FlowMatchEuler equals diffusers'
exactly (timesteps, sigmas, every step, at 2, 7 and 50 steps).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORD = ".made.json"  # what was made, from what: decides whether a folder is still valid
TEXT_DIM = 32
VOCAB = 512

TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_DIM,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
TEXT_ENCODER = {
    "vocab_size": VOCAB,
    "d_model": TEXT_DIM,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 40,
    "feed_forward_proj": "gated-gelu",
}
VAE = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
SCHEDULER = {"shift": 3.0}
# Parts whose output a norm reads, at once or through the residual stream.
READ_BY_A_NORM = (
    "patch_embedding.",
    ".to_q.",
    ".to_k.",
    ".to_out.",
    ".net.2.",
    "shared.",
    "embed_tokens.",
    ".o.",
    ".wo.",
)
QUIET = 0.03
WORDS = """a an the of in on at with and over under through runs run fox cat dog bird tree river city street night
day light rain snow sea sky red blue green gold old young slow fast camera shot close wide quiet bright dark dance"""


def make(out: Path, seed: int = 0, build: Callable[[int], Any] | None = None, script: str = __file__) -> Path:
    """Write the checkpoint to `out` and return it. Raises FileExistsError where `out` holds something else.

    `build(seed)` makes another pipeline than the text-to-video one; `script` is the file that it is written in.
    """
    out = Path(out)
    if is_valid(out, seed, script):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / RECORD).is_file():
        raise FileExistsError(f"{out} exists and was not made by this script; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(beside, (build or text_to_video)(seed))
        (beside / RECORD).write_text(
            json.dumps(_record(beside, seed, script), indent=1, sort_keys=True) + "\n", "utf-8"
        )
        beside.chmod(0o755)  # mkdtemp makes private folders
        if out.exists():
            shutil.rmtree(out)
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def is_valid(out: Path, seed: int = 0, script: str = __file__) -> bool:
    """True where `out` holds exactly what this script, these library versions and this seed make."""
    try:
        recorded = json.loads((Path(out) / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return recorded == _record(Path(out), seed, script)


def _record(folder: Path, seed: int, script: str) -> dict[str, Any]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != RECORD)
    return {
        "seed": seed,
        "script": hashlib.sha256(Path(script).read_bytes()).hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in ("diffusers", "transformers", "tokenizers")},
        "files": {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def _write(folder: Path, pipeline: Any) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()  # a bar for half a megabyte says nothing
    transformers_logging.disable_progress_bar()
    pipeline.save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # written for the owner only, which a container's user may not be


def text_to_video(seed: int) -> Any:
    """The tiny WanPipeline."""
    from diffusers import WanPipeline, WanTransformer3DModel

    transformer = randomise(WanTransformer3DModel(**TRANSFORMER), "transformer", seed)
    return WanPipeline(transformer=transformer, **common(seed))


def common(seed: int) -> dict[str, Any]:
    """What every tiny Wan pipeline has beside its transformer."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    return {
        "tokenizer": make_tokenizer(),
        "text_encoder": randomise(UMT5EncoderModel(UMT5Config(**TEXT_ENCODER)), "text_encoder", seed),
        "vae": randomise(AutoencoderKLWan(**VAE), "vae", seed),
        "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULER),
    }


def randomise(model: Any, name: str, seed: int = 0) -> Any:
    """Give every parameter of a torch module random values of a sensible scale, in place; returns the module.

    Each parameter has a generator of its own (from seed, component and parameter name), so that adding a layer does
    not change the others; numpy's generator, because its stream is the same on every machine.
    """
    import numpy as np
    import torch

    with torch.no_grad():
        done: set[int] = set()
        for key, parameter in model.named_parameters():
            if id(parameter) in done:  # tied
                continue
            done.add(id(parameter))
            random = np.random.default_rng([seed, zlib.crc32(f"{name}.{key}".encode())])
            values = torch.from_numpy(random.standard_normal(tuple(parameter.shape)))
            mean, std = _scale(key, tuple(parameter.shape))
            parameter.copy_(mean + std * values)
    return model.eval()


def _scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation for a parameter: norms near one, biases and tables not zero, the rest of unit gain.

    What a norm reads is quiet: beside loud values its eps has no say, and a port with another eps would be as good.
    Measured at QUIET = 0.03: an eps of 1e-5 for 1e-6 in any one norm moves the output by 50 to 2,000 times the fp32
    floor; with everything of unit gain it was 1.0 to 1.4 times.
    """
    leaf = key.rsplit(".", 1)[-1]
    quiet = QUIET if any(name in key for name in READ_BY_A_NORM) else 1.0
    if leaf == "bias":
        return 0.0, 0.2 * quiet
    if leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        return 1.0, 0.2
    if "scale_shift_table" in key:
        return 0.0, 0.4
    if "relative_attention_bias" in key:
        return 0.0, 1.0
    if key.startswith(("shared.", "encoder.embed_tokens.")):
        return 0.0, quiet
    # The text branch is louder than the rest, so that another prompt is another video and not another rounding.
    loud = ("attn2." in key or "text_embedder" in key) and ".to_out." not in key
    gain = 2.5 if loud else 0.4 if "attn2.to_out." in key else 1.2
    return 0.0, quiet * gain / math.sqrt(math.prod(shape[1:]))


def make_tokenizer() -> Any:
    """A T5-style Unigram tokenizer: pad 0, end 1 (appended), unknown 2, byte fallback, padding on the right."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    pieces += [("\u2581" + word, -4.0 - 0.01 * rank) for rank, word in enumerate(WORDS.split())]
    pieces += [("\u2581", -6.0)] + [(chr(code), -8.0 - 0.001 * code) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="\u2581")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
        truncation_side="right",
        model_max_length=512,
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: make the folder, say where it lies and how big it is."""
    parser = argparse.ArgumentParser(description="Make the tiny official Wan checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    valid = is_valid(options.out, options.seed)
    try:
        out = make(options.out, options.seed)
    except (OSError, ImportError) as error:
        print(f"make_official: {error}", file=sys.stderr)
        return 2
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {'already there' if valid else 'made'}, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
