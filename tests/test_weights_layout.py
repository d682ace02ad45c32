# SPDX-License-Identifier: Apache-2.0
"""A release is described from its headers: the same bytes each time, and one sentence for what is no release."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from inspect_support import save_flat
from weights_support import release, save, save_json

from fvport.errors import BlockedError, UsageError
from fvport.weights import layout, show
from fvport.weights.kinds import kind_of
from fvport.weights.layout import Inspection

ONE = {"a": np.zeros((2, 3), np.float32)}


def test_a_diffusers_release_is_described(tmp_path):
    """Pipeline, components with kind, class, config and tensors, tokenizers, and what is null in the index."""
    found = layout.inspect(release(tmp_path))
    assert (found.layout, found.pipeline_class, found.needs_conversion) == ("diffusers", "WanPipeline", False)
    dit = found.components["transformer"]
    assert (dit.kind, dit.official, dit.config["num_layers"]) == ("dit", "diffusers:WanTransformer3DModel", 2)
    assert dit.tensors["table"] == ("F32", (2, 4))
    assert (dit.parameters, dit.bytes, dit.dtypes) == (152, 608, {"F32": 13})
    assert found.tokenizers == {"tokenizer": "tokenizer"}
    assert found.absent == ("transformer_2",)
    assert found.pipeline_config == {"boundary_ratio": None}
    assert found.components["scheduler"].config["shift"] == 3.0
    assert "WanTransformer3DModel" in found.text()


def test_the_description_is_the_same_bytes_anywhere(tmp_path):
    """The JSON has no path and no time, and comes back as the same object."""
    one = layout.inspect(release(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "deep/b")
    assert layout.inspect(tmp_path / "deep/b").dumps() == one.dumps()
    assert str(tmp_path) not in one.dumps()
    assert Inspection.from_json(json.loads(one.dumps())) == one


def test_another_json_is_no_inspection():
    """A file of another kind is wrong use, by name."""
    for data in ({}, {"schema": 2}, {"schema": 1, "pipeline": 3}, []):
        with pytest.raises(UsageError, match="is not an inspection"):
            Inspection.from_json(data)


def test_what_is_odd_is_a_concern(tmp_path):
    """Another class in the component's own config, a variant file, loose weights: each is said."""
    release(tmp_path)
    save_json(tmp_path / "transformer/config.json", {"_class_name": "OtherModel"})
    save(tmp_path / "transformer/diffusion_pytorch_model.fp16.safetensors", ONE)
    save(tmp_path / "loose.safetensors", ONE)
    found = layout.inspect(tmp_path)
    said = " ".join(found.concerns)
    assert found.layout == "mixed"
    assert "OtherModel" in said
    assert "fp16" in said
    assert "loose.safetensors" in said


def test_pickled_weights_need_conversion(tmp_path):
    """A component with only a .bin file is described from its pickle, and says that it cannot be loaded as it is."""
    release(tmp_path)
    (tmp_path / "transformer/diffusion_pytorch_model.safetensors").unlink()
    save_flat(tmp_path / "transformer/diffusion_pytorch_model.bin", {"table": (2, 4), "proj.weight": (3, 3)})
    found = layout.inspect(tmp_path)
    assert found.needs_conversion
    assert found.components["transformer"].tensors["table"] == ("F32", (2, 4))
    assert "pickle" in found.components["transformer"].conversion
    assert "pickle" in " ".join(found.concerns)


def test_other_layouts_are_told_apart(tmp_path):
    """One file, a folder of files, component folders, both: each has its word."""
    file = save(tmp_path / "one/model.safetensors", ONE)
    save(tmp_path / "raw/a.safetensors", ONE)
    save(tmp_path / "raw/b.safetensors", {"b": ONE["a"]})
    save(tmp_path / "parts/vae/model.safetensors", ONE)
    save_json(tmp_path / "parts/vae/config.json", {"_class_name": "AutoencoderKL"})
    save(tmp_path / "both/vae/model.safetensors", ONE)
    save(tmp_path / "both/model.safetensors", ONE)
    words = ["one", "raw", "parts", "both"]
    kinds = {word: layout.inspect(tmp_path / word).layout for word in words}
    assert kinds == {"one": "monolithic", "raw": "raw_official", "parts": "separate_components", "both": "mixed"}
    assert layout.inspect(file).layout == "monolithic"
    assert layout.inspect(tmp_path / "parts").components["vae"].kind == "vae"
    assert all(layout.inspect(tmp_path / word).needs_conversion for word in words)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: p / "none", "no such checkpoint"),
        (lambda p: p, "holds no checkpoint"),
        (lambda p: save_json(p / "model_index.json", {"_class_name": "X"}).parent, "names no component"),
        (lambda p: save_json(p / "model_index.json", {"vae": ["diffusers", "V"]}).parent, "has no folder"),
        (lambda p: save_json(p / "model_index.json", {"../vae": ["diffusers", "V"]}).parent, "no folder name"),
        (lambda p: save_json(p / "model_index.json", []).parent, "is not a JSON object"),
        (lambda p: save(p / "x.gguf", ONE), "GGUF"),
        (lambda p: save(p / "x.pth", ONE), "a safetensors file under another ending"),
    ],
)
def test_what_is_no_release_is_one_sentence(tmp_path, make, word):
    """Missing, empty, half or of another kind: exit code 3 and one sentence."""
    with pytest.raises(BlockedError, match=word) as caught:
        layout.inspect(make(tmp_path))
    assert caught.value.exit_code == 3


def test_a_truncated_component_is_named(tmp_path):
    """A cut weight file names the file."""
    file = release(tmp_path) / "transformer/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BlockedError, match=r"diffusion_pytorch_model\.safetensors.*truncated"):
        layout.inspect(tmp_path)


@pytest.mark.parametrize(
    ("name", "cls", "kind"),
    [
        ("text_encoder_2", "CLIPTextModelWithProjection", "text_encoder"),
        ("text_encoder", "Qwen2_5_VLForConditionalGeneration", "text_encoder"),
        ("image_encoder", "CLIPVisionModelWithProjection", "image_encoder"),
        ("unet", "UNet2DConditionModel", "dit"),
        ("transformer_2", "WanTransformer3DModel", "dit"),
        ("transformer", "QwenImageTransformer2DModel", "dit"),
        ("audio_vae", "AutoencoderKLLTX2Audio", "vae"),
        ("movq", "VQModel", "vae"),
        ("vocoder", "LTX2Vocoder", "vocoder"),
        ("connectors", "LTX2TextConnectors", "conditioner"),
        ("latent_upsampler", "LTXLatentUpsamplerModel", "upsampler"),
        ("feature_extractor", "CLIPImageProcessor", "processor"),
        ("tokenizer", "TokenizersBackend", "tokenizer"),
        ("scheduler", "UniPCMultistepScheduler", "scheduler"),
        ("audio_encoder", "Wav2Vec2Model", "audio_encoder"),
    ],
)
def test_kinds_are_told_by_class_and_name(name, cls, kind):
    """Real classes of the libraries are of the kind that a person would say."""
    assert kind_of(name, cls) == (kind, True)


def test_an_unknown_class_is_a_guess():
    """A class and name that say nothing give a guess that is marked as one."""
    assert kind_of("foo", "Bar", "transformers") == ("text_encoder", False)


def test_layer_numbers_are_collapsed():
    """Lists of names show layers as ranges."""
    names = [f"blocks.{n}.a" for n in (0, 1, 2, 3, 7)] + ["b", "c.1", "c.2"]
    assert show.collapse(names) == ["blocks.{0..3,7}.a", "b", "c.{1,2}"]
