# SPDX-License-Identifier: Apache-2.0
"""port.toml as dataclasses: the one declaration that every check reads.

`load(root)` finds `tests/local_tests/<slug>/port.toml` under a port's root and gives a `Port`; `portfile` reads it and
refuses what it does not know. Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fvport.errors import UsageError, did_you_mean
from fvport.words import CHECKS, KINDS, TEST_FOLDERS

LAYOUTS = ("diffusers", "raw_official", "monolithic", "separate_components", "mixed", "custom")
PICTURE_METRICS, SOUND_METRICS = ("ssim", "ms_ssim"), ("mel_l1", "mr_stft")  # similarities, and distances
METRICS = PICTURE_METRICS + SOUND_METRICS
LOOSEST_DISTANCE = 0.5  # a threshold of a distance above this would let another sound pass
DEVICES = ("cuda", "cpu")
VARIANT = "FVPORT_VARIANT"  # the variant that a process is about; children inherit it


@dataclass(frozen=True)
class PortInfo:
    model: str
    slug: str
    workload_types: tuple[str, ...]
    reason: str = ""  # required where the workload is not one that FastVideo knows (v2v)


@dataclass(frozen=True)
class FastVideoSource:
    source: typing.Literal["wheel", "worktree", "clone"] = "wheel"
    version: str = "0.2.1"
    repo: str = ""
    ref: str = ""
    branch_prefix: str = "port"
    attention_backend: str = "TORCH_SDPA"  # what FASTVIDEO_ATTENTION_BACKEND is set to, whatever the shell says
    edits: dict[str, str] = field(default_factory=dict)  # FastVideo's own files that the port changes -> why
    fields: dict[str, str] = field(default_factory=dict)  # arguments of the call that FastVideo lacks -> their type


@dataclass(frozen=True)
class OfficialPipeline:
    cls: str = ""  # "class" in the file: "diffusers:WanPipeline", or "oracle:function"
    call: dict[str, Any] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    negative_prompt: str = ""
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Official:
    library: str = ""
    repo: str = ""
    commit: str = ""
    import_root: str = ""
    requirements: str = ""
    weights: str = ""
    revision: str = "main"
    allow: tuple[str, ...] = ()  # which files of a hub release are fetched (glob patterns); none: all
    ignore: tuple[str, ...] = ()  # which are not
    layout: typing.Literal["diffusers", "raw_official", "monolithic", "separate_components", "mixed", "custom"] = (
        "diffusers"
    )
    needs_conversion: bool = False
    pipeline: OfficialPipeline = field(default_factory=OfficialPipeline)


@dataclass(frozen=True)
class Tolerance:
    mode: typing.Literal["calibrated", "fixed"] = "calibrated"
    factor: float = 3.0
    atol: float = 0.0
    rtol: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class MappingReview:
    passthrough: tuple[str, ...] = ()  # regexes: keys that keep their name on purpose
    exclude: dict[str, str] = field(default_factory=dict)  # regex -> reason: official keys that nothing loads
    accept: dict[str, str] = field(default_factory=dict)  # "FV114 name-regex" -> reason: a lint finding that is right
    signed_by: str = ""
    signed_on: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Component:
    name: str
    kind: str
    mode: typing.Literal["port", "reuse", "passthrough", "external"]
    archetype: str = ""
    official: str = ""
    native: str = ""
    config: str = ""
    weights: str = ""
    scope: typing.Literal["production_loader", "implementation_subcomponent", "both"] = "both"
    tolerance: Tolerance = field(default_factory=Tolerance)
    tiny: dict[str, Any] = field(default_factory=dict)
    mapping: MappingReview = field(default_factory=MappingReview)
    tokenizer: str = ""
    path: str = ""
    reason: str = ""
    external: str = ""  # another library's model that a wrapper calls: `text_encoder/NAME`, or `model_index:FIELD`
    external_field: str = ""  # field of the arch config in which the production loader hands over its folder
    part: str = ""  # a submodule of what lies in `weights`, compared by itself (scope = implementation_subcomponent)
    config_renamed: dict[str, str] = field(default_factory=dict)  # official field -> native field
    config_ignored: dict[str, str] = field(default_factory=dict)  # official field (use_tiling, a precision) -> why not

    @property
    def bucket(self) -> str:
        """FastVideo's folder for this kind, such as `dits`; empty for a tokenizer."""
        return KINDS[self.kind]

    @property
    def has_weights(self) -> bool:
        return self.kind not in ("scheduler", "tokenizer", "processor")

    @property
    def hybrid(self) -> bool:
        """A wrapper that owns some weights (a connector) and calls another library's model for the rest."""
        return self.mode == "external" and bool(self.external)

    @property
    def owns_weights(self) -> bool:
        """Whether a native class loads tensors of the release for it: those are mapped and strictly checked."""
        return self.has_weights and (self.mode in ("port", "reuse") or self.hybrid)

    @property
    def needs_parity(self) -> bool:
        return self.mode != "passthrough"

    @property
    def native_file(self) -> str:
        """Path of the native class's file, relative to the port's root."""
        return self.native.partition(":")[0].replace(".", "/") + ".py"

    @property
    def native_class(self) -> str:
        return self.native.partition(":")[2]

    @property
    def config_file(self) -> str:
        return self.config.partition(":")[0].replace(".", "/") + ".py"


@dataclass(frozen=True)
class PresetValue:
    value: Any
    source: str


@dataclass(frozen=True)
class Variant:
    """Another release of the same model (distilled, refiner): a pipeline, pipeline config and preset of its own."""

    name: str
    weights: str  # folder, or hub id
    revision: str = "main"
    pipeline: str = ""  # "library:Class" of the official pipeline where it is another than the base's
    call: dict[str, Any] = field(default_factory=dict)  # what the gate's call has otherwise than the base's
    preset: dict[str, PresetValue] = field(default_factory=dict)  # what its defaults are otherwise than the base's


@dataclass(frozen=True)
class Quality:
    metric: str = "ssim"
    threshold: float = 0.98
    reference: typing.Literal["official", "approved"] = "official"
    store: str = "references/"
    tier: typing.Literal["default", "full_quality"] = "default"  # FastVideo's; a part of a reference's key
    audio_metric: str = ""  # of the sound that a video has: mel_l1 or mr_stft
    audio_threshold: float = 0.1


@dataclass(frozen=True)
class Gate:
    checks: tuple[str, ...] = CHECKS
    require_device: str = "cuda"
    require_scale: typing.Literal["full", "tiny"] = "full"
    strength: float = 0.95


@dataclass(frozen=True)
class Waiver:
    id: str
    check: str
    reason: str
    approved_by: str
    expires: datetime.date
    variant: str = ""  # of which variant's row; none: the base's


@dataclass(frozen=True)
class Port:
    """A parsed port.toml and where it lies. `root` is the folder that holds `fastvideo/` and `tests/`."""

    root: Path
    file: Path
    schema: int
    port: PortInfo
    fastvideo: FastVideoSource
    official: Official
    components: dict[str, Component]
    variants: tuple[Variant, ...] = ()
    presets: dict[str, dict[str, PresetValue]] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    gate: Gate = field(default_factory=Gate)
    waivers: tuple[Waiver, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    variant: str = ""  # of which variant this is the view (`of`); '' for the base

    @property
    def slug(self) -> str:
        return self.port.slug

    @property
    def key(self) -> str:
        """What the files and classes of this view are named by: the slug, with the variant's name behind it."""
        return f"{self.slug}_{self.variant}" if self.variant else self.slug

    @property
    def preset_name(self) -> str:
        return f"{self.slug}_{self.variant or 'default'}"

    @property
    def views(self) -> tuple[Port, ...]:
        """The same port on each variant's release."""
        return tuple(self.of(variant.name) for variant in self.variants)

    def of(self, name: str) -> Port:
        """This port as one variant has it: its release, call and preset; code and components are the port's.

        UsageError for a name that no variant has.
        """
        told = next((variant for variant in self.variants if variant.name == name), None)
        if told is None:
            known = [variant.name for variant in self.variants]
            what = f'no variant "{name}" (there are: {", ".join(known) or "none"}).{did_you_mean(name, known)}'
            raise UsageError(what, where=str(self.file))
        old = self.official.pipeline
        pipeline = replace(old, cls=told.pipeline or old.cls, call={**old.call, **told.call})
        official = replace(self.official, weights=told.weights, revision=told.revision, pipeline=pipeline)
        presets = {name: {**self.presets.get("default", {}), **told.preset}}
        plain = {key: {"value": value.value, "source": value.source} for key, value in presets[name].items()}
        said = dict(self.raw.get("official", {}))
        said |= {"weights": told.weights, "revision": told.revision}
        said["pipeline"] = {**said.get("pipeline", {}), "class": pipeline.cls, "call": pipeline.call}
        raw = {**self.raw, "official": said, "presets": {name: plain}, "base_call": old.call}
        raw.pop("variants", None)
        return replace(self, official=official, presets=presets, raw=raw, variant=name, variants=())

    @property
    def folder(self) -> Path:
        """`tests/local_tests/<slug>`: port.toml, oracle.py, PLAN.md and their like."""
        return self.file.parent

    @property
    def hub_id(self) -> str:
        """The hub id that `official.weights` is, or '' where it is a folder."""
        weights = self.official.weights
        local = weights.startswith(("official_weights/", ".", "/", "~")) or (self.root / weights).exists()
        return "" if local or not re.fullmatch(r"[\w.-]+/[\w.-]+", weights) else weights

    @property
    def official_weights(self) -> Path:
        """The official release's folder; a hub id is fetched to `official_weights/<slug>`."""
        return self.root / (f"official_weights/{self.key}" if self.hub_id else self.official.weights)

    @property
    def reference(self) -> Path | None:
        """The clone of the official repository, beside the port's files; None where the official code is a package."""
        name = reference_name(self.official.repo)
        return self.root / name if name else None

    @property
    def import_root(self) -> Path | None:
        """What goes on the official side's path: `official.import_root` inside the clone, else at the port's root."""
        root = self.official.import_root
        if self.reference is not None:
            return self.reference / root if root else self.reference
        return self.root / root if root else None

    @property
    def official_tree(self) -> Path:
        """The official weights in Diffusers layout: the release itself, or what `fvport convert` made of it."""
        if not self.official.needs_conversion:
            return self.official_weights
        return self.root / "converted_weights" / f"{self.key}.diffusers"  # the dot: no slug can be this

    @property
    def load_tree(self) -> Path:
        """`converted_weights/<slug>`: what the native side loads, never the official folder itself; a variant's is
        `<slug>_<variant>`.
        """
        return self.root / "converted_weights" / self.key

    @property
    def lock_file(self) -> Path:
        """port.lock.json: which bytes the official side is. A variant's lies in a folder of its own."""
        return (self.folder / "variants" / self.variant if self.variant else self.folder) / "port.lock.json"

    @property
    def state(self) -> Path:
        """`.fvport`: evidence, caches, scratch. Never committed. A variant's caches are its own."""
        home = self.root / ".fvport"
        return home / "variants" / self.variant if self.variant else home

    @property
    def untested(self) -> list[str]:
        """What port.toml declares and no check of this version looks at, in plain sentences."""
        found = [
            f"{name}: tiny is declared: fvport tiny reads it, and no check runs on a twin yet"
            for name, c in self.components.items()
            if c.tiny
        ]
        return found

    def test_file(self, component: Component) -> str:
        """Path of a component's parity test, relative to the root."""
        folder = TEST_FOLDERS.get(component.bucket, component.bucket)
        return f"tests/local_tests/{folder}/test_{self.slug}_{component.name}_parity.py"

    def component(self, name: str) -> Component:
        if name not in self.components:
            known = ", ".join(self.components)
            raise UsageError(
                f'no component "{name}" (there are: {known}).{did_you_mean(name, self.components)}',
                where=str(self.file),
            )
        return self.components[name]


def reference_name(repo: str) -> str:
    """Folder that a clone of `repo` gets at the port's root: the repository's name, or that with `_official` where a
    FastVideo tree has a folder so called; '' for no repository.
    """
    name = repo.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")
    if not name or name in (".", ".."):
        return "official_code" if repo else ""
    taken = ("fastvideo", "tests", "docs", "examples", "scripts", "docker", "references", "csrc", "assets")
    return f"{name}_official" if name.lower() in taken else name


def load(root: Path | str = ".") -> Port:
    """Parse the port.toml at or under `root`. Raises UsageError naming file, line and key for anything wrong in it."""
    from fvport.portfile import find_port_file

    root = Path(root)
    if not root.exists():
        raise UsageError("no such folder", where=str(root))
    return parse(find_port_file(root))


def parse(file: Path) -> Port:
    """Parse one port.toml file (lying at `<root>/tests/local_tests/<slug>/port.toml`); the view of FVPORT_VARIANT."""
    from fvport.portfile import parse as read

    port, name = read(file), os.environ.get(VARIANT, "")
    return port.of(name) if name else port


def base(port: Port) -> Port:
    """The port itself of a variant's view."""
    from fvport.portfile import parse as read

    return read(port.file) if port.variant else port


@contextlib.contextmanager
def seen_as(port: Port) -> Iterator[None]:
    """Whatever this process and its children load in here is this port's view: the variant's, or the base."""
    before = os.environ.get(VARIANT)
    os.environ[VARIANT] = port.variant
    try:
        yield
    finally:
        os.environ.pop(VARIANT) if before is None else os.environ.update({VARIANT: before})
