# SPDX-License-Identifier: Apache-2.0
"""A port whose text encoder is another library's model behind a connector of its own: what a person writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NATIVE = '''# SPDX-License-Identifier: Apache-2.0
"""A T5 encoder of transformers behind a connector that this port owns."""

from collections.abc import Iterable

import torch
from torch import nn

from fastvideo.configs.models.encoders import BaseEncoderOutput, TextEncoderConfig
from fastvideo.models.encoders.base import TextEncoder
from fastvideo.models.loader.weight_utils import default_weight_loader


class HybridConnector(nn.Module):
    """(batch, tokens, width) of the external encoder to the width of the denoiser, root mean square normed."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(hidden_states))


class HybridTextEncoder(TextEncoder):
    """Owns the connector only; the external encoder is read from its folder when it is first called."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        arch = config.arch_config
        self.connector = HybridConnector(arch.hidden_size, arch.eps)
        self.external_path = arch.gemma_model_path
        self._external: list[nn.Module] = []  # in a list: no submodule, so its tensors are not this port's

    def external(self) -> nn.Module:
        if not self._external:
            from transformers import T5EncoderModel

            like = self.connector.proj.weight
            model = T5EncoderModel.from_pretrained(self.external_path, torch_dtype=like.dtype)
            self._external.append(model.to(like.device).eval().requires_grad_(False))
        return self._external[0]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None,
                **kwargs) -> BaseEncoderOutput:
        hidden = self.external()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return BaseEncoderOutput(last_hidden_state=self.connector(hidden), attention_mask=attention_mask)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        params, loaded = dict(self.named_parameters()), set()
        for name, weight in weights:
            default_weight_loader(params[name], weight)
            loaded.add(name)
        return loaded


EntryClass = HybridTextEncoder
'''
CONFIG = '''# SPDX-License-Identifier: Apache-2.0
"""Config of the hybrid text encoder."""

from dataclasses import dataclass, field

from fastvideo.configs.models.encoders.base import TextEncoderArchConfig, TextEncoderConfig


@dataclass
class HybridTextArchConfig(TextEncoderArchConfig):
    architectures: list[str] = field(default_factory=lambda: ["HybridTextEncoder"])
    hidden_size: int = 32
    eps: float = 1e-6
    text_len: int = 512
    gemma_model_path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tokenizer_kwargs = {
            "padding": "max_length",
            "truncation": True,
            "max_length": self.text_len,
            "add_special_tokens": True,
            "return_attention_mask": True,
            "return_tensors": "pt",
        }


@dataclass
class HybridTextConfig(TextEncoderConfig):
    arch_config: TextEncoderArchConfig = field(default_factory=HybridTextArchConfig)
'''
ORACLE = '''
class OfficialConnector(torch.nn.Module):
    """A linear map and a norm."""

    def __init__(self, width):
        super().__init__()
        self.proj = torch.nn.Linear(width, width)
        self.norm = torch.nn.RMSNorm(width, eps=1e-6)

    def forward(self, hidden_states):
        return self.norm(self.proj(hidden_states))


class HybridTextEncoderOfficial(torch.nn.Module):
    """The official side: transformers' encoder, then a linear map and a norm."""

    def __init__(self, folder, dtype):
        from safetensors.torch import load_file
        from transformers import T5EncoderModel

        super().__init__()
        held = load_file(folder / "model.safetensors")
        self.encoder = T5EncoderModel.from_pretrained(folder / "gemma", torch_dtype=torch.float32)
        self.connector = OfficialConnector(32)
        self.connector.load_state_dict({name.removeprefix("connector."): held[name] for name in held})
        self.to(dtype).eval().requires_grad_(False)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.connector(hidden)


def _place(folder, name="text_encoder"):
    path = pathlib.Path(folder)
    return path / name if (path / name).is_dir() else path


def build_text_encoder(folder, dtype):
    return HybridTextEncoderOfficial(_place(folder), dtype)


def inputs_text_encoder(config, seed):
    """Two rows of unequal lengths, padded on the right; one row alone."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 400, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids = torch.where(mask.bool(), ids, torch.zeros_like(ids))
    single = torch.randint(4, 400, (1, 5), generator=generator)
    return {"ragged": {"input_ids": ids, "attention_mask": mask},
            "single": {"input_ids": single, "attention_mask": torch.ones_like(single)}}


def call_text_encoder(built, case):
    return {"hidden": built(**case)}


def build_text_encoder_connector(folder, dtype):
    return build_text_encoder(folder, dtype).connector


def inputs_text_encoder_connector(config, seed):
    generator = torch.Generator().manual_seed(seed)
    return {"hidden": {"hidden_states": torch.randn(2, 7, 32, generator=generator)}}


def call_text_encoder_connector(built, case):
    return {"hidden": built(**case)}
'''
TEST = '''# SPDX-License-Identifier: Apache-2.0
"""The hybrid text encoder, whole and its connector alone."""


def call(native, case):
    return {"hidden": native(**case).last_hidden_state}


def test_hybrid_text_encoder_parity(parity):
    """The wrapper's output contract."""
    parity.compare("text_encoder", call)
'''
PART = '''# SPDX-License-Identifier: Apache-2.0
"""The connector that this port owns, without the encoder before it."""


def test_hybrid_text_encoder_connector_parity(parity):
    """Owned weights alone."""
    parity.compare("text_encoder_connector", lambda native, case: {"hidden": native(**case)})
'''
COMPONENTS = """[components.text_encoder]
kind = "text_encoder"
mode = "external"
official = "oracle:build_text_encoder"
native = "fastvideo.models.encoders.hybrid_text_encoder:HybridTextEncoder"
config = "fastvideo.configs.models.encoders.hybrid_text_encoder:HybridTextConfig"
weights = "text_encoder"
tokenizer = "tokenizer"
path = "fastvideo/models/encoders/hybrid_text_encoder.py"
reason = "transformers' T5 is called as it is: accepted by the maintainers in review 7"
external = "text_encoder/gemma"
external_field = "gemma_model_path"

[components.text_encoder_connector]
kind = "conditioner"
mode = "external"
official = "oracle:build_text_encoder_connector"
native = "fastvideo.models.encoders.hybrid_text_encoder:HybridConnector"
weights = "text_encoder"
path = "fastvideo/models/encoders/hybrid_text_encoder.py"
part = "connector"
scope = "implementation_subcomponent"
reason = "the connector of text_encoder alone"

"""
PIPELINE = {
    "# FVPORT-DECIDE: text_encoder is external and has no config here: how does the pipeline load and call it?\n": "",
    "from collections.abc import Callable\n": "import html\nfrom collections.abc import Callable\n",
    "import torch\n\nfrom": "import ftfy\nimport torch\n\nfrom",
    "import BaseEncoderOutput\n": (
        "import BaseEncoderOutput\nfrom fastvideo.configs.models.encoders.hybrid_text_encoder import HybridTextConfig\n"
    ),
    "text_encoder_configs: tuple[EncoderConfig, ...] = ()": (
        "text_encoder_configs: tuple[EncoderConfig, ...] = field(default_factory=lambda: (HybridTextConfig(), ))"
    ),
    "preprocess_text_funcs: tuple[Callable[[str], str], ...] = ()": (
        "preprocess_text_funcs: tuple[Callable[[str], str], ...] = (_cleaned, )"
    ),
    "postprocess_text_funcs: tuple[Callable[[BaseEncoderOutput], torch.Tensor], ...] = ()": (
        "postprocess_text_funcs: tuple[Callable[[BaseEncoderOutput], torch.Tensor], ...] = (_hidden, )"
    ),
    "text_encoder_precisions: tuple[str, ...] = ()": 'text_encoder_precisions: tuple[str, ...] = ("fp32", )',
    "\n@dataclass\nclass HybridPipelineConfig": (
        "\ndef _cleaned(prompt: str) -> str:\n"
        '    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())\n\n\n'
        "def _hidden(outputs: BaseEncoderOutput) -> torch.Tensor:\n    return outputs.last_hidden_state\n\n\n"
        "@dataclass\nclass HybridPipelineConfig"
    ),
}
SLUG = "hybrid"


def release(root: Path) -> Path:
    """The tiny Wan release with its T5 under `text_encoder/gemma` and a connector's weights in `text_encoder`."""
    import torch
    from safetensors.torch import save_file

    from examples.tiny_wan import make_official

    make_official.make(root, build=make_official.text_to_video)
    encoder = root / "text_encoder"
    encoder.rename(root / "moved")
    encoder.mkdir()
    (root / "moved").rename(encoder / "gemma")
    drawn = torch.Generator().manual_seed(3)
    held = {
        "connector.proj.weight": torch.randn(32, 32, generator=drawn) * 0.2,
        "connector.proj.bias": torch.randn(32, generator=drawn) * 0.1,
        "connector.norm.weight": 1 + 0.3 * torch.randn(32, generator=drawn),
    }
    save_file(held, str(encoder / "model.safetensors"), metadata={"format": "pt"})
    config = {"architectures": ["HybridTextEncoder"], "hidden_size": 32, "eps": 1e-6, "text_len": 512}
    (encoder / "config.json").write_text(json.dumps(config))
    index = json.loads((root / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "HybridTextEncoder"]
    (root / "model_index.json").write_text(json.dumps(index))
    return root


def fill(root: Path) -> None:
    """What a person writes: wrapper, config, oracle, two parity tests, port.toml, the pipeline's text encoder."""
    own = root / f"tests/local_tests/{SLUG}"
    put(root / f"fastvideo/models/encoders/{SLUG}_text_encoder.py", NATIVE)
    put(root / f"fastvideo/configs/models/encoders/{SLUG}_text_encoder.py", CONFIG)
    put(root / f"tests/local_tests/encoders/test_{SLUG}_text_encoder_parity.py", TEST)
    put(root / f"tests/local_tests/encoders/test_{SLUG}_text_encoder_connector_parity.py", PART)
    between(own / "oracle.py", "def build_text_encoder(", "def build_scheduler(", ORACLE.lstrip() + "\n\n")
    between(own / "port.toml", "[components.text_encoder]", "[components.scheduler]", COMPONENTS)
    pipeline = root / f"fastvideo/configs/pipelines/{SLUG}.py"
    text = pipeline.read_text()
    for old, new in PIPELINE.items():
        assert old in text, old
        text = text.replace(old, new)
    pipeline.write_text(text)


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def between(file: Path, start: str, stop: str, new: str) -> None:
    text = file.read_text()
    file.write_text(text[: text.index(start)] + new + text[text.index(stop) :])


def items(root: Path, check: str) -> dict[str, Any]:
    """{item: its JSON} of a check's record."""
    record = json.loads((root / f".fvport/evidence/{SLUG}/{check}.json").read_text())
    return {item["name"]: item for item in record["items"]}
