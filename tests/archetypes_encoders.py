# SPDX-License-Identifier: Apache-2.0
"""One encoder of an archetype, measured: native against official, what its loader refuses, what faults are seen."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import archetypes_support as support

from benchmarks import encoder_cases
from benchmarks.encoder_cases import EncoderCase

# (case, text of the rendered source, what it becomes): each is a port that looks right and is not
FAULTS = {
    "final norm skipped": ("llama", "states[-1] = self.norm(x)", "states[-1] = x"),
    "mask inverted": ("llama", "attention_mask.bool()[:", "(attention_mask == 0)[:"),
    "positions counted from one row": ("llama", "x * cos + ", "x * cos[:1] + "),
    "window wider by one": ("gemma3", "(back < self.config.window)", "(back <= self.config.window)"),
    "layers' windows exchanged": ("gemma3", "allowed[kind]", 'allowed["full_attention"]'),
    "one rotary embedding for all layers": ("gemma3", "rotary[kind]", 'rotary["full_attention"]'),
    "embeddings not scaled": ("gemma3", "self.config.hidden_size**0.5", "1.0"),
    "scores not capped": ("gemma2", "torch.tanh(query @ key.transpose(2, 3) * self.scale / self.cap) * self.cap", None),
    "query and key norm exchanged": ("qwen3", "self.q_norm(query), self.k_norm(key)", None),
    "yarn without its scale": ("qwen2_causal_yarn_window", "angles.cos() * scale", "angles.cos()"),
    "not causal": ("clip_text", "causal=True", "causal=False"),
    "pooled token": ("clip_text", "end = (input_ids == self.config.eos_token_id)", "end = (input_ids < 0)"),
    "pooled from the last token": ("bert", "self.pooler(states[-1][:, 0])", "self.pooler(states[-1][:, -1])"),
    "kinds of token not read": ("bert", "self.token_type_embeddings(token_type_ids)", "0.0"),
    "padding counted": ("roberta", "input_ids.ne(self.padding).long()", "torch.ones_like(input_ids)"),
    "pooled state not normed": ("clip_vision", "self.post_layernorm(last[:, 0])", "last[:, 0]"),
    "positions stretched otherwise": ("dinov2", 'mode="bicubic"', 'mode="bilinear"'),
    "pooling head without its residual": ("siglip", "pooled + self.mlp(", "self.mlp("),
    "convolution one frame late": ("wav2vec2", "x[..., :-1]", "x[..., 1:]"),
    "padding not silenced": ("wav2vec2", "x = x * frames.unsqueeze(-1)", "x = x * 1.0"),
    "sub-conditioners in another order": (
        "stable_audio",
        "torch.cat((text, start, end)",
        "torch.cat((text, end, start)",
    ),
    "global conditioning in another order": ("stable_audio", "torch.cat((start, end)", "torch.cat((end, start)"),
}
OTHERWISE = {
    "scores not capped": "(query @ key.transpose(2, 3) * self.scale)",
    "query and key norm exchanged": "self.k_norm(query), self.q_norm(key)",
}
FEW = ("qwen3", "clip_text", "bert", "dinov2", "wav2vec2", "stable_audio")  # one an archetype, for every run


@dataclass
class Made:
    """An official encoder on disk, and `p` and `c` as a bake makes them."""

    case: EncoderCase
    folder: Path
    p: Any
    c: Any
    config: dict[str, Any]
    weights: dict[str, Any]

    def native(self, change: tuple[str, str] | None = None) -> Any:
        """The native encoder with the official weights; `change` replaces text of its source."""
        made = support.module(self.c.config_module, self.text("config.py.jinja"), self.folder)
        config = getattr(made, self.c.config_class)()
        config.update_model_arch({k: v for k, v in json.loads(json.dumps(self.config)).items() if k[0] != "_"})
        source = self.text("native.py.jinja")
        if change:
            assert source.count(change[0]) == 1, f"{change[0]!r} stands {source.count(change[0])} times in the source"
            source = source.replace(*change)
        cls = getattr(support.module(self.c.native_module, source, self.folder), self.c.native_class)
        model = cls(config).eval()
        loaded = model.load_weights((name, tensor.clone()) for name, tensor in self.weights.items())
        assert sorted(loaded) == sorted(name for name, _ in model.named_parameters())
        return model

    def text(self, template: str) -> str:
        return support.text(self.case.archetype, template, self.p, self.c)


def make(case: EncoderCase, folder: Path) -> Made:
    from safetensors.torch import load_file

    place = encoder_cases.make(case, folder / case.name / case.kind)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    weights = load_file(next(place.glob("*.safetensors")))
    tensors = {name: ("F32", tuple(tensor.shape)) for name, tensor in weights.items()}
    p, c = support.context(case.archetype, case.official, config, tensors=tensors, folder=case.kind)
    return Made(case, folder / case.name, p, c, config, weights)


class Sides:
    """The official answers of one encoder, once, and how far a native one is from them."""

    def __init__(self, made: Made) -> None:
        import torch

        self.oracle = support.oracle(made.case.archetype, made.p, made.c, made.folder)
        self.call = support.call(made.case.archetype, made.p, made.c, made.folder)
        build, run = (getattr(self.oracle, f"{word}_{made.c.name}") for word in ("build", "call"))
        self.cases = getattr(self.oracle, f"inputs_{made.c.name}")(made.config, 0)
        place = made.folder / made.case.kind
        single, double = build(place, torch.float32), build(place, torch.float64)
        self.official = {name: run(single, case) for name, case in self.cases.items()}
        exact = {name: run(double, {k: _double(v) for k, v in case.items()}) for name, case in self.cases.items()}
        self.floors = {name: support.worst(self.official[name], exact[name]) for name in self.cases}

    def differences(self, native: Any) -> Iterator[tuple[str, str, float, float]]:
        """(case, output, difference, official floor), relative to the largest value."""
        for name, case in self.cases.items():
            found = support.worst(self.official[name], self.call(native, case))
            for output, difference in found.items():
                yield name, output, difference, self.floors[name][output]


def _double(value: Any) -> Any:
    return value.double() if getattr(value, "is_floating_point", lambda: False)() else value


def measure(case: EncoderCase, folder: Path) -> dict[str, Any]:
    """{"cases": {case: {output: [difference, floor]}}, "ignored", "unseen", "refusals", "faults"} of one encoder."""
    made = make(case, folder)
    sides, native = Sides(made), made.native()
    found: dict[str, Any] = {"cases": {}}
    for name, output, difference, floor in sides.differences(native):
        found["cases"].setdefault(name, {})[output] = [difference, floor]
    found["ignored"] = fields_left(made, native.config)
    found["refusals"] = refusals(made, native)
    found["unseen"] = wiggled(sides, native)
    found["faults"] = {}
    for fault, (where, old, new) in FAULTS.items():
        if where == case.name:
            wrong = made.native((old, new if new is not None else OTHERWISE[fault]))
            found["faults"][fault] = max(d / max(f, 2.0**-23) for _, _, d, f in sides.differences(wrong))
    return found


def fields_left(made: Made, config: Any) -> list[str]:
    """Official fields that are neither a native field nor ignored with a reason."""
    known = {f.name for f in dataclasses.fields(config.arch_config)}
    known |= set(support.library.get(made.case.archetype).data["config_ignored"])
    return sorted(name for name in made.config if name not in known and not name.startswith("_"))


def refusals(made: Made, native: Any) -> dict[str, str]:
    """What load_weights says to a key that no rule names, to a missing one, and to one that is too large."""
    import torch

    loaded = [name for name in made.weights if native._target(name) is not None]
    first = max(loaded, key=lambda name: made.weights[name].numel())
    damaged = {
        "unknown": {**made.weights, "surprise.weight": torch.zeros(1)},
        "missing": {name: tensor for name, tensor in made.weights.items() if name != first},
        "too large": {**made.weights, first: torch.cat([made.weights[first]] * 2)},
    }
    said = {}
    for name, state in damaged.items():
        try:
            type(native)(native.config).load_weights(state.items())
            said[name] = ""
        except ValueError as error:
            said[name] = str(error)
    return said


def wiggled(sides: Sides, native: Any) -> list[str]:
    """Native parameters whose change by two hundredths no case sees."""
    import torch

    unseen = []
    for name, parameter in native.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.add_(0.02 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(1)))
        if not any(difference > 1e-5 for _, _, difference, _ in sides.differences(native)):
            unseen.append(name)
        parameter.data.copy_(kept)
    return unseen


# --- real weights -----------------------------------------------------------------------------------------------------

SENTENCES = [
    "a red fox runs through fresh snow in the morning light",
    "The bank raised its rates; nobody noticed.",
    "",
    "\u72d0\u72f8 na\u00efve caf\u00e9 \U0001f98a \u00bd",
    "Port the encoder, prove that it is equal, then merge. " * 9,
]


def real(place: Path, folder: Path) -> dict[str, list[float]]:
    """{output: [relative L2 to the official float64 run, the official floor, cosine]} of a real BertModel at `place`
    on real sentences, tokenized by its own tokenizer."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from fvport.parity.compare import measures

    case = EncoderCase("real", "bert_encoder", "BertModel", "BertConfig")
    config, weights = json.loads((place / "config.json").read_text()), load_file(place / "model.safetensors")
    tensors = {name: ("F32", tuple(tensor.shape)) for name, tensor in weights.items()}
    p, c = support.context(case.archetype, case.official, config, tensors=tensors)
    native = Made(case, folder, p, c, config, weights).native()
    oracle = support.oracle(case.archetype, p, c, folder)
    tokens = AutoTokenizer.from_pretrained(place)(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    given = {name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    single, double = (oracle.build_text_encoder(place, dtype) for dtype in (torch.float32, torch.float64))
    official, exact = oracle.call_text_encoder(single, given), oracle.call_text_encoder(double, given)
    ours = support.call(case.archetype, p, c, folder)(native, given)
    found = {}
    for name, tensor in ours.items():
        cosine = torch.nn.functional.cosine_similarity(tensor.double().flatten(), exact[name].flatten(), dim=0)
        floor = measures(official[name], exact[name])["rel_l2"]
        found[name] = [measures(tensor, exact[name])["rel_l2"], floor, float(cosine)]
    return found
