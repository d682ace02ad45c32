# SPDX-License-Identifier: Apache-2.0
"""Which native side each component of a release gets (reuse, archetype, skeleton), and what its files are called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fvport.errors import UsageError
from fvport.models import precisions
from fvport.scaffold import facts, library, native_side, skeleton, validate
from fvport.scaffold.skeleton import ask
from fvport.weights.kinds import kind_of
from fvport.weights.layout import ComponentInfo
from fvport.words import COPIED, KINDS, TEST_FOLDERS, module_name, wrong_mode

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

ASSUMED = {
    "transformer": "dit",
    "vae": "vae",
    "text_encoder": "text_encoder",
    "scheduler": "scheduler",
    "tokenizer": "tokenizer",
}
# An archetype says what its classes are called; a skeleton's are called by kind.
CLASS_NAMES = {
    "dit": "{prefix}Transformer3DModel",
    "vae": "{prefix}AutoencoderKL",
    "text_encoder": "{prefix}TextEncoder",
    "image_encoder": "{prefix}ImageEncoder",
    "audio_encoder": "{prefix}AudioEncoder",
    "conditioner": "{prefix}Conditioner",
    "scheduler": "{prefix}Scheduler",
    "upsampler": "{prefix}Upsampler",
    "vocoder": "{prefix}Vocoder",
}
PLACES = {  # kinds that are neither encoder, DiT, VAE nor scheduler: what FastVideo wants of them, and why
    "upsampler": "an nn.Module on an UpsamplerConfig, whose own fields FastVideo's UpsamplerLoader fills",
    "vocoder": "an nn.Module, to which FastVideo's VocoderLoader hands config.json; its config is a ModelConfig",
}
CONFIG_NAMES = {"dit": "{prefix}DiTConfig", "vae": "{prefix}VAEConfig"}


@dataclass
class ComponentContext:
    """One component as a template sees it (`c`). For mode `reuse`, native and config name FastVideo's own class."""

    name: str
    kind: str
    mode: str
    library: str = ""
    official_class: str = ""
    folder: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    archetype: str = ""
    native_module: str = ""
    native_class: str = ""
    config_module: str = ""
    config_class: str = ""
    arch_class: str = ""
    tokenizer: str = ""
    test_path: str = ""
    why: str = ""  # why this mode
    data: dict[str, Any] = field(default_factory=dict)  # the archetype's archetype.json

    @property
    def bucket(self) -> str:
        return KINDS.get(self.kind, "")

    @property
    def module_name(self) -> str:
        """The name that FastVideo's pipeline asks for."""
        return module_name(self.name, self.kind)

    @property
    def official(self) -> str:
        return f"{self.library}:{self.official_class}" if self.official_class else ""

    @property
    def native(self) -> str:
        return f"{self.native_module}:{self.native_class}" if self.native_class else ""

    @property
    def config_path(self) -> str:
        """`module:Class` of the config, as port.toml says it."""
        return f"{self.config_module}:{self.config_class}" if self.config_class else ""

    @property
    def native_file(self) -> str:
        return self.native_module.replace(".", "/") + ".py" if self.native_module else ""

    @property
    def config_file(self) -> str:
        return self.config_module.replace(".", "/") + ".py" if self.config_module else ""

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    @property
    def precision(self) -> str:
        """FastVideo's word for the dtype that most of the checkpoint's values are stored in; '' where none is known."""
        return precisions.stored(self.tensors.values())

    @property
    def passthrough(self) -> list[str]:
        """Patterns of keys that keep their name: those of the archetype that speak of this release's tensors."""
        found: list[str] = []
        if self.is_skeleton:
            made, _ = skeleton.of(self)
            return made.passthrough if made else found
        own = self.mode != "port" and not self.data.get("reuse_keeps_names")
        if not self.archetype or (own and library.get(self.archetype).can_port):
            return found  # FastVideo's own class brings its own rules
        for rule in self.data.get("passthrough", []):
            rule = {"pattern": rule} if isinstance(rule, str) else rule
            if rule["pattern"] in found:  # of two families of one archetype
                continue
            fits = all(self.config.get(key) for key in rule.get("when", []))
            if any(re.search(rule["pattern"], name) for name in self.tensors) if self.tensors else fits:
                found.append(rule["pattern"])
        return found

    @property
    def exclude(self) -> dict[str, str]:
        """{pattern: reason}: keys of this release that nothing loads."""
        given = self.data.get("exclude", {})
        return {p: why for p, why in given.items() if not self.tensors or any(re.search(p, n) for n in self.tensors)}

    def config_table(self, name: str) -> dict[str, str]:
        """`config_renamed` or `config_ignored` of the archetype, for the fields that this release's config has."""
        given = self.data.get(name, {})
        return {key: value for key, value in sorted(given.items()) if not self.config or key in self.config}

    @property
    def is_skeleton(self) -> bool:
        return self.mode == "port" and not self.archetype


def choose(p: PortContext, wanted: Mapping[str, str]) -> None:
    """Fill `p.components` in the release's order: the DiT first, then as the seeds order the work."""
    infos = list(p.inspection.components.values()) if p.inspection else []
    if infos:
        validate.known_components(wanted, [info.name for info in infos])
    infos = infos or assumed(p, wanted)
    if not any(info.kind == "dit" for info in infos):
        infos.append(ComponentInfo("transformer", "dit"))
        p.decisions.append("say which part of the release is the denoiser: a component transformer is assumed")
    order = list(KINDS)
    infos.sort(key=lambda info: order.index(info.kind) if info.kind in order else len(order))
    for info in infos:
        p.components.append(_component(p, info, wanted.get(info.name, "")))
    _name_all(p)
    for c in p.components:
        if c.is_skeleton and c.kind in skeleton.KINDS:
            made, why = skeleton.of(c)
            said = f"modules of {c.official_class} from its own tree, {len(made.decisions)} decisions" if made else why
            p.inferred.append(f"{c.name}: {said}" if made else f"{c.name}: its source is empty, for {said}")
    tokenizers = [info.name for info in infos if info.kind == "tokenizer"]
    for c in p.text_encoders:
        number = c.name.removeprefix("text_encoder")
        c.tokenizer = f"tokenizer{number}" if f"tokenizer{number}" in tokenizers else next(iter(tokenizers), "")


def assumed(p: PortContext, wanted: Mapping[str, str]) -> list[ComponentInfo]:
    """What a release has most often, where none was read; components that the user names are added."""
    names = dict(ASSUMED)
    for name in wanted:
        names.setdefault(name, kind_of(name)[0])
    p.unknown.append(f"The components ({', '.join(names)}) are assumed: they are what most releases have.")
    euler = ("diffusers", "FlowMatchEulerDiscreteScheduler")
    known = {"scheduler": euler}
    return [ComponentInfo(name, kind, *known.get(name, ("", "")), folder=name) for name, kind in names.items()]


def _component(p: PortContext, info: ComponentInfo, wanted: str) -> ComponentContext:
    c = ComponentContext(
        name=info.name,
        kind=info.kind,
        mode=wanted,
        library=info.library,
        official_class=info.cls,
        folder=info.folder,
        config=dict(info.config),
        tensors=dict(info.tensors),
        why="asked for" if wanted else "",
    )
    _check_name(c)
    side = native_side.of(c.official, info.cls, info.kind, c.config)
    archetype, differs = side.archetype, side.differs
    if info.kind in COPIED:
        if wanted not in ("", "passthrough"):
            raise UsageError(f'"{c.name}" is a {c.kind}: it is copied (passthrough)', where="components")
        c.mode, c.why = side.mode, side.why
    elif problem := wrong_mode(c.kind, wanted):
        raise UsageError(f'"{c.name}={wanted}": {problem}', where="components", todo=f"Say {c.name}=port or reuse")
    elif not wanted:
        c.mode, c.why = side.mode, side.why
    if wanted == "reuse" and not (side.known or (archetype and archetype.reuse(c.official))):
        todo = f"Say {c.name}=port, or leave it to auto"
        what = f"FastVideo registers no class with a config for {c.official or c.name}"
        raise UsageError(what, where="components", todo=todo)
    c.archetype = archetype.name if archetype and (c.mode != "port" or archetype.can_port) else ""
    c.data = archetype.data if archetype and c.archetype else {}
    c.library = c.data.get("libraries", {}).get(c.library, c.library)  # an index may name a library's own part
    if not wanted or (wanted == "reuse" and differs):
        p.inferred.append(f"{c.name}={c.mode}: {c.why if not wanted else f'asked for, although {differs}'}")
    if c.is_skeleton:
        c.library = ask.module(c.library)
    if c.kind in PLACES and c.mode == "port":
        p.inferred.append(_placed(c))
    return c


def _placed(c: ComponentContext) -> str:
    """In which folder of FastVideo a component of a kind of its own goes, and why."""
    named = f"; FastVideo loads it as {c.module_name}" if c.module_name != c.name else ""
    return f"{c.name} (kind {c.kind}): fastvideo/models/{c.bucket}, {PLACES[c.kind]}{named}"


def _check_name(c: ComponentContext) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", c.name) or not re.fullmatch(r"\w*:[\w.]*", f"{c.official_class}:{c.library}"):
        what = f"the component {c.name!r} ({c.official_class!r}) has a name that no Python file can carry"
        raise UsageError(what, where="model_index.json")


def _name_all(p: PortContext) -> None:
    """Module and class names. The slug alone where one file is in a bucket; the component's name is added otherwise."""
    named: list[ComponentContext] = []
    for c in p.components:
        if c.mode == "passthrough":
            continue
        folder = TEST_FOLDERS.get(c.bucket, c.bucket)
        c.test_path = f"tests/local_tests/{folder}/test_{p.slug}_{c.name}_parity.py"
        if c.mode == "reuse":
            _reused(c)
        elif c.mode == "port":
            twin = next((other for other in named if _same_architecture(other, c)), None)
            if twin:  # transformer and transformer_2 of one release: one native class, two sets of weights
                for key in ("native_module", "native_class", "config_module", "config_class", "arch_class"):
                    setattr(c, key, getattr(twin, key))
            else:
                _ported(p, c, named)
                named.append(c)


def _same_architecture(a: ComponentContext, b: ComponentContext) -> bool:
    return (a.kind, a.official, a.archetype, a.config) == (b.kind, b.official, b.archetype, b.config) and bool(a.config)


def _reused(c: ComponentContext) -> None:
    given = library.get(c.archetype).reuse(c.official) if c.archetype else {}
    known = {**facts.registered(c.official_class), **{k: v for k, v in given.items() if v}}
    c.native_module, _, c.native_class = known.get("native", "").partition(":")
    c.config_module, _, c.config_class = known.get("config", "").partition(":")
    c.arch_class = known.get("arch", "")


def _ported(p: PortContext, c: ComponentContext, named: list[ComponentContext]) -> None:
    taken = {name for other in named for name in (other.native_class, other.config_class, other.arch_class)}
    alone = not any(other.bucket == c.bucket for other in named) and _is_first(p, c)
    stem = p.slug if alone else f"{p.slug}_{c.name}"
    c.native_module = f"fastvideo.models.{c.bucket}.{stem}"
    c.config_module = f"fastvideo.configs.models.{c.bucket}.{stem}" if c.kind != "scheduler" else ""
    templates = _class_templates(c)
    names = [template.replace("{prefix}", p.prefix) for template in templates]
    if taken & {name for name in names if name}:
        longer = p.prefix + "".join(word[:1].upper() + word[1:] for word in c.name.split("_"))
        names = [template.replace("{prefix}", longer) for template in templates]
    c.native_class, c.config_class, c.arch_class = names
    known = facts.fastvideo()
    for name in names:
        if name in known["classes"] or name in known["config_classes"]:
            what = f'"{p.slug}" would make a class {name} for {c.name}, which FastVideo has already'
            raise UsageError(what, where="model_slug", todo=f'Choose another slug, such as "{p.slug}_port"')


def _is_first(p: PortContext, c: ComponentContext) -> bool:
    """True for the component that carries the bucket's plain name (`transformer`, `vae`, `text_encoder`)."""
    ported = [other for other in p.components if other.bucket == c.bucket and other.mode in ("port", "external")]
    return ported[0] is c


def _class_templates(c: ComponentContext) -> tuple[str, str, str]:
    if c.archetype:
        return library.get(c.archetype).class_templates(c.official)
    if c.kind == "scheduler":
        return CLASS_NAMES[c.kind], "", ""
    native = CLASS_NAMES[c.kind]
    config = CONFIG_NAMES.get(c.kind, f"{native}Config")
    return native, config, config.removesuffix("Config") + "ArchConfig"
