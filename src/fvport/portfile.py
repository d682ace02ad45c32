# SPDX-License-Identifier: Apache-2.0
"""Reading port.toml: finds the file, turns its tables into `spec`'s dataclasses, and refuses what it does not know.

Every complaint names the file, the line and the key, and suggests the word that was probably meant.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.spec import (
    DEVICES,
    LOOSEST_DISTANCE,
    METRICS,
    SOUND_METRICS,
    Component,
    FastVideoSource,
    Gate,
    Official,
    OfficialPipeline,
    Port,
    PortInfo,
    PresetValue,
    Quality,
    Variant,
    Waiver,
)
from fvport.words import CHECKS, KINDS, WORKLOADS, wrong_mode

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the gate's environment is 3.11 or later
    import tomli as tomllib

TAKEN = ("base", "default")  # no variant's name: the port's without them, and its preset's
SCHEMA = 1  # of port.toml; `upgrade.STEPS` leads here from the ones before


def find_port_file(root: Path) -> Path:
    """The one port.toml under `root` (or a parent of it); `FVPORT_SLUG` chooses where several ports share a tree."""
    root = root.resolve()
    for folder in (root, *root.parents):
        if folder.name and (folder / "port.toml").is_file() and folder.parent.name == "local_tests":
            return folder / "port.toml"
        found = sorted(folder.glob("tests/local_tests/*/port.toml"))
        slug = os.environ.get("FVPORT_SLUG", "")
        if slug and found:
            found = [file for file in found if file.parent.name == slug]
            if not found:
                raise UsageError(f'FVPORT_SLUG is "{slug}" but {folder} has no port of that name')
        if len(found) > 1:
            names = ", ".join(file.parent.name for file in found)
            raise UsageError(
                f"several ports on this tree ({names})", where=str(folder), todo="Choose one with FVPORT_SLUG"
            )
        if found:
            return found[0]
    raise BlockedError("no port here (tests/local_tests/*/port.toml)", where=str(root), todo="Bake one: fvport new")


def parse(file: Path) -> Port:
    """Parse one port.toml file (lying at `<root>/tests/local_tests/<slug>/port.toml`)."""
    try:
        text = file.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read ({error})", where=str(file)) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML ({error})", where=str(file)) from None
    return _whole(file, text, raw)


def of_text(file: Path, text: str) -> Port:
    """What `parse` would give if `file` held this text: a declaration is tried before it is written."""
    try:
        return _whole(file, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML ({error})", where=str(file)) from None


def _whole(file: Path, text: str, raw: dict[str, Any]) -> Port:
    port = _Reader(file, text).port(raw)
    _check_whole(port, _Reader(file, text))
    return port


class _Reader:
    """Turns TOML tables into dataclasses; every complaint names the file, the line and the key."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.lines = file, text.splitlines()

    def fail(self, key: str, what: str) -> typing.NoReturn:
        raise UsageError(f"{key}: {what}", where=f"{self.file}:{self.line_of(key)}")

    def line_of(self, dotted: str) -> int:
        """Best line for a dotted key: inside its table header when there is one, else the first line naming it."""
        *table, key = re.sub(r"\[\d+\]", "", dotted).split(".")
        start = 0
        for depth in range(len(table), 0, -1):
            header = re.compile(r"\s*\[+\s*" + r"\s*\.\s*".join(map(re.escape, table[:depth])) + r"\s*\]")
            found = next((n for n, line in enumerate(self.lines) if header.match(line)), None)
            if found is not None:
                start = found
                break
        word = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        for number, line in enumerate(self.lines[start:], start + 1):
            if word.search(line):
                return number
        return start + 1

    def port(self, raw: dict[str, Any]) -> Port:
        tables = {"port": PortInfo, "fastvideo": FastVideoSource, "quality": Quality, "gate": Gate}
        known = ["schema", *tables, "official", "components", "variants", "presets", "waivers"]
        for key in raw:
            if key not in known:
                self.fail(key, f"unknown key.{did_you_mean(key, known)}")
        if raw.get("schema") != SCHEMA:
            older = isinstance(raw.get("schema", 0), int) and raw.get("schema", 0) < SCHEMA
            todo = "run: fvport upgrade" if older else "install the fvport that the port's noxfile.py pins"
            self.fail("schema", f"must be {SCHEMA}, is {raw.get('schema')!r} ({todo})")
        for key in ("port", "official", "components"):
            if key not in raw:
                self.fail(key, "this section is missing")
        values: dict[str, Any] = {k: self.table(k, cls, raw.get(k, {})) for k, cls in tables.items()}
        for key in ("components", "presets"):
            for name, value in self.dict(key, raw.get(key, {})).items():
                self.dict(f"{key}.{name}", value)
        return Port(
            root=self.file.parent.parent.parent.parent,
            file=self.file,
            schema=SCHEMA,
            official=self.table("official", Official, raw["official"]),
            components={
                name: self.table(f"components.{name}", Component, {"name": name, **table})
                for name, table in raw["components"].items()
            },
            variants=tuple(self.table(f"variants[{i}]", Variant, t) for i, t in enumerate(raw.get("variants", []))),
            presets={
                name: {k: self.table(f"presets.{name}.{k}", PresetValue, v) for k, v in table.items()}
                for name, table in raw.get("presets", {}).items()
            },
            waivers=tuple(self.table(f"waivers[{i}]", Waiver, t) for i, t in enumerate(raw.get("waivers", []))),
            raw=raw,
            **values,
        )

    def dict(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(key, f"must be a table, is {_type_name(value)}")
        return value

    def table(self, key: str, cls: type, raw: Any) -> Any:
        raw = dict(self.dict(key, raw))
        if cls is OfficialPipeline and "class" in raw:
            raw["cls"] = raw.pop("class")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        hints = typing.get_type_hints(cls)
        for name in raw:
            if name not in fields:
                shown = ["class" if f == "cls" else f for f in fields]
                self.fail(f"{key}.{name}", f"unknown key.{did_you_mean(name, shown)}")
        for name, f in fields.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in raw:
                self.fail(f"{key}.{name}", "is missing")
        return cls(**{name: self.value(f"{key}.{name}", hints[name], value) for name, value in raw.items()})

    def value(self, key: str, hint: Any, value: Any) -> Any:
        if hint is Any:
            return value
        if dataclasses.is_dataclass(hint):
            return self.table(key, typing.cast(type, hint), value)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Literal:
            if value not in args:
                words = ", ".join(map(str, args))
                self.fail(key, f"must be one of {words}; is {value!r}.{did_you_mean(str(value), args)}")
            return value
        if origin is tuple:
            if not isinstance(value, list):
                self.fail(key, f"must be a list, is {_type_name(value)}")
            return tuple(self.value(f"{key}[{i}]", args[0], item) for i, item in enumerate(value))
        if origin is dict:
            return {k: self.value(f"{key}.{k}", args[1], v) for k, v in self.dict(key, value).items()}
        if origin in (typing.Union, types.UnionType):
            return value
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is not hint:
            self.fail(key, f"must be {hint.__name__}, is {_type_name(value)}")
        return value


def _type_name(value: Any) -> str:
    names: dict[type, str] = {dict: "a table", list: "a list"}
    return names.get(type(value), type(value).__name__)


def _check_whole(port: Port, reader: _Reader) -> None:
    """What no single key can tell: words from closed lists, and values that must agree."""
    if port.slug != port.folder.name:
        reader.fail("port.slug", f'is "{port.slug}" but the folder is "{port.folder.name}"')
    for workload in port.port.workload_types:
        if workload not in WORKLOADS:
            reader.fail("port.workload_types", f'unknown "{workload}".{did_you_mean(workload, WORKLOADS)}')
    for check in port.gate.checks:
        if check not in CHECKS:
            reader.fail("gate.checks", f'unknown check "{check}".{did_you_mean(check, CHECKS)}')
    _check_limits(port, reader)
    if not port.components:
        reader.fail("components", "a port needs at least one component")
    for name, component in port.components.items():
        _check_component(f"components.{name}", component, reader)
    if Path(port.official.weights).is_absolute():
        reader.fail("official.weights", "must be relative to the port (fvport prep links a local folder there)")
    inside = Path(port.official.import_root)
    if inside.is_absolute() or ".." in inside.parts:
        reader.fail("official.import_root", "must lie inside the official code")
    for i, waiver in enumerate(port.waivers):
        if waiver.check not in CHECKS:
            reader.fail(f"waivers[{i}].check", f'unknown check "{waiver.check}".{did_you_mean(waiver.check, CHECKS)}')


def _check_limits(port: Port, reader: _Reader) -> None:
    """Numbers and words that a check compares with: one out of range would shut the gate for ever, or never."""
    quality, gate = port.quality, port.gate
    for key, value, words in (
        ("quality.metric", quality.metric, METRICS),
        ("gate.require_device", gate.require_device, DEVICES),
    ):
        if value not in words:
            reader.fail(key, f'must be one of {", ".join(words)}; is "{value}".{did_you_mean(value, words)}')
    if not 0 < quality.threshold <= 1:
        reader.fail("quality.threshold", f"must be above 0 and at most 1, is {quality.threshold:g}")
    _check_sound(quality, reader)
    if not 0 < gate.strength <= 1:
        reader.fail("gate.strength", f"must be above 0 and at most 1, is {gate.strength:g}")
    _check_variants(port, reader)


def _check_variants(port: Port, reader: _Reader) -> None:
    """A variant's name becomes part of files, classes and folders; its release is not the base's or another's."""
    names = [variant.name for variant in port.variants]
    folders = [port.official.weights, *(variant.weights for variant in port.variants)]
    for i, variant in enumerate(port.variants):
        key = f"variants[{i}]"
        if not variant.name.strip() or variant.name in names[:i]:
            reader.fail(f"{key}.name", f'must be a name that no other variant has, is "{variant.name}"')
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", variant.name) or variant.name in TAKEN:
            what = (
                f"must be small letters, digits and single underscores, a letter first, and none of {', '.join(TAKEN)}"
            )
            reader.fail(f"{key}.name", f'{what}; is "{variant.name}"')
        if not variant.weights.strip() or Path(variant.weights).is_absolute():
            reader.fail(f"{key}.weights", "must be a hub id, or a folder relative to the port")
        if variant.weights in folders[: i + 1]:
            what = f'"{variant.weights}" is the release of {"the base" if variant.weights == folders[0] else "another"}'
            reader.fail(f"{key}.weights", f"{what}: a variant has a release of its own")
        if variant.pipeline and not re.fullmatch(r"[\w.]+:[\w.]+", variant.pipeline):
            reader.fail(f"{key}.pipeline", f'must be "module:Class", is "{variant.pipeline}"')
    for i, waiver in enumerate(port.waivers):
        if waiver.variant and waiver.variant not in names:
            reader.fail(f"waivers[{i}].variant", f'no variant "{waiver.variant}".{did_you_mean(waiver.variant, names)}')


def _check_sound(quality: Quality, reader: _Reader) -> None:
    """Distances of sounds: 0 is equal, so a limit made for a similarity (0.98) would let another sound pass."""
    if quality.audio_metric and quality.audio_metric not in SOUND_METRICS:
        words = ", ".join(SOUND_METRICS)
        reader.fail("quality.audio_metric", f'must be one of {words}, or empty; is "{quality.audio_metric}"')
    limits = [("quality.threshold", quality.threshold)] if quality.metric in SOUND_METRICS else []
    for key, limit in [*limits, ("quality.audio_threshold", quality.audio_threshold)]:
        if not 0 < limit <= LOOSEST_DISTANCE:
            most = f"must be above 0 and at most {LOOSEST_DISTANCE:g} (a distance of sounds: 0 is equal)"
            reader.fail(key, f"{most}, is {limit:g}")


def _check_component(key: str, component: Component, reader: _Reader) -> None:
    if component.kind not in KINDS:
        words = ", ".join(KINDS)
        reader.fail(f"{key}.kind", f'unknown "{component.kind}" ({words}).{did_you_mean(component.kind, KINDS)}')
    if component.mode in ("port", "reuse"):
        for name in ("official", "native"):
            if not re.fullmatch(r"[\w.]+:[\w.]+", getattr(component, name)):
                reader.fail(f"{key}.{name}", f'must be "module:Class", is "{getattr(component, name)}"')
    if problem := wrong_mode(component.kind, component.mode):
        reader.fail(f"{key}.mode", f"{problem}. Say port or reuse")
    if component.mode == "external" and not component.reason.strip():
        reader.fail(f"{key}.reason", "an external wrapper needs a written reason")
    _check_external(key, component, reader)
    tolerance = component.tolerance
    if tolerance.mode == "fixed" and not (tolerance.reason and (tolerance.atol > 0 or tolerance.rtol > 0)):
        reader.fail(f"{key}.tolerance", "a fixed tolerance needs atol or rtol, and a written reason")
    if tolerance.mode == "calibrated" and tolerance.factor > 3 and not tolerance.reason.strip():
        reader.fail(f"{key}.tolerance.factor", "more than 3 times the floor needs a written reason")
    if tolerance.mode == "calibrated" and not 1 <= tolerance.factor <= 10:
        reader.fail(f"{key}.tolerance.factor", f"must be between 1 and 10, is {tolerance.factor:g}")


def _check_external(key: str, component: Component, reader: _Reader) -> None:
    """A hybrid wrapper says where the other library's model lies and how it is told; a part says what it is part of."""
    external, field = component.external, component.external_field
    if component.mode != "external":
        for name in ("external", "external_field", "part"):
            if getattr(component, name):
                reader.fail(f"{key}.{name}", f"is for mode external, and this is {component.mode}")
        return
    if external:
        folder = component.weights or component.name
        inside, named = external.removeprefix(f"{folder}/"), re.fullmatch(r"model_index:\w+", external)
        if not named and (inside == external or not re.fullmatch(r"[\w.-]+", inside) or inside in (".", "..")):
            reader.fail(f"{key}.external", f'must be "{folder}/NAME" or "model_index:FIELD", is "{external}"')
        if not re.fullmatch(r"[\w.]+:[\w.]+", component.native):
            reader.fail(f"{key}.native", f'a hybrid wrapper is a class, "module:Class"; is "{component.native}"')
        if not re.fullmatch(r"\w+", field):
            reader.fail(f"{key}.external_field", "must name the arch config field that gets the external folder")
    elif field:
        reader.fail(f"{key}.external_field", "needs external: the folder that it is about")
    if component.part and (not component.weights or component.scope != "implementation_subcomponent"):
        what = 'needs weights (the folder of the whole) and scope = "implementation_subcomponent"'
        reader.fail(f"{key}.part", what)
