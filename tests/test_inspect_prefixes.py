# SPDX-License-Identifier: Apache-2.0
"""One file with several components: prefixes, wrappers, running averages, training state, and what nobody owns."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_support import save_flat, save_zip, tensor
from weights_support import save, save_json

from fvport.weights import layout
from fvport.weights.layout import Inspection
from fvport.weights.prefixes import split

DIT = ("patch_embed.weight", "time_embed.0.weight", "blocks.0.attn.q.weight", "head.weight")
VAE = ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.bias")
TEXT = ("shared.weight", "encoder.block.0.q.weight", "final_norm.weight")


def under(prefix: str, names: tuple[str, ...]) -> list[str]:
    return [prefix + name for name in names]


def said(names: list[str], *containers: str) -> list[tuple[str, str, str]]:
    """(role, name or what it is an average of, prefix) of each part; every name must be in exactly one."""
    parts = split(names, containers)
    assert sorted(name for part in parts for name in part.names) == sorted(names)
    assert all(name.startswith(part.prefix) for part in parts for name in part.names)
    return [(part.role, part.of if part.role == "ema" else part.name, part.prefix) for part in parts]


@pytest.mark.parametrize(
    ("prefixes", "kinds"),
    [
        (
            ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."),
            "transformer vae text_encoder",
        ),
        (("module.model.diffusion_model.", "module.vae.", "module.te."), "transformer vae text_encoder"),
        (("model.diffusion_model.", "vae.", "text_encoders.t5xxl.transformer."), "transformer vae text_encoder"),
        (("unet.", "autoencoder.", "conditioner.embedders.0.model."), "unet vae text_encoder"),
        (("transformer.", "vae.", "text_encoder."), "transformer vae text_encoder"),
        (("dit.", "ae.", "text_encoder_2."), "transformer vae text_encoder"),
        (
            ("state_dict.net.denoiser.", "state_dict.net.pretransform.model.", "state_dict.net.t5xxl."),
            "transformer vae text_encoder",
        ),
    ],
)
def test_components_are_found_under_their_prefixes(prefixes, kinds):
    """The spellings of several releases: each component's names come out without the prefix."""
    names = under(prefixes[0], DIT) + under(prefixes[1], VAE) + under(prefixes[2], TEXT)
    parts = split(names)
    assert [(part.name, part.prefix) for part in parts] == list(zip(kinds.split(), prefixes, strict=True))
    assert [part.own(part.names[0]) for part in parts] == [DIT[0], VAE[0], TEXT[0]]


@pytest.mark.parametrize(
    "names",
    [
        under("", DIT),
        ["transformer.h.0.attn.weight", "transformer.wte.weight", "lm_head.weight"],
        ["model.embed_tokens.weight", "model.layers.0.q.weight", "lm_head.weight"],
        ["model.embed_tokens.weight", "model.layers.0.q.weight"],
        ["vision_model.a.weight", "text_model.b.weight", "logit_scale"],
        ["encoder.a.weight", "decoder.b.weight", "shared.weight"],
        ["transformer_blocks.0.a", "norm_out.weight"],
    ],
)
def test_one_model_is_not_taken_apart(names):
    """Words that parts of one model are called by make no component."""
    assert said(names) == [("component", "model", "")]


@pytest.mark.parametrize(
    ("names", "containers", "expected"),
    [
        (
            under("state_dict.model.", DIT) + under("ema.", DIT) + ["optimizer.state.0.exp_avg"],
            ("state_dict", "ema", "optimizer", "optimizer.state", "optimizer.state.0"),
            [
                ("component", "model", "state_dict.model."),
                ("ema", "model", "ema."),
                ("training", "optimizer", "optimizer."),
            ],
        ),
        (
            under("module.", DIT) + under("ema_model.module.", DIT),
            ("module", "ema_model"),
            [("component", "model", "module."), ("ema", "model", "ema_model.module.")],
        ),
        (
            under("model.diffusion_model.", DIT)
            + ["model_ema." + ("diffusion_model" + n).replace(".", "") for n in DIT],
            (),
            [("component", "transformer", "model.diffusion_model."), ("ema", "transformer", "model_ema.")],
        ),
        (
            under("params.", DIT) + under("params_ema.", DIT),
            ("params", "params_ema"),
            [("component", "params", "params."), ("ema", "params", "params_ema.")],
        ),
        (under("ema.", DIT), ("ema",), [("component", "model", "ema.")]),
        (
            under("generator.", DIT) + under("discriminator.", VAE),
            ("generator", "discriminator"),
            [("component", "generator", "generator."), ("training", "discriminator", "discriminator.")],
        ),
        (
            [*under("dit.", DIT), "betas", "alphas_cumprod"],
            (),
            [("component", "transformer", "dit."), ("unowned", "", "")],
        ),
        (under("_orig_mod.module.", DIT), (), [("component", "model", "_orig_mod.module.")]),
    ],
)
def test_what_stands_around_and_beside_a_model(names, containers, expected):
    """Wrappers are prefixes, averages belong to their component, optimisers and leftovers are set apart."""
    assert said(names, *containers) == expected


def test_unknown_prefixes_are_told_by_structure(tmp_path):
    """Prefixes that no table knows: the names under each read like a whole model of its kind."""
    arrays = {f"zeta.{name}": np.zeros((4, 4), np.float32) for name in DIT}
    arrays |= {f"omega.{name}": np.zeros((4, 4, 3, 3), np.float32) for name in VAE}
    arrays |= {f"psi.{name}": np.zeros((4, 4), np.float32) for name in TEXT}
    found = layout.inspect(save(tmp_path / "all.safetensors", arrays))
    kinds = {component.prefix: component.kind for component in found.components.values()}
    assert kinds == {"zeta.": "dit", "omega.": "vae", "psi.": "text_encoder"}
    assert found.layout == "monolithic"


def test_a_monolithic_file_is_described_and_comes_back(tmp_path):
    """Components by prefix with their own names, what is none with its role, the reason; the JSON is the object."""
    arrays = {name: np.zeros((2, 2), np.float32) for name in under("model.diffusion_model.", DIT)}
    arrays |= {name: np.zeros((2, 2, 3, 3), np.float32) for name in under("first_stage_model.", VAE)}
    arrays |= {f"model_ema.{n}": arrays[f"model.diffusion_model.{n}"] for n in DIT} | {"betas": np.zeros(2, np.float32)}
    found = layout.inspect(save(tmp_path / "all.safetensors", arrays))
    assert (found.layout, found.needs_conversion) == ("monolithic", True)
    assert "transformer under model.diffusion_model." in found.reason
    dit = found.components["transformer"]
    assert (dit.prefix, dit.weights, sorted(dit.tensors)) == (
        "model.diffusion_model.",
        ("all.safetensors",),
        sorted(DIT),
    )
    assert [(aside.role, aside.of, aside.tensors) for aside in found.aside] == [
        ("ema", "transformer", 4),
        ("unowned", "", 1),
    ]
    assert "betas" in " ".join(found.concerns)
    assert Inspection.from_json(json.loads(found.dumps())) == found
    assert "model.diffusion_model." in found.text()


def test_an_inspection_of_an_older_version_still_reads():
    """Fields that came later are optional."""
    old = {
        "schema": 1,
        "layout": "diffusers",
        "reason": "r",
        "needs_conversion": False,
        "pipeline": {"class": "P", "library": "diffusers", "config": {}},
        "tokenizers": {},
        "absent": [],
        "concerns": [],
        "components": {
            "vae": {
                "kind": "vae",
                "library": "diffusers",
                "class": "V",
                "folder": "vae",
                "parameters": 2,
                "bytes": 8,
                "dtypes": {"F32": 1},
                "files": [["a", 1]],
                "config": {},
                "tensors": {"w": ["F32", [2]]},
            }
        },
    }
    found = Inspection.from_json(old)
    assert found.components["vae"].parameters == 2
    assert found.to_json() == old


def test_a_raw_official_release_is_told_by_its_files(tmp_path):
    """A denoiser with a config, a VAE and an encoder as pickles beside it, a tokenizer in folders below."""
    save(tmp_path / "diffusion_pytorch_model.safetensors", {name: np.zeros((2, 2), np.float32) for name in DIT})
    save_json(tmp_path / "config.json", {"_class_name": "RawModel"})
    save_flat(tmp_path / "Raw2.1_VAE.pth", dict.fromkeys(VAE, (2, 2, 3, 3)))
    save_flat(tmp_path / "models_t5_xxl-enc-bf16.pth", dict.fromkeys(TEXT, (4, 4)))
    save_json(tmp_path / "google/t5/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    save_json(tmp_path / "google/t5/tokenizer.json", {})
    found = layout.inspect(tmp_path)
    kinds = {name: (c.kind, c.cls) for name, c in found.components.items()}
    assert kinds == {
        "transformer": ("dit", "RawModel"),
        "vae": ("vae", ""),
        "text_encoder": ("text_encoder", ""),
        "tokenizer": ("tokenizer", "T5Tokenizer"),
    }
    assert (found.layout, found.components["tokenizer"].folder) == ("raw_official", "google/t5")
    assert found.components["vae"].weights == ("Raw2.1_VAE.pth",)


def test_a_library_folder_needs_no_conversion_of_its_own(tmp_path):
    """One encoder with its config and tokenizer, as transformers writes it; other folders are no components."""
    save(tmp_path / "model.safetensors", {"embeddings.word_embeddings.weight": np.zeros((4, 2), np.float32)})
    save_json(tmp_path / "config.json", {"architectures": ["BertModel"]})
    save_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    save_json(tmp_path / "1_Pooling/config.json", {"word_embedding_dimension": 384})
    save_zip(tmp_path / "pytorch_model.bin", {"a": tensor("0", 2)}, {"0": 8})
    save_zip(tmp_path / "training_args.bin", {"a": tensor("0", 2)}, {"0": 8})
    found = layout.inspect(tmp_path)
    assert {n: (c.kind, c.official, c.conversion) for n, c in found.components.items()} == {
        "text_encoder": ("text_encoder", "transformers:BertModel", ""),
        "tokenizer": ("tokenizer", "transformers:BertTokenizer", ""),
    }
    assert found.layout == "separate_components"
    assert [aside.role for aside in found.aside] == ["training"]


def test_two_files_for_one_component_are_said(tmp_path):
    """A half-precision copy is a variant; parts by rank make the release custom; code of its own does too."""
    for name, kind in (("big.safetensors", np.float32), ("big_fp16.safetensors", np.float16)):
        save(tmp_path / "a" / name, {key: np.zeros((2, 2), kind) for key in DIT})
    found = layout.inspect(tmp_path / "a")
    assert [component.weights for component in found.components.values()] == [("big.safetensors",)]
    assert ([a.role for a in found.aside], "say which one" in " ".join(found.concerns)) == (["variant"], True)
    for rank in range(2):
        save_flat(tmp_path / f"b/mp_rank_0{rank}_model_states.pt", dict.fromkeys(DIT, (2, 2 + rank)), "module")
    assert layout.inspect(tmp_path / "b").layout == "custom"
    save(tmp_path / "c/model.safetensors", {key: np.zeros((2, 2), np.float32) for key in DIT})
    save_json(tmp_path / "c/config.json", {"architectures": ["X"], "auto_map": {"AutoModel": "modeling_x.X"}})
    assert layout.inspect(tmp_path / "c").layout == "custom"


def test_what_a_writer_left_out_as_tied_is_said(tmp_path):
    """safetensors' own note of a shared tensor."""
    file = save(tmp_path / "m.safetensors", {"a.weight": np.zeros((2, 2), np.float32)}, {"b.weight": "a.weight"})
    assert "b.weight is tied to a.weight" in " ".join(layout.inspect(file).concerns)


def test_no_tensor_of_a_sparse_giant_is_read(tmp_path):
    """Of 40 GB in four shards a few kilobytes are read and none is kept."""
    from benchmarks.inspect import _release

    tensors = _release(tmp_path / "giant", 40 * 10**9)
    before = _read_so_far()
    found = layout.inspect(tmp_path / "giant")
    assert len(found.components["transformer"].tensors) == len(tensors)
    assert found.components["transformer"].bytes > 39 * 10**9
    assert _read_so_far() - before < 2_000_000


def _read_so_far() -> int:
    return int(open("/proc/self/io").read().split()[1])


WORDS = """model ema state_dict module transformer vae text_encoder first_stage_model optimizer blocks 0 1 weight x"""
segments = st.sampled_from(WORDS.split())


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.lists(segments, min_size=1, max_size=5).map(".".join), unique=True, max_size=12), st.booleans())
def test_every_name_has_one_place(names, nested):
    """Whatever the names are, each is in exactly one part, and its prefix is its own beginning."""
    containers = {name.rsplit(".", 1)[0] for name in names if "." in name} if nested else set()
    said(names, *containers)
