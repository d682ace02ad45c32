# SPDX-License-Identifier: Apache-2.0
"""Answers + inspected checkpoint -> the one object that every template of the port sees as `p`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import __version__
from fvport.errors import UsageError
from fvport.scaffold import calls, components, conversion, covered, facts, validate, workload
from fvport.scaffold.components import ComponentContext
from fvport.scaffold.literals import oneline
from fvport.weights import layout
from fvport.weights.layout import ComponentInfo, Inspection
from fvport.words import CHECKS, camel

SD3 = (("StableDiffusion3Pipeline", "t2i"), ("StableDiffusion3Img2ImgPipeline", "i2i"))
RENOISING = ("MediaLatentStage", "NoisedStartStage", "StrengthStage")
WORKLOAD_REASONS = {"v2v": "FastVideo 0.2.1 has no V2V workload: the port registers with an empty tuple"}


@dataclass
class PortContext:
    """Everything that a template may say about the port. Text in it is safe for comments and headings; `model_exact`
    is what the user typed."""

    model: str
    model_exact: str
    slug: str
    prefix: str
    workload: str
    hub_id: str
    revision: str
    official_repo: str
    official_commit: str
    fastvideo: dict[str, str]
    gate_device: str
    inspection: Inspection | None = None
    components: list[ComponentContext] = field(default_factory=list)
    official_pipeline: str = ""
    call: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, tuple[Any, str]] = field(default_factory=dict)
    fps: int = 16
    prompts: list[str] = field(default_factory=list)
    negative_prompt: str = ""
    seeds: list[int] = field(default_factory=lambda: [0])
    inferred: list[str] = field(default_factory=list)  # what the bake chose by itself, and why
    unknown: list[str] = field(default_factory=list)  # what nobody could know at bake time
    decisions: list[str] = field(default_factory=list)  # what a person must decide
    checkpoint: Path | None = None  # where the release lies on this machine; never written to a file
    repository: str = ""  # where this template came from, when that is a public address
    declaration: str = ""  # text of the conversion script that was given
    version: str = __version__

    @property
    def family(self) -> str:
        return self.slug

    @property
    def workloads(self) -> list[str]:
        return [self.workload]

    @property
    def workload_reason(self) -> str:
        return WORKLOAD_REASONS.get(self.workload, "")

    @property
    def pipeline_class(self) -> str:
        return f"{self.prefix}Pipeline"

    @property
    def pipeline_config_class(self) -> str:
        return f"{self.prefix}PipelineConfig"

    @property
    def checks(self) -> tuple[str, ...]:
        """What the gate asks for: everything, until a person takes something out."""
        return CHECKS

    @property
    def preset(self) -> str:
        return f"{self.slug}_default"

    @property
    def weights(self) -> str:
        return f"official_weights/{self.slug}"

    @property
    def library(self) -> str:
        return (self.inspection.pipeline_library if self.inspection else "") or "diffusers"

    @property
    def layout(self) -> str:
        return self.inspection.layout if self.inspection else "diffusers"

    @property
    def needs_conversion(self) -> bool:
        return bool(self.inspection and self.inspection.needs_conversion)

    @property
    def declarable(self) -> list[ComponentInfo]:
        """What a conversion script begins with: the components as they were inspected."""
        return list(self.inspection.components.values()) if self.inspection else []

    @property
    def skippable(self) -> dict[str, str]:
        """{SKIP pattern: reason}: what the inspection found to be no component's."""
        found = {}
        for aside in self.inspection.aside if self.inspection else ():
            if aside.role != "unowned" and (aside.prefix or aside.file):
                pattern = f"^{re.escape(aside.prefix)}" if aside.prefix else f"file:{aside.file}"
                found[pattern] = oneline(aside.why) or {"ema": "running average"}.get(aside.role, aside.role)
        return found

    def of_kind(self, kind: str) -> list[ComponentContext]:
        return [component for component in self.components if component.kind == kind]

    @property
    def dit(self) -> ComponentContext | None:
        return next(iter(self.of_kind("dit")), None)

    @property
    def vae(self) -> ComponentContext | None:
        return next(iter(self.of_kind("vae")), None)

    @property
    def scheduler(self) -> ComponentContext | None:
        return next(iter(self.of_kind("scheduler")), None)

    @property
    def text_encoders(self) -> list[ComponentContext]:
        return self.of_kind("text_encoder")

    @property
    def image_encoders(self) -> list[ComponentContext]:
        return self.of_kind("image_encoder")

    @property
    def image_processors(self) -> list[ComponentContext]:
        return [c for c in self.of_kind("processor") if "image" in c.name or "feature_extractor" in c.name]

    @property
    def takes_image(self) -> bool:
        """A call begins with an image, which the harness hands to both sides."""
        return self.workload in ("i2v", "i2i")

    @property
    def takes_video(self) -> bool:
        """A call begins with a video, which the harness hands to both sides."""
        return self.workload in ("v2v", "v2a")

    @property
    def new_fields(self) -> dict[str, str]:
        """{argument of the call that FastVideo 0.2.1 has no field for: its type}."""
        return {"strength": "float"} if "strength" in self.call else {}

    @property
    def frames_argument(self) -> str:
        """What the official call names num_frames; '' where it has that name."""
        return str(facts.pipeline(self.official_pipeline).get("frames", ""))

    @property
    def joins_image(self) -> bool:
        """Wan's way from image to video: mask and encoded picture are channels beside the noise. Its stages are known.

        Read from the configs (in_channels = noise + mask + picture), so that a release without these channels, or one
        with a last frame too, is a person's decision.
        """
        dit, vae = (c.config if c else {} for c in (self.dit, self.vae))
        if self.workload != "i2v" or not self.official_pipeline.startswith("Wan") or not dit:
            return False
        whole = _count(dit, "in_channels", 0)
        beside = _count(vae, "z_dim", 16) + _count(vae, "scale_factor_temporal", 4)
        return whole == _count(dit, "out_channels", whole) + beside and dit.get("pos_embed_seq_len") is None

    @property
    def is_sd3(self) -> bool:
        """Stable Diffusion 3 with all three text encoders: its stages are known. Dynamic shifting is a decision."""
        plain = self.dit is not None and self.dit.official_class == "SD3Transformer2DModel"
        named = (self.official_pipeline, self.workload) in SD3
        return named and plain and len(self.text_encoders) == 3 and not self.image_encoders

    @property
    def is_wan_v2v(self) -> bool:
        """Wan from video to video: the transformer of text to video, begun from a noised video."""
        named = self.official_pipeline == "WanVideoToVideoPipeline" and self.workload == "v2v"
        dit, vae = (c.config if c else {} for c in (self.dit, self.vae))
        plain = self.dit is not None and self.dit.official_class == "WanTransformer3DModel"
        return named and plain and _count(dit, "in_channels", 16) == _count(vae, "z_dim", 16)

    @property
    def renoises(self) -> bool:
        """Denoising begins from the call's own picture or video, noised as far as `strength` says. Stages are known."""
        return self.is_wan_v2v or (self.is_sd3 and self.workload == "i2i")

    @property
    def is_stable_audio(self) -> bool:
        """Stable Audio with one text encoder and a conditioner of text and seconds: its stages are known."""
        named = self.official_pipeline == "StableAudioPipeline" and self.workload == "t2a"
        plain = self.dit is not None and self.dit.official_class == "StableAudioDiTModel" and self.dit.mode == "port"
        return named and plain and len(self.text_encoders) == 1 and self.conditioner is not None

    @property
    def conditioner(self) -> ComponentContext | None:
        """The conditioner that is ported: the pipeline loads it by itself."""
        return next((c for c in self.of_kind("conditioner") if c.mode == "port"), None)

    @property
    def is_generated(self) -> bool:
        """The pipeline is written whole, and the checks pipeline, ssim and example have gone through one like it."""
        whole = self.joins_image or self.is_sd3 or self.is_stable_audio or self.is_wan_v2v
        return self.workload == "t2v" or whole

    @property
    def own_stages(self) -> dict[str, str]:
        """{stage of the port's own, beside the denoising one: its module}, in the order of the alphabet."""
        known = {f"{self.prefix}{name}": "noised_media" for name in RENOISING} if self.renoises else {}
        if self.is_sd3:
            both = dict.fromkeys((f"{self.prefix}ImageDecodingStage", f"{self.prefix}TextStage"), "text_and_image")
            return dict(sorted((both | known).items()))
        if self.is_stable_audio:
            ends = ("SoundDecodingStage", "SoundLatentStage", "TextAndSecondsStage")
            return dict.fromkeys((f"{self.prefix}{name}" for name in ends), "text_and_sound")
        if not self.joins_image:
            return known
        names = ("ImageEncodingStage", "ImageLatentStage") if self.image_encoders else ("ImageLatentStage",)
        return dict.fromkeys((f"{self.prefix}{name}" for name in names), "image_conditioning")

    @property
    def checked(self) -> list[ComponentContext]:
        """The components that parity compares (all but the passed-through ones)."""
        return [component for component in self.components if component.mode != "passthrough"]

    @property
    def ported(self) -> list[ComponentContext]:
        return [component for component in self.components if component.mode == "port"]

    @property
    def is_image(self) -> bool:
        return self.workload in ("t2i", "i2i")

    @property
    def is_audio(self) -> bool:
        return self.workload in ("t2a", "v2a")

    @property
    def inspection_json(self) -> str:
        """The bytes of inspection.json; an inspection without components where nothing was inspected."""
        empty = Inspection(layout="diffusers", reason="not inspected: the checkpoint was not there when this was baked")
        return (self.inspection or empty).dumps()

    @property
    def lock_json(self) -> str:
        """The bytes of port.lock.json at bake: files and sizes. `prep` adds the digests."""
        infos = self.inspection.components.values() if self.inspection else ()
        entries = {
            info.name: {"files": {f"{info.folder}/{n}": {"bytes": size} for n, size in info.files}} for info in infos
        }
        lock = {"schema": 1, "hub_id": self.hub_id, "revision": self.revision, "components": entries}
        return json.dumps(lock, indent=1, ensure_ascii=False) + "\n"


def build(given: Mapping[str, Any], cwd: Path, repository: str = "") -> PortContext:
    """Check the answers, read the checkpoint, choose what follows. UsageError or BlockedError; writes nothing."""
    answers = validate.answers(given)
    hub_id, path = validate.weights(_release(answers, cwd), cwd)
    inspection = read(path)
    inspection, declared = conversion.declared(inspection, path, answers["conversion"], cwd)
    p = PortContext(
        model=oneline(answers["model_name"]),
        model_exact=answers["model_name"].strip(),
        slug=answers["model_slug"],
        prefix=camel(answers["model_slug"]),
        workload="",
        hub_id=hub_id,
        revision=answers["official_revision"] or "main",
        official_repo=answers["official_repo"],
        official_commit=answers["official_commit"],
        fastvideo=validate.fastvideo(answers["fastvideo"]),
        gate_device=answers["gate_device"],
        inspection=inspection,
        checkpoint=path if path and not _is_inspection(path) else None,
        repository=repository,
        declaration=declared,
    )
    _names_are_free(p)
    _pipeline(p)
    workload.choose(p, answers["workload_type"])
    components.choose(p, validate.overrides(answers["components"]))
    calls.choose(p)
    _precision(p)
    covered.say(p)
    _say_what_is_unknown(p)
    return p


def _release(answers: Mapping[str, Any], cwd: Path) -> str:
    """The answer official_weights; in an update (cruft runs in the port) without that, its inspection.json."""
    text = str(answers["official_weights"]).strip()
    kept = cwd / "tests" / "local_tests" / str(answers["model_slug"]) / "inspection.json"
    if not text or not (cwd / ".cruft.json").is_file() or not kept.is_file() or "\0" in text:
        return text
    there = (cwd / Path(text).expanduser()).exists()
    return text if there or not Inspection.load(kept).components else str(kept)


def _is_inspection(path: Path) -> bool:
    return path.is_file() and path.suffix == ".json"


def read(path: Path | None) -> Inspection | None:
    """The inspection of a checkpoint, or the one in an inspection.json; None where nothing was inspected."""
    if path is None:
        return None
    found = Inspection.load(path) if _is_inspection(path) else layout.inspect(path)
    return found if found.components else None


def _names_are_free(p: PortContext) -> None:
    known = facts.fastvideo()
    taken = set(known["classes"]) | set(known["config_classes"]) | set(known["pipeline_classes"])
    for name in (p.pipeline_class, p.pipeline_config_class):
        if name in taken:
            what = f'"{p.slug}" would make a class {name}, which FastVideo has already'
            raise UsageError(what, where="model_slug", todo=f'Choose another slug, such as "{p.slug}_port"')


def _pipeline(p: PortContext) -> None:
    if p.inspection and p.inspection.pipeline_class:
        name, library = p.inspection.pipeline_class, p.inspection.pipeline_library
        if not name.isidentifier() or not re.fullmatch(r"[\w.]*", library):
            what = f"the pipeline {name!r} ({library!r}) has a name that no Python file can carry"
            raise UsageError(what, where="model_index.json")
        p.official_pipeline = name
    else:
        p.decisions.append("name the official pipeline's class in port.toml ([official.pipeline] class)")


def _precision(p: PortContext) -> None:
    for c in p.components:
        if c.kind in ("dit", "text_encoder") and c.tensors and not c.precision:
            stored = ", ".join(sorted({dtype for dtype, _ in c.tensors.values()}))
            own = "bf16" if c.kind == "dit" else "fp32"
            p.unknown.append(f"The weights of {c.name} are stored as {stored}: {own} as its precision is assumed.")


def _say_what_is_unknown(p: PortContext) -> None:
    if p.inspection is None:
        source = f"{p.hub_id} is a hub id and a bake never downloads" if p.hub_id else "no official weights were named"
        p.unknown.append(f"The checkpoint was not read ({source}): class names, configs and components are not known.")
        p.decisions.append(
            "put the checkpoint's folder in official_weights/"
            f"{p.slug} and bake again with official_weights=PATH (fvport new), which fills in the components"
        )
        return
    p.unknown += [f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in map(oneline, p.inspection.concerns)]
    if p.inspection.absent:
        p.inferred.append(f"the release leaves out {', '.join(p.inspection.absent)}")


def _count(config: dict[str, Any], key: str, default: int) -> int:
    """A number of a config; `default` where it is absent, null (a class may compute it) or no number at all."""
    value = config.get(key)
    return value if isinstance(value, int) else default
