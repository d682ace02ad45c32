# SPDX-License-Identifier: Apache-2.0
"""`fvport variant add`: another release of a port's model, with pipeline, pipeline config, preset and example.

Nothing that is there is changed but port.toml and the docs page, which get a part more. What the release says is read
(its scheduler's shift, its precision); what only people know, such as its steps and guidance, is given as key=value.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fvport import portfile
from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.scaffold import calls, context, finish, new, render, validate
from fvport.scaffold.context import PortContext
from fvport.scaffold.literals import oneline, tomlkey, tomlrepr
from fvport.spec import Port
from fvport.weights.layout import Inspection
from fvport.words import camel

SLUG = "{{cookiecutter.model_slug}}"  # the template's folder, and its files' names
WHOLE = 8  # a distilled model's own steps are few enough to be the gate's, up to these
SOURCE = "given when the variant was added"


@dataclass
class VariantContext(PortContext):
    """What a template sees of a variant: `slug` names its files and classes, `port_slug` the port's."""

    port_slug: str = ""
    variant: str = ""

    @property
    def family(self) -> str:
        return self.port_slug

    @property
    def preset(self) -> str:
        return self.slug


@dataclass
class Added:
    """What was written, relative to the port, and what to type now."""

    name: str
    files: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)  # components whose configs or files are not the base's
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def text(self) -> str:
        lines = [f"variant {self.name}: {len(self.files)} files", *(f"  {name}" for name in self.files)]
        lines += [f"  - {note}" for note in self.notes]
        return "\n".join(
            [*lines, "", "Next:", "  nox -s prep workspace  # its weights locked, its pipeline registered"]
        )


def parse(words: Sequence[str]) -> list[tuple[str, Path, list[str]]]:
    """`NAME=FOLDER[,key=value...]` words of `fvport new --variant`. UsageError for what is none."""
    found = []
    for word in words:
        place, *values = word.split(",")
        name, sign, folder = place.partition("=")
        if not sign or not name or not folder:
            todo = "Such as: --variant distilled=path/to/release,num_inference_steps=4,guidance_scale=1.0"
            raise UsageError(f'"{word}" is not NAME=FOLDER', where="--variant", todo=todo)
        if not Path(folder).expanduser().exists():
            raise BlockedError(
                "there is no release here", where=folder, todo="Name the folder of the variant's release"
            )
        found.append((name, Path(folder).expanduser(), values))
    return found


def given(words: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as a preset's values. UsageError for what is none, or no argument of the official call."""
    found: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not text:
            raise UsageError(f'"{word}" is not key=value', todo="Such as: num_inference_steps=4 guidance_scale=1.0")
        if key not in known:
            what = f'the official call has no argument "{key}" (it has: {", ".join(known)}).{did_you_mean(key, known)}'
            raise UsageError(what)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if not isinstance(value, int | float | str | bool):
            raise UsageError(f'{key}: "{text}" is no number and no text')
        found[key] = value
    return found


def add(
    port: Port, name: str, folder: Path, words: Sequence[str] = (), hub_id: str = "", source: str = SOURCE
) -> Added:
    """Write the variant's files, its part of port.toml and of the docs page, and link its release.

    Raises UsageError for a name or value that cannot be, BlockedError where the release is not there; then nothing is
    written.
    """
    if port.official.needs_conversion:
        what = "the port's release is converted, and a variant of such a one is declared by hand"
        raise UsageError(
            what, where=str(port.file), todo="Add [[variants]] to port.toml, and its files beside the base's"
        )
    if not folder.exists():
        raise BlockedError(
            "there is no release here", where=str(folder), todo="Name the folder of the variant's release"
        )
    p = _context(port, name, folder)
    _is_the_same_model(port, p)
    values = given(words, sorted({*p.defaults, *port.presets.get("default", {}), *port.official.pipeline.call}))
    p.defaults = _defaults(port, p) | {key: (value, source) for key, value in values.items()}
    p.call = {**port.official.pipeline.call, **_call(values)}
    files = _files(port, p)
    if there := [file for file in files if (port.root / file).exists()]:
        raise UsageError(f"{there[0]} is there already", where=name, todo="Choose another name for the variant")
    weights = hub_id or f"official_weights/{p.slug}"
    files[_relative(port, port.file)] = _declared(port, p, weights, values, source)
    page = port.root / "docs" / "inference" / f"{port.slug}.md"
    if page.is_file():
        files[_relative(port, page)] = page.read_text(encoding="utf-8").rstrip("\n") + _section(port, p)
    portfile.of_text(port.file, files[_relative(port, port.file)])  # said before anything is written
    for file, text in files.items():
        (port.root / file).parent.mkdir(parents=True, exist_ok=True)
        (port.root / file).write_text(text, encoding="utf-8", newline="\n")
    finish.link(port.root / "official_weights" / p.slug, folder.resolve())
    return Added(name, sorted(files), _own(port, p), _notes(p, values))


def _context(port: Port, name: str, folder: Path) -> VariantContext:
    """The bake's own reading of the release, under the variant's name."""
    modes = ",".join(f"{c.name}={c.mode}" for c in port.components.values() if c.kind not in ("tokenizer", "processor"))
    answers = dict.fromkeys((*validate.KEYS, *validate.GIVEN), "")
    answers |= {"model_name": f"{port.port.model} {name}", "model_slug": f"{port.slug}_{name}", "components": modes}
    answers |= {"official_weights": str(folder.resolve()), "workload_type": port.port.workload_types[0]}
    answers |= {"gate_device": port.gate.require_device}
    p = context.build(answers, port.root)
    read = {one.name: getattr(p, one.name) for one in fields(p)}
    made = VariantContext(**read, port_slug=port.slug, variant=name)
    pipeline = port.official.pipeline
    made.prompts, made.seeds = list(pipeline.prompts) or made.prompts, list(pipeline.seeds) or made.seeds
    made.negative_prompt = pipeline.negative_prompt
    return made


def _is_the_same_model(port: Port, p: VariantContext) -> None:
    """One port is one set of classes: a release of other components is another port."""
    theirs = {c.name: c.official_class for c in p.components}
    ours = {name: c.official.rpartition(":")[2] for name, c in port.components.items()}
    for name in sorted(set(ours) | set(theirs)):
        if name not in theirs or name not in ours:
            who = "the variant" if name not in theirs else "the port"
            raise UsageError(
                f"{who} has no component {name}", where=p.variant, todo="Bake a port of its own: fvport new"
            )
        if ours[name] and theirs[name] != ours[name]:
            what = f"{name} is {theirs[name]} in the variant, {ours[name]} in the port"
            raise UsageError(what, where=p.variant, todo="Bake a port of its own: fvport new")
    base = port.official.pipeline.cls.rpartition(":")[2]
    if p.official_pipeline and base and p.official_pipeline != base:
        p.unknown.append(f"its official pipeline is {p.official_pipeline}, the base's {base}: oracle.py must run both")


def _defaults(port: Port, p: VariantContext) -> dict[str, tuple[Any, str]]:
    """The base's defaults; where the pipeline is another class, that class's own."""
    base = {key: (value.value, value.source) for key, value in port.presets.get("default", {}).items()}
    other = p.official_pipeline and p.official_pipeline != port.official.pipeline.cls.rpartition(":")[2]
    return {**base, **p.defaults} if other or not base else base


def _call(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the gate's call takes over: all but sizes and lengths, which are the base's, and steps if they are few."""
    return {
        key: value
        for key, value in values.items()
        if key in calls.GATE_KEYS
        and key not in ("height", "width", "num_frames")
        and not (key == "num_inference_steps" and value > WHOLE)
    }


# --- what is written -------------------------------------------------------------------------------------------------


def _files(port: Port, p: VariantContext) -> dict[str, str]:
    slug, key = port.slug, p.slug
    pipelines, tree = f"fastvideo/pipelines/basic/{slug}", _tree()
    found = {
        f"fastvideo/configs/pipelines/{key}.py": _text("variant/config.py.jinja", p),
        f"{pipelines}/{key}_pipeline.py": _text("variant/pipeline.py.jinja", p),
    }
    for name, path in (
        (f"{pipelines}/presets_{p.variant}.py", f"fastvideo/pipelines/basic/{SLUG}/presets.py"),
        (f"examples/inference/basic/basic_{key}.py", f"examples/inference/basic/basic_{SLUG}.py"),
        (f"fastvideo/tests/ssim/test_{key}_similarity.py", f"fastvideo/tests/ssim/test_{SLUG}_similarity.py"),
    ):
        found[name] = tree.get_template(path).render(p=p)
    folder = f"tests/local_tests/{slug}/variants/{p.variant}"
    found[f"{folder}/inspection.json"] = p.inspection_json
    return found


def _text(template: str, p: VariantContext) -> str:
    """One of the variant's own parts, with the port's class names at hand."""
    text: str = render.environment().get_template(template).render(p=p, base=camel(p.port_slug))
    return text


def _tree() -> Environment:
    """The fixed tree's templates, with the settings that a bake renders them with."""
    env = Environment(
        loader=FileSystemLoader(new.template_root() / SLUG),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters.update(render.FILTERS)
    return env


def _declared(port: Port, p: VariantContext, weights: str, values: Mapping[str, Any], source: str) -> str:
    """port.toml with one table more at its end."""
    lines = ["", "[[variants]]", f"name = {tomlrepr(p.variant)}", f"weights = {tomlrepr(weights)}"]
    base = port.official.pipeline.cls
    if p.official_pipeline and base and p.official_pipeline != base.rpartition(":")[2]:
        lines.append(f"pipeline = {tomlrepr(f'{p.library}:{p.official_pipeline}')}")
    if call := _call(values):
        lines.append(f"call = {tomlrepr(call)}  # what is otherwise than the base's")
    preset = {key: {"value": value, "source": source} for key, value in values.items()}
    lines += ["", "[variants.preset]", *(f"{tomlkey(key)} = {tomlrepr(value)}" for key, value in preset.items())]
    return port.file.read_text(encoding="utf-8").rstrip("\n") + "\n" + "\n".join(lines) + "\n"


def _section(port: Port, p: VariantContext) -> str:
    said = ", ".join(f"{oneline(key)} {value}" for key, (value, why) in p.defaults.items() if "__call__" not in why)
    return f"""

## Variant {p.variant}

The release `converted_weights/{p.slug}` has a pipeline, config and preset of its own (`{p.pipeline_class}`, preset
`{p.preset}`{": " + oneline(said) if said else ""}); code and components are the same.

```bash
python examples/inference/basic/basic_{p.slug}.py --output outputs
```
"""


def _own(port: Port, p: VariantContext) -> list[str]:
    """Components whose config is not the base's, as the inspections say it; weights are told by `prep`."""
    file = port.folder / "inspection.json"
    base = Inspection.load(file).components if file.is_file() else {}
    infos = p.inspection.components if p.inspection else {}
    return sorted(name for name, info in infos.items() if name in base and info.config != base[name].config)


def _notes(p: VariantContext, values: Mapping[str, Any]) -> list[str]:
    lacking = [key for key in ("num_inference_steps", "guidance_scale") if key not in values and key in p.defaults]
    notes = (
        [f"{' and '.join(lacking)} as the base has it: give key=value where the variant's is another"]
        if lacking
        else []
    )
    base = [text for text in p.unknown if text.startswith("its official pipeline")]
    return notes + base


def _relative(port: Port, path: Path) -> str:
    return path.relative_to(port.root).as_posix()
