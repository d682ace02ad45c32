# SPDX-License-Identifier: Apache-2.0
"""Examples on the rules' pages. Those of FV1xx are run by a test: the first raises the finding, the second does not."""

from __future__ import annotations

from typing import Any

SQUARE = (4, 4)
PAIR = {"a.q.w": SQUARE, "a.k.w": SQUARE}
QK = {r"^a\.q\.w$": ("a.qk.w", 0, 2), r"^a\.k\.w$": ("a.qk.w", 1, 2)}


def case(mapping: dict[str, Any], names: Any, native: Any = None, **more: Any) -> dict[str, Any]:
    """A rule list with the official names it meets (a list means 4 x 4 tensors) and the native ones."""
    return {"mapping": mapping, "shapes": _shapes(names), "native": None if native is None else _shapes(native), **more}


def _shapes(names: Any) -> dict[str, tuple[int, ...]]:
    return dict(names) if isinstance(names, dict) else dict.fromkeys(names, SQUARE)


GOOD = case({r"^a\.(.*)$": r"b.\1"}, ["a.w"], ["b.w"])
STACK = {"a.q.w": (4, 4), "a.k.w": (4, 4)}
SPLIT = {"a.qk.w": (8, 4)}

# number -> (what fails, what passes)
MAPPING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FV101": (case({r"^a\.(.*$": r"b.\1"}, ["a.w"], ["b.w"]), GOOD),
    "FV102": (case({**GOOD["mapping"], r"^blck\.(.*)$": r"b.\1"}, ["a.w"], ["b.w"]), GOOD),
    "FV103": (
        case({r"^a\.(.*)$": r"b.\1", r"^a\.out\.(.*)$": r"b.proj.\1"}, ["a.out.w"], ["b.out.w"]),
        case(
            {r"^a\.out\.(.*)$": r"b.proj.\1", r"^a\.(in\..*)$": r"b.\1"}, ["a.out.w", "a.in.w"], ["b.proj.w", "b.in.w"]
        ),
    ),
    "FV104": (case({}, ["table"], ["table"]), case({}, ["table"], ["table"], passthrough=["^table$"])),
    "FV105": (
        case({r"^a\.norm1\.w$": "b.norm.w", r"^a\.norm2\.w$": "b.norm.w"}, ["a.norm1.w", "a.norm2.w"], ["b.norm.w"]),
        case({r"^a\.(norm\d)\.w$": r"b.\1.w"}, ["a.norm1.w", "a.norm2.w"], ["b.norm1.w", "b.norm2.w"]),
    ),
    "FV106": (
        case({r"^a\.q\.w$": ("a.qk.w", 0, 2)}, ["a.q.w"], {"a.qk.w": (8, 4)}),
        case(QK, PAIR, {"a.qk.w": (8, 4)}),
    ),
    "FV107": (
        case({**QK, r"^a\.k\.w$": ("a.qk.w", 0, 2)}, PAIR, {"a.qk.w": (8, 4)}),
        case(QK, PAIR, {"a.qk.w": (8, 4)}),
    ),
    "FV108": (
        case({r"^blocks\.(\d)": r"layers.\1"}, ["blocks.1.w", "blocks.10.w"], ["layers.1.w", "layers.10.w"]),
        case({r"^blocks\.(\d+)\.(.*)$": r"layers.\1.\2"}, ["blocks.1.w", "blocks.10.w"], ["layers.1.w", "layers.10.w"]),
    ),
    "FV109": (
        case({r"^table$": "table"}, ["table"], ["table"]),
        case({}, ["table"], ["table"], passthrough=["^table$"]),
    ),
    "FV110": (case({r"^a\.(.*)$": r"bb.\1"}, ["a.w"], ["b.w"]), GOOD),
    "FV111": (case(GOOD["mapping"], ["a.w"], ["b.w", "b.bias"]), GOOD),
    "FV112": (
        case({r"^a\.out\.(.*)$": r"b.proj.\1", r"^a\.(.*)$": r"b.\1"}, ["a.out.w", "a.in.w"], ["b.proj.w", "b.in.w"]),
        case(
            {r"^a\.out\.(.*)$": r"b.proj.\1", r"^a\.(in\..*)$": r"b.\1"}, ["a.out.w", "a.in.w"], ["b.proj.w", "b.in.w"]
        ),
    ),
    "FV113": (
        case(QK, PAIR, {"a.qk.w": (8, 4)}),
        case({r"^a\.(.*)$": r"b.\1"}, {"a.w": (4, 8)}, {"b.w": (4, 8)}),
    ),
    "FV114": (
        case(
            {r"^a\.to_q\.w$": "a.k_proj.w", r"^a\.to_k\.w$": "a.q_proj.w"},
            ["a.to_q.w", "a.to_k.w"],
            ["a.q_proj.w", "a.k_proj.w"],
        ),
        case({r"^a\.to_(q|k)\.w$": r"a.\1_proj.w"}, ["a.to_q.w", "a.to_k.w"], ["a.q_proj.w", "a.k_proj.w"]),
    ),
    "FV115": (
        case(
            {r"^layers\.0\.w$": "blocks.1.w", r"^layers\.1\.w$": "blocks.0.w"},
            ["layers.0.w", "layers.1.w"],
            ["blocks.0.w", "blocks.1.w"],
        ),
        case({r"^layers\.(\d+)\.w$": r"blocks.\1.w"}, ["layers.0.w", "layers.1.w"], ["blocks.0.w", "blocks.1.w"]),
    ),
    "FV116": (case(GOOD["mapping"], ["a.w"], ["b.w"], passthrough=["^never$"]), GOOD),
    "FV117": (case({r"^(a+)+\.w$": r"b.w"}, ["aaa.w"], ["b.w"]), GOOD),
    "FV118": (
        case({r"^a.w$": "b.w"}, ["a.w", "a_w"], ["b.w"]),
        case({r"^a\.w$": "b.w"}, ["a.w"], ["b.w"]),
    ),
    "FV119": (
        case(QK, PAIR, {"a.qk.w": (6, 4)}),
        case(QK, PAIR, {"a.qk.w": (8, 4)}),
    ),
}

# Findings that a rule list in FastVideo's form cannot raise: they need the operations of a declared conversion.
DECLARED: dict[str, tuple[str, str]] = {
    "FV120": (
        "parts 0 and 1 of `qkv.weight` go to q and k, and part 2 goes nowhere",
        "parts 0, 1 and 2 go to q, k and v, each once",
    ),
}

# Rules of smoke ask FastVideo itself in a child process; a test puts each of these answers before the rule.
SMOKE: dict[str, tuple[str, str]] = {
    "FV601": (
        "`converted_weights/SLUG` is a link to the official folder",
        "`converted_weights/SLUG` is a folder of its own; only the weight files in it are links",
    ),
    "FV602": (
        "`transformer/config.json` in the load tree says `_class_name: ToyTransformer`, the official class",
        "it says `_class_name: ToyNative`, the class that port.toml names",
    ),
    "FV603": (
        "the port's class is called `WanTransformer3DModel`, a name that another file of FastVideo registers",
        "the port's class has a name that no other file registers",
    ),
    "FV604": (
        "the port's `register_configs` call stands after a detector that also takes its model",
        "the port's call stands first, and its detector takes this model only",
    ),
    "FV605": (
        "`ModelRegistry` resolves the transformer to `a:B`",
        "it resolves to the class and the file that port.toml names",
    ),
    "FV606": (
        "the load tree resolves to preset family `wan`, or to another port's pipeline or config",
        "hub id, official folder and load tree all resolve to the port's own",
    ),
    "FV607": ("no preset is registered under the port's family", "each preset of the port is, with its workload"),
    "FV608": (
        "the production loader raises while it builds the component, or builds another class",
        "it gets as far as the constructor of the port's class",
    ),
    "FV609": (
        "the component is built with pipeline config `x:Y`",
        "it is built with the pipeline config and the config class that port.toml names",
    ),
}

# Rules of boundary and docs whose red example is no one-line edit in the test's table.
BY_HAND: dict[str, tuple[str, str]] = {
    "FV301": (
        "fastvideo/models/dits/toy.py: from diffusers import AutoencoderKL",
        "fastvideo/models/dits/toy.py: from transformers import AutoTokenizer, T5Config",
    ),
    "FV304": ("docs/inference/toy.md: a Hugging Face token, in any form", 'docs/inference/toy.md: "set HF_TOKEN"'),
    "FV305": ("tests/local_tests/toy/w.safetensors, or any file over 1 MiB", "weights lie outside the commit"),
    "FV307": ("docs/inference/toy.md: a path below somebody's home folder", "a path relative to the port"),
    "FV308": (
        'config = "fastvideo.configs.models.encoders.toy:ToyConfig" for a DiT',
        'config = "fastvideo.configs.models.dits.toy:ToyConfig"',
    ),
    "FV314": (
        "the wrapper's file: from transformers import AutoModel (at the top)",
        "the wrapper's file: def load(): from transformers import AutoModel",
    ),
    "FV316": ("git rm fastvideo/pipelines/old.py", "every file of FastVideo is still there"),
    "FV317": (
        "def test_toy_transformer_parity(parity): ... lambda native, case: case['sample'] * 2",
        "def test_toy_transformer_parity(parity): ... lambda native, case: native(**case)",
    ),
    "FV319": (
        "fastvideo/layers/mlp.py is changed, and port.toml does not say why",
        '[fastvideo] edits = { "fastvideo/layers/mlp.py" = "a hook the model needs" }',
    ),
    "FV401": ("docs/inference/toy.md is not there", "docs/inference/toy.md as fvport new rendered it"),
}
