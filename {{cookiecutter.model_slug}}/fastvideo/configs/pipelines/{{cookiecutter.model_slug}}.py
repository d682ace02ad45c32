# SPDX-License-Identifier: Apache-2.0
{% set encoders = p.text_encoders | selectattr("config_class") | list %}
{% set images = p.image_encoders | selectattr("config_class") | list %}
{% set vae = p.vae if p.vae and p.vae.config_class else none %}
{% set upsamplers = p.ported | selectattr("kind", "equalto", "upsampler") | list %}
{% set precisions = [] %}
{% for c in encoders %}
{% set _ = precisions.append(c.precision or "fp32") %}
{% endfor %}
{% set wan_text = encoders and p.official_pipeline.startswith("Wan") %}
{% set shift = none %}
{% if p.scheduler and not p.scheduler.config.get("use_dynamic_shifting") %}
{% set shift = p.scheduler.config.get("flow_shift", p.scheduler.config.get("shift")) %}
{% endif %}
{% set repeat = " * " ~ (encoders | length) if encoders | length > 1 else "" %}
"""Configuration of {{ p.pipeline_class }}: its components, and the defaults of the official pipeline and checkpoint."""
{% if wan_text %}
import html
import re
{% endif %}
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fastvideo.configs.models import DiTConfig, EncoderConfig{{ ", VAEConfig" if vae else "" }}
from {{ p.dit.config_module }} import {{ p.dit.config_class }}
from fastvideo.configs.models.encoders import BaseEncoderOutput
{% for c in (encoders + images) | unique(attribute="config_class") %}
from {{ c.config_module }} import {{ c.config_class }}
{% endfor %}
{% if vae %}
from {{ vae.config_module }} import {{ vae.config_class }}
{% endif %}
{% if upsamplers %}
from fastvideo.configs.models.upsamplers import UpsamplerConfig
{% for c in upsamplers | unique(attribute="config_class") %}
from {{ c.config_module }} import {{ c.config_class }}
{% endfor %}
{% endif %}
from fastvideo.configs.pipelines.base import PipelineConfig
{% if encoders %}

TEXT_LENGTH = {{ p.defaults.get("max_sequence_length", (512, ""))[0] }}  # {{ p.defaults.get("max_sequence_length", (512, "not known from the official call; FastVideo's own"))[1] }}


{% if wan_text %}
def clean_prompt(prompt: str) -> str:
    """The official pipeline's cleaning: repaired encoding, HTML entities resolved, runs of white space as one blank."""
    try:
        import ftfy
        prompt = ftfy.fix_text(prompt)
    except ImportError:  # optional for the official pipeline as well
        pass
    prompt = html.unescape(html.unescape(prompt)).strip()
    return re.sub(r"\s+", " ", prompt).strip()


def valid_tokens(outputs: BaseEncoderOutput) -> torch.Tensor:
    """Hidden states of the real tokens, zeros up to TEXT_LENGTH: (batch, TEXT_LENGTH, width)."""
    hidden, mask = outputs.last_hidden_state, outputs.attention_mask
    if hidden is None or mask is None:
        raise ValueError("the text encoder must return last_hidden_state and attention_mask")
    padded = hidden.new_zeros(hidden.shape[0], TEXT_LENGTH, hidden.shape[-1])
    for row, length in enumerate(mask.gt(0).sum(dim=1).tolist()):
        padded[row, :length] = hidden[row, :length]
    return padded
{% elif p.is_sd3 or p.is_stable_audio %}
def clean_prompt(prompt: str) -> str:
    """As it is: the official pipeline cleans nothing."""
    return prompt


def valid_tokens(outputs: BaseEncoderOutput) -> torch.Tensor:
    """The last state. The pipeline's own text stage takes what it needs of the encoders by itself."""
    if outputs.last_hidden_state is None:
        raise ValueError("the text encoder must return last_hidden_state")
    return outputs.last_hidden_state
{% else %}
# FVPORT-DECIDE: how {{ p.official_pipeline or "the official pipeline" }} cleans a prompt and which hidden states it hands on; this keeps the text as it is and takes the last state.
def clean_prompt(prompt: str) -> str:
    return prompt


def valid_tokens(outputs: BaseEncoderOutput) -> torch.Tensor:
    """The encoder's last hidden state: (batch, tokens, width)."""
    if outputs.last_hidden_state is None:
        raise ValueError("the text encoder must return last_hidden_state")
    return outputs.last_hidden_state
{% endif %}


def text_encoders() -> tuple[EncoderConfig, ...]:
{% if encoders | length == 1 %}
    return ({{ encoders[0].config_class }}(), )
{% else %}
    return (
{% for c in encoders %}
        {{ c.config_class }}(),
{% endfor %}
    )
{% endif %}
{% endif %}
{% if images | length > 1 %}


def image_encoders() -> tuple[EncoderConfig, ...]:
    return (
{% for c in images %}
        {{ c.config_class }}(),
{% endfor %}
    )
{% endif %}


{% if upsamplers %}
def upsamplers() -> tuple[UpsamplerConfig, ...]:
    return ({% for c in upsamplers %}{{ c.config_class }}(), {% endfor %})


{% endif %}
{% for c in p.components if c.mode == "external" and c.kind in ("vae", "text_encoder", "image_encoder") %}
# FVPORT-DECIDE: {{ c.name }} is external and has no config here: how does the pipeline load and call it?
{% endfor %}
@dataclass
class {{ p.pipeline_config_class }}(PipelineConfig):
    """Defaults are the official pipeline's and its checkpoint's; precisions are what the stages really compute in."""

    dit_config: DiTConfig = field(default_factory={{ p.dit.config_class }})
{% if vae %}
    vae_config: VAEConfig = field(default_factory={{ vae.config_class }})
{% endif %}
    vae_tiling: bool = False
    vae_sp: bool = False

{% if shift is not none %}
    flow_shift: float | None = {{ shift }}  # {{ p.scheduler.folder }}/scheduler_config.json
{% else %}
    flow_shift: float | None = None  # the checkpoint's scheduler keeps its own schedule
{% endif %}
{% if encoders %}

    text_encoder_configs: tuple[EncoderConfig, ...] = field(default_factory=text_encoders)
{% set ns = namespace(lengths=[]) %}
{% for c in encoders %}
{% set places = c.config.get("max_position_embeddings") %}
{% set ns.lengths = ns.lengths + [places | string if places is number and places < p.defaults.get("max_sequence_length", (512, ""))[0] else "TEXT_LENGTH"] %}
{% endfor %}
{% if ns.lengths | unique | list != ["TEXT_LENGTH"] %}
    # An encoder with fewer positions takes no more tokens than these.
    text_encoder_max_lengths: tuple[int, ...] = ({{ ns.lengths | join(", ") }}{{ ", " if ns.lengths | length == 1 }})
{% else %}
    text_encoder_max_lengths: tuple[int, ...] = (TEXT_LENGTH, ){{ repeat }}
{% endif %}
    preprocess_text_funcs: tuple[Callable[[str], str], ...] = (clean_prompt, ){{ repeat }}
    postprocess_text_funcs: tuple[Callable[[BaseEncoderOutput], torch.Tensor], ...] = (valid_tokens, ){{ repeat }}
{% else %}

    text_encoder_configs: tuple[EncoderConfig, ...] = ()
    preprocess_text_funcs: tuple[Callable[[str], str], ...] = ()
    postprocess_text_funcs: tuple[Callable[[BaseEncoderOutput], torch.Tensor], ...] = ()
{% endif %}
{% if upsamplers %}
    upsampler_config: tuple[UpsamplerConfig, ...] = field(default_factory=upsamplers)  # type: ignore[assignment]
{% endif %}
{% for c in images[:1] %}
    image_encoder_config: EncoderConfig = field(default_factory={{ c.config_class }})
{% endfor %}
{% if images | length > 1 %}
    image_encoder_configs: tuple[EncoderConfig, ...] = field(default_factory=image_encoders)
    image_encoder_precisions: tuple[str, ...] = ("fp32", ) * {{ images | length }}
{% endif %}

    # {{ "As most of the checkpoint's values are stored" if p.dit.precision else "FastVideo's own default (what the checkpoint stores is not known)" }}; the gate compares in fp32.
    dit_precision: str = "{{ p.dit.precision or "bf16" }}"
    # A VAE loses visible detail below fp32, so encode and decode stay there until decoded frames were compared.
    vae_precision: str = "fp32"
    vae_decode_precision: str | None = "fp32"
    text_encoder_precisions: tuple[str, ...] = {{ precisions | tuple | pyrepr }}
{% if vae %}

    def __post_init__(self) -> None:
        # Both halves, so that the load covers every tensor of the checkpoint.
        self.vae_config.load_encoder = True
        self.vae_config.load_decoder = True
        # FastVideo tiles large media by default; the official pipeline decodes the whole.
        self.vae_config.use_tiling = False
{% endif %}
