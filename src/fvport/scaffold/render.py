# SPDX-License-Identifier: Apache-2.0
"""The files whose number follows the components: native classes, configs, oracle, parity tests, conversion script."""

from __future__ import annotations

import keyword
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from fvport.errors import UsageError
from fvport.scaffold import bytecode, encoder_facts, library, model_facts, skeleton
from fvport.scaffold.components import ComponentContext
from fvport.scaffold.context import PortContext
from fvport.scaffold.literals import oneline, pyrepr, tomlkey, tomlrepr


def arch_fields(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of dataclass fields with the values of an official config.json (private and foreign keys left out)."""
    found = []
    for key, value in config.items():
        if not re.fullmatch(r"[a-z]\w*", key) or keyword.iskeyword(key) or key in NOT_ARCHITECTURE:
            continue
        kind = "Any" if value is None else type(value).__name__
        used = 4 + len(f"{key}: {kind} = ")
        text = pyrepr(value, 4, used)
        if isinstance(value, (list, dict)):
            text = f"field(default_factory=lambda: {pyrepr(value, 4, used + 31)})"
        line = f"{key}: {kind} = {text}"
        if isinstance(value, dict) and "\n" in text:  # where the formatter would break such a dict nobody can foresee
            line = f"# yapf: disable\n    {line}\n    # yapf: enable"
        found.append({"line": line, "untyped": kind == "Any"})
    return found


NOT_ARCHITECTURE = (
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "model_type",
    "quantization_config",
)
FILTERS = {"pyrepr": pyrepr, "tomlrepr": tomlrepr, "tomlkey": tomlkey, "oneline": oneline, "tuple": tuple}
FILTERS["arch_fields"] = arch_fields
FILTERS |= encoder_facts.FILTERS | model_facts.FILTERS
FILTERS["skeleton"] = lambda c: skeleton.of(c)[0] if c.is_skeleton else None
PARTS = Path(__file__).parent / "parts"


@cache
def environment() -> Environment:
    """Archetypes first, then this folder's own parts; the same settings as the fixed tree's."""
    env = Environment(
        loader=FileSystemLoader([library.HERE, PARTS]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        bytecode_cache=bytecode.cache(),
    )
    env.filters.update(FILTERS)
    return env


def render(template: str, p: PortContext, c: ComponentContext | None = None) -> str:
    """One file's text. Raises UsageError where a component's official config holds what its template cannot use."""
    try:
        text: str = environment().get_template(template).render(p=p, c=c)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, UndefinedError) as error:
        if c is None:
            raise
        what = f"the official config of {c.name} holds a value that {template} cannot use: {error}"
        raise UsageError(
            what, where=c.official_class, todo=f"Correct it, or bake with components={c.name}=reuse"
        ) from error
    return text


def files(p: PortContext) -> dict[str, str]:
    """{path relative to the port's root: text} of everything that the fixed tree cannot hold."""
    found: dict[str, str] = {}
    for c in p.ported:
        found.setdefault(c.native_file, render(_template(c, "native.py.jinja"), p, c))
        if c.config_file:
            found.setdefault(c.config_file, render(_template(c, "config.py.jinja"), p, c))
    for c in p.checked:
        found[c.test_path] = render(_template(c, "parity_test.py.jinja"), p, c)
    found[f"tests/local_tests/{p.slug}/oracle.py"] = oracle(p)
    if p.is_sd3:
        name = f"fastvideo/pipelines/basic/{p.slug}/stages/text_and_image.py"
        found[name] = render("_pipeline/text_and_image.py.jinja", p)
    if p.is_stable_audio:
        name = f"fastvideo/pipelines/basic/{p.slug}/stages/text_and_sound.py"
        found[name] = render("_pipeline/text_and_sound.py.jinja", p, p.conditioner)
    if p.joins_image:
        name = f"fastvideo/pipelines/basic/{p.slug}/stages/image_conditioning.py"
        found[name] = render("_pipeline/image_conditioning.py.jinja", p)
    if p.renoises:
        name = f"fastvideo/pipelines/basic/{p.slug}/stages/noised_media.py"
        found[name] = render("_pipeline/noised_media.py.jinja", p)
    if p.needs_conversion:
        name = f"scripts/checkpoint_conversion/{p.slug}_to_diffusers.py"
        found[name] = p.declaration or render("conversion.py.jinja", p)
    return dict(sorted(found.items()))


def _template(c: ComponentContext, name: str) -> str:
    """The archetype's template, else the skeleton's."""
    own = library.get(c.archetype).template(name) if c.archetype else None
    if name == "native.py.jinja" and c.is_skeleton and skeleton.of(c)[0]:
        return "skeleton/native_tree.py.jinja"
    return own or f"skeleton/{name}"


def oracle(p: PortContext) -> str:
    """oracle.py: one header, each component's functions, the pipeline's. Imports of the parts are gathered on top."""
    names = [_template(c, "oracle.py.jinja") for c in p.checked]
    parts = [render(name, p, c) for name, c in zip(names, p.checked, strict=True)]
    if (library.HERE / "_pipeline" / "oracle.py.jinja").is_file():
        parts.append(render("_pipeline/oracle.py.jinja", p))
    imports, bodies = {"from __future__ import annotations"}, []
    for part in parts:
        lines, body = split_imports(part)
        imports |= lines
        bodies.append(body)
    for module in ("numpy", "pathlib", "torch"):  # what every part may use without saying so
        if any(re.search(rf"(?<![\w.]){module}\.", body) for body in bodies):
            imports.add(f"import {module}")
    head = render("oracle_header.py.jinja", p)
    return head + import_block(imports) + "".join("\n\n" + body.strip("\n") + "\n" for body in bodies if body.strip())


def split_imports(part: str) -> tuple[set[str], str]:
    """(one-line imports at a part's top, the rest); the SPDX line and blank lines above them go."""
    lines, taken = set(), 0
    for line in part.splitlines():
        if re.match(r"(import|from) \S", line) and not line.rstrip().endswith(("(", "\\")):
            lines.add(line.rstrip())
        elif line.strip() and not line.startswith("# SPDX"):
            break
        taken += 1
    return lines, "\n".join(part.splitlines()[taken:])


def import_block(lines: set[str]) -> str:
    """The imports in the usual order: __future__, standard library, the rest."""
    import sys

    standard = set(sys.stdlib_module_names)

    def group(line: str) -> int:
        root = line.split()[1].split(".")[0]
        return 0 if root == "__future__" else 1 if root in standard else 2

    groups = [sorted((line for line in lines if group(line) == n), key=_order) for n in range(3)]
    return "".join("\n" + "\n".join(group) + "\n" for group in groups if group)


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line.lower()


def summary(p: PortContext) -> dict[str, Any]:
    """What a person is told after the bake, as data."""
    return {
        "slug": p.slug,
        "model": p.model,
        "workload": p.workload,
        "pipeline": p.official_pipeline,
        "components": {c.name: {"mode": c.mode, "archetype": c.archetype, "native": c.native} for c in p.components},
        "inferred": p.inferred,
        "unknown": p.unknown,
        "decisions": p.decisions,
        "needs_conversion": p.needs_conversion,
    }
