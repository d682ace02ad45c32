# SPDX-License-Identifier: Apache-2.0
"""Tiny twins: rules on plain values, refusals, and the command's whole way on a folder with real sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.tiny import keys, overrides, release, rules, shrink, structure, values, write


def test_widths_keep_equalities_sums_and_multiples() -> None:
    """Two encoders' widths that are concatenated still add up; three stacked layers are still three times one."""
    made = rules.proportional([768, 1280, 2048, 4096], 24)
    assert made[768] + made[1280] == made[2048] < made[4096]
    three = rules.proportional([5120, 15360], 24)
    assert three[15360] == 3 * three[5120]
    odd = rules.proportional([769, 1280, 4096], 24)
    assert odd[769] < odd[1280] < odd[4096]


def test_a_list_along_the_layers_keeps_every_kind() -> None:
    """The rare kind is kept wherever it stands; order stays."""
    assert rules.cut(["s", "s", "s", "f", "s"], 2) == ["s", "f"]
    assert rules.cut(("a", "b", "c", "a"), 3) == ("a", "b", "c")
    patch = rules.depth({"num_layers": 24, "dual_attention_layers": list(range(13))}, rules.Facts({}))[0]
    assert patch == {"num_layers": 2, "dual_attention_layers": [0]}
    window = {"num_hidden_layers": 32, "fullatt_block_indexes": [7, 15, 23, 31], "moe_interval": 6}
    assert rules.depth(window, rules.Facts({}))[0] == {
        "num_hidden_layers": 2,
        "fullatt_block_indexes": [1],
        "moe_interval": 2,
    }


def test_a_pooled_width_beside_embedded_numbers() -> None:
    """SDXL's 2816 is 1280 and six times 256: the encoder's part follows the encoder."""
    level = {"projection_class_embeddings_input_dim": 2816, "addition_time_embed_dim": 256, "num_attention_heads": 4}
    facts = rules.Facts({1280: 40}, shared=frozenset({1280}))
    assert rules.sizes(level, facts)[0]["projection_class_embeddings_input_dim"] == 40 + 6 * 256
    assert not keys.is_width("projection_class_embeddings_input_dim", 2816)
    assert "projection_class_embeddings_input_dim" not in rules.sizes(level, rules.Facts({}))[0]


@pytest.mark.parametrize(("parts", "total", "step"), [((16, 56, 56), 24, 2), ([32] * 4, 24, 2), ([16, 24, 24], 8, 1)])
def test_rotary_axes_add_up(parts: Any, total: int, step: int) -> None:
    """Their sum is the head's width, each a multiple of the step, equal ones equal."""
    made = rules.axes(parts, total, step)
    assert sum(made) == total
    assert all(v > 0 and v % step == 0 for v in made)
    assert type(made) is type(parts)
    assert made[1] == made[2]


def test_a_vocabulary_follows_its_tokenizer() -> None:
    """No tokenizer: small, special ids moved; a tokenizer of that size, or one that cannot be read: kept."""
    config = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 1}
    alone = rules.vocabulary(config, rules.Facts({}))[0]
    assert alone == {"vocab_size": 512, "eos_token_id": 511, "bos_token_id": 510}
    assert rules.vocabulary(config, rules.Facts({}, tokens=49408)) == [{}]
    assert rules.vocabulary(config, rules.Facts({}, tokens=-1)) == [{}]
    assert rules.vocabulary(config, rules.Facts({}, tokens=1001))[0]["vocab_size"] == 1008


def test_a_lost_kind_of_layer_is_another_structure() -> None:
    """Names with numbers folded would be the same; the kinds of layers are not, and the words say which is lost."""
    import torch

    def block(wide: bool) -> torch.nn.Module:
        module = torch.nn.Module()
        module.a = torch.nn.Linear(4, 4)
        module.b = torch.nn.Linear(4, 4) if wide else None
        return module

    def model(kinds: list[bool]) -> torch.nn.Module:
        module = torch.nn.Module()
        module.blocks = torch.nn.ModuleList(block(k) for k in kinds)
        return module

    both, longer, one = (structure.kind(model(k)) for k in ([True, False], [True, True, False], [True]))
    assert both == longer
    assert "blocks would lose a kind of layer" in structure.difference(both, one)


class Trap:
    """A class whose forward switch depends on a size: made a diffusers model where it is needed."""

    @staticmethod
    def cls() -> Any:
        import torch
        from diffusers import ConfigMixin, ModelMixin
        from diffusers.configuration_utils import register_to_config

        class Trapped(ModelMixin, ConfigMixin):  # type: ignore[misc]
            @register_to_config
            def __init__(self, num_layers: int = 24, ffn_dim: int = 4096, num_attention_heads: int = 16,
                         attention_head_dim: int = 64, odd_layers: int = 12) -> None:  # fmt: skip
                super().__init__()
                inner = num_attention_heads * attention_head_dim
                if num_attention_heads < 8:
                    raise ValueError("at least 8 heads")
                self.blocks = torch.nn.ModuleList(torch.nn.Linear(inner, inner) for _ in range(num_layers))
                self.extra = torch.nn.Linear(inner, ffn_dim) if num_layers > 10 else None

        return Trapped


def test_what_cannot_be_shrunk_is_said_with_the_reason() -> None:
    """Depth is a switch here and heads have a floor: both stay, the rest shrinks, and the class's words are shown."""
    cls = Trap.cls()
    defaults = {"num_layers": 24, "ffn_dim": 4096, "num_attention_heads": 16, "attention_head_dim": 64}
    part = release.Part("trap", Path("trap"), cls, defaults)
    twin = shrink.plan(release.Release(Path(), False, {"trap": part}))["trap"]
    assert twin.config["num_layers"] == 24
    assert twin.config["num_attention_heads"] == 16
    assert twin.config["attention_head_dim"] < 64
    assert twin.config["ffn_dim"] < 4096
    assert "lose extra" in twin.kept["num_layers"]
    kind = structure.kind(shrink.build(part, twin.config))
    assert kind == structure.kind(shrink.build(part, defaults))


def test_no_parameter_stays_zero_or_one() -> None:
    """Norms, biases and tables are drawn; the same seed gives the same values, another others."""
    import torch

    def made(seed: int) -> Any:
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.BatchNorm1d(8))
        model.table = torch.nn.Parameter(torch.zeros(1, 6, 8))
        return values.randomise(model, "x", seed).state_dict()

    one, again, other = made(0), made(0), made(1)
    for name, tensor in one.items():
        assert torch.equal(tensor, again[name])
        if tensor.is_floating_point():
            assert float(tensor.std()) > 0
            assert not torch.equal(tensor, other[name])


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    """No release, a class nobody has, a wrong --set, a folder of someone else's, the source itself."""
    with pytest.raises(UsageError, match="no release in Diffusers layout"):
        release.read(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        release.read(tmp_path / "none")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps({"_class_name": "NobodysModel", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(BlockedError, match="code of a release is never run"):
        release.read(theirs)
    (theirs / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        release.read(theirs)
    with pytest.raises(UsageError, match="left alone"):
        write.refuse_other(tmp_path / "source", theirs)
    with pytest.raises(UsageError, match="over its source"):
        write.refuse_other(theirs, theirs / "twin")
    with pytest.raises(UsageError, match=r"COMPONENT\.KEY=VALUE"):
        overrides.collect(tmp_path, ["layers"], None)
    assert overrides.collect(tmp_path, ["vae.dims=[1,2]"], None) == {"vae": {"dims": [1, 2]}}


def test_a_port_says_what_it_wants_otherwise(tmp_path: Path) -> None:
    """`tiny` of port.toml by the release's folder, --set after it; about other components only in a whole release."""
    from test_spec import GOOD, put

    from fvport import spec

    put(tmp_path, GOOD.replace('kind = "dit"', 'kind = "dit"\ntiny = { num_layers = 3, inside = { x = 1 } }'))
    port = spec.load(tmp_path)
    alone = overrides.collect(tmp_path / "transformer", ["transformer.num_layers=4"], port)
    assert alone == {"transformer": {"num_layers": 4, "inside.x": 1}}
    assert overrides.collect(tmp_path / "vae", [], port) == {}
    (tmp_path / "model_index.json").write_text("{}")
    assert overrides.collect(tmp_path, [], port) == {"transformer": {"num_layers": 3, "inside.x": 1}}


def real_wan(folder: Path) -> Path:
    """A Wan release at its real sizes, as configs, scheduler and tokenizer: nothing here has weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config

    from examples.tiny_wan.make_official import make_tokenizer

    encoder = UMT5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=256384)
    configs = {
        "transformer": {"_class_name": "WanTransformer3DModel"},  # its defaults are the 14B model's
        "vae": {"_class_name": "AutoencoderKLWan"},
        "text_encoder": encoder.to_dict() | {"architectures": ["UMT5EncoderModel"]},
    }
    for name, config in configs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config, default=str))
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    classes = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    index = {"_class_name": "WanPipeline", "boundary_ratio": None, "transformer_2": [None, None], **classes}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_whole_release_of_real_size_becomes_one_that_runs(tmp_path: Path) -> None:
    """Twenty billion parameters become a folder that diffusers loads and runs; it may be made again, no other may."""
    import torch
    from diffusers import WanPipeline

    source, out = real_wan(tmp_path / "wan"), tmp_path / "twin"
    made = write.run(source, out, overrides={"transformer": {"num_layers": 3}})
    sizes = {name: (twin.before, twin.after) for name, twin in made.twins.items()}
    assert sum(before for before, _ in sizes.values()) > 19_000_000_000
    assert all(after < 1_000_000 for _, after in sizes.values()), sizes
    transformer, encoder = made.twins["transformer"].config, made.twins["text_encoder"].config
    assert transformer["text_dim"] == encoder["d_model"]
    assert transformer["num_layers"] == 3
    assert encoder["num_heads"] * encoder["d_kv"] == encoder["d_model"]
    assert not made.twins["transformer"].kept, made.text()
    pipe = WanPipeline.from_pretrained(str(out))
    frames = pipe("a fox runs", height=32, width=32, num_frames=5, num_inference_steps=1, output_type="pt").frames
    assert bool(torch.isfinite(frames).all())
    assert float(frames.std()) > 0
    assert write.run(source, out, overrides={"transformer": {"num_layers": 3}}).bytes == made.bytes
    (out / write.RECORD).unlink()
    with pytest.raises(UsageError, match="left alone"):
        write.run(source, out)


def test_the_config_keeps_the_releases_spelling(tmp_path: Path) -> None:
    """An older transformers' keys, unsaid defaults and keys that no class knows stay; values are the twin's."""
    from transformers import Qwen2Model

    folder, out = tmp_path / "text_encoder", tmp_path / "twin"
    folder.mkdir()
    config = {"architectures": ["Qwen2Model"], "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28}
    config |= {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944, "rope_theta": 500.0}
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16", "theirs": {"x": 1}}))
    write.run(folder, out)
    written = json.loads((out / "config.json").read_text())
    assert written["rope_theta"] == 500.0
    assert written["theirs"] == {"x": 1}
    assert written["torch_dtype"] == "float32"
    assert written.keys() <= config.keys() | {"torch_dtype", "theirs", "vocab_size", "layer_types"}
    model = Qwen2Model.from_pretrained(str(out))
    assert model.config.num_hidden_layers == 4
    assert str(model.dtype) == "torch.float32"


def test_a_limit_is_kept_or_nothing_is_written(tmp_path: Path) -> None:
    """Over the limit: the component, its count and what to do; and no folder."""
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}))
    with pytest.raises(FvportError, match="over 1,000"):
        write.run(folder, tmp_path / "twin", limit=1000)
    assert not (tmp_path / "twin").exists()
    with pytest.raises(UsageError, match="no key nun_layers"):
        write.run(folder, tmp_path / "twin", overrides={"transformer": {"nun_layers": 1}})
    assert keys.is_width("text_dim", 4096)
    assert not keys.is_width("ffn_dim", 4096)
