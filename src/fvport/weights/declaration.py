# SPDX-License-Identifier: Apache-2.0
"""What `scripts/checkpoint_conversion/<slug>_to_diffusers.py` declares, read as literals and never executed.

    PIPELINE = ["diffusers", "WanPipeline"]
    COMPONENTS = {
        "transformer": {
            "class": ["diffusers", "WanTransformer3DModel"],
            "files": ["model.safetensors"],         # names or globs inside the release; left out: every weight file
            "prefix": "dit.",                       # or a list of them; what begins so belongs to this component
            "config": {"num_layers": 2},            # or "path.json" inside the release, or ["path.json", "key", ...]
            "rename": [[r"^layers\\.", "blocks."]],   # regular expressions, each in turn, on the name without prefix
            "rules": [[r"blocks\\.(\\d+)\\.qkv", [r"blocks.\\1.q", r"blocks.\\1.k", r"blocks.\\1.v"], ["split", 0, 3]]],
            "skip": {r"rope\\.freqs": "computed"},   # whole names (or all that begin so, written with ^) -> why
        },
        "tokenizer": {"class": ["transformers", "T5TokenizerFast"], "folder": "tokenizer"},  # copied as it is
    }
    SKIP = {r"^ema\\.": "average of training steps", "file:*.ckpt": "the same in pickle form"}
    INDEX = {"boundary_ratio": 0.9}                 # plain values of model_index.json

A rule has one source or several, one target or several, and operations between them (`operations.py`); a target may be
`{"skip": "reason"}`. A name in capitals may stand for a literal that was assigned above it. `rename` and `rules` become
one `mapping.Rules`: a step each, and a whole-name rule for each pair of source and target.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.weights import regexcost
from fvport.weights.mapping import Rule, Rules
from fvport.weights.operations import Operation

if TYPE_CHECKING:
    from fvport.spec import Port

NAMES = {"PIPELINE", "COMPONENTS", "SKIP", "INDEX", "SHARD_BYTES"}
KEYS = ("class", "files", "prefix", "config", "rename", "rules", "skip", "folder", "only")
SHARD_BYTES = 5_000_000_000
FILE = "file:"  # beginning of a SKIP pattern that names files
Skips = dict[str, str]


@dataclass(frozen=True)
class Part:
    """One component of the converted tree; `names` is what `rename` and `rules` say."""

    name: str
    library: str
    cls: str
    prefixes: tuple[str, ...] = ()  # none: it has no weights of its own
    files: tuple[str, ...] = ("*",)
    config: Any = None  # a table, or where it stands in the release: (file, key, ...)
    names: Rules = field(default_factory=Rules)
    skip: Skips = field(default_factory=dict)
    folder: str = ""  # a folder of the release that is copied as it is
    only: tuple[str, ...] = ()  # files of that folder; none: all

    @property
    def copied(self) -> bool:
        return bool(self.folder)


@dataclass(frozen=True)
class Declaration:
    """`where`: the file it stands in, for messages; `raw`: its literals, which the digest is about."""

    where: str
    pipeline: tuple[str, str]
    parts: dict[str, Part]
    skip: Skips
    index: dict[str, Any]
    shard_bytes: int
    raw: dict[str, Any] = field(repr=False, compare=False)

    def canonical(self, component: str = "") -> dict[str, Any]:
        """What is declared about one component and all (or everything): lists, tables and plain values."""
        parts = self.raw["COMPONENTS"]
        about = {component: parts.get(component)} if component else parts
        return {**{name: value for name, value in self.raw.items() if name != "PIPELINE"}, "COMPONENTS": about}

    def digest(self, component: str = "") -> str:
        """`sha256:...` of `canonical`: changes with what is declared, not with comments or layout."""
        text = json.dumps(self.canonical(component), separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def script(port: Port) -> Path:
    """Where a port's declaration stands."""
    return port.root / "scripts" / "checkpoint_conversion" / f"{port.slug}_to_diffusers.py"


def of_port(port: Port) -> Declaration:
    """The port's declaration. BlockedError where there is none, UsageError where it cannot be read."""
    file = script(port)
    if not file.is_file():
        todo = f"Say there how the {port.official.layout} release becomes Diffusers layout (fvport convert --help)"
        raise BlockedError("the conversion is not declared", where=str(file), todo=todo)
    return load(file)


def load(file: Path) -> Declaration:
    """Read a declaration from a Python file. UsageError names line and key of what is wrong; nothing is executed."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BlockedError(f"cannot be read ({error})", where=str(file)) from None
    return parse(text, str(file))


def parse(text: str, where: str) -> Declaration:
    """As `load`, from text."""
    return _Reader(where).declaration(_literals(text, where))


def _literals(text: str, where: str) -> dict[str, Any]:
    """Top-level assignments in capitals, by name; a name assigned before may be used in a later one."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", 0)
        raise UsageError(f"is not Python ({getattr(error, 'msg', error)})", where=f"{where}:{line}") from None
    known: dict[str, Any] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name) or value is None:
            continue
        if not target.id.isupper():
            continue
        line = f"{where}:{node.lineno}"
        if target.id in known:
            raise UsageError(f"{target.id} is assigned twice", where=line)
        try:
            known[target.id] = _Known(known).literal(value, line)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            if target.id in NAMES:
                todo = "Lists, tables, text and numbers only; nothing is computed"
                raise UsageError(f"{target.id} is not a plain literal ({error})", where=line, todo=todo) from None
    return known


class _Known:
    """`ast.literal_eval` in which a name stands for a literal that was read before."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def literal(self, node: ast.expr, line: str) -> Any:
        if isinstance(node, ast.Name) and node.id in self.known:
            return self.known[node.id]
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.literal(item, line) for item in node.elts]
        if isinstance(node, ast.Dict):
            return self._table(node, line)
        if isinstance(node, (ast.Set, ast.Name)):
            raise ValueError(f"{ast.unparse(node)[:60]} is not known here")  # noqa: TRY004
        return ast.literal_eval(node)

    def _table(self, node: ast.Dict, line: str) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:  # {**OTHER}
                found |= self.literal(value, line)
                continue
            name = self.literal(key, line)
            if name in found:
                raise UsageError(f"{name!r} is there twice", where=f"{line.rpartition(':')[0]}:{key.lineno}")
            found[name] = self.literal(value, line)
        return found


class _Reader:
    """Turns literals into a Declaration; every refusal names the key it is about."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, key: str, what: str, todo: str = "") -> NoReturn:
        raise UsageError(f"{key} {what}", where=self.where, todo=todo)

    def declaration(self, raw: dict[str, Any]) -> Declaration:
        if "COMPONENTS" not in raw:
            near = did_you_mean("COMPONENTS", raw)
            self.fail("COMPONENTS", f"is not there.{near}", "Name each component, its class and what belongs to it")
        components = self.table("COMPONENTS", raw["COMPONENTS"])
        parts = {name: self.part(f"COMPONENTS.{name}", name, value) for name, value in components.items()}
        if not parts:
            self.fail("COMPONENTS", "names no component")
        shard = raw.get("SHARD_BYTES", SHARD_BYTES)
        if type(shard) is not int or shard < 1:
            self.fail("SHARD_BYTES", "must be a number of bytes")
        skip, index = self.skips("SKIP", raw.get("SKIP", {})), self.table("INDEX", raw.get("INDEX", {}))
        pipeline = self.cls("PIPELINE", raw.get("PIPELINE", ["diffusers", ""]))
        kept = {name: value for name, value in raw.items() if name in NAMES}
        return Declaration(self.where, pipeline, parts, skip, index, shard, kept)

    def part(self, key: str, name: str, value: Any) -> Part:
        table = self.table(key, value)
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            self.fail(key, "is no name for a folder")
        for word in table:
            if word not in KEYS:
                self.fail(f"{key}.{word}", f"is no key of a component ({', '.join(KEYS)}).{did_you_mean(word, KEYS)}")
        library, cls = self.cls(f"{key}.class", table.get("class", ["", ""]))
        if not cls:
            self.fail(f"{key}.class", 'is not there; write it as ["diffusers", "WanTransformer3DModel"]')
        folder = table.get("folder", "")
        if not isinstance(folder, str) or Path(folder).is_absolute() or ".." in Path(folder).parts:
            self.fail(f"{key}.folder", "must be a folder inside the release")
        if folder and ({"prefix", "rename", "rules", "files", "skip"} & set(table)):
            self.fail(f"{key}.folder", "is copied as it is: prefix, files, rename, rules and skip do not go with it")
        return Part(
            name, library, cls,
            self.words(f"{key}.prefix", table["prefix"]) if "prefix" in table else (),
            self.words(f"{key}.files", table.get("files", ["*"])),
            self.config(f"{key}.config", table.get("config")),
            self.names(key, table),
            self.skips(f"{key}.skip", table.get("skip", {})),
            folder,
            self.words(f"{key}.only", table.get("only", [])),
        )  # fmt: skip

    def entries(self, key: str, table: dict[str, Any], word: str) -> list[Any]:
        value = table.get(word, [])
        if not isinstance(value, list):
            self.fail(f"{key}.{word}", "must be a list, in the order in which it is applied")
        return value

    def table(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or any(not isinstance(name, str) for name in value):
            self.fail(key, "must be a table of names")
        return value

    def words(self, key: str, value: Any) -> tuple[str, ...]:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or any(not isinstance(word, str) for word in value):
            self.fail(key, "must be text, or a list of text")
        return tuple(value)

    def cls(self, key: str, value: Any) -> tuple[str, str]:
        if isinstance(value, str):
            value = ["diffusers", value]
        if not isinstance(value, list) or len(value) != 2 or any(not isinstance(word, str) for word in value):
            self.fail(key, 'must be ["library", "Class"]')
        return value[0], value[1]

    def config(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, dict):
            return value
        return self.words(key, value)

    def pattern(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            self.fail(key, "must be a regular expression")
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            self.fail(key, f"{value!r} is no regular expression ({error})")
        if why := regexcost.danger(value):
            self.fail(key, f"{value!r} backtracks badly: {why}", "Write it without nested repeats")
        return value

    def skips(self, key: str, value: Any) -> Skips:
        table = self.table(key, value)
        for pattern, reason in table.items():
            if not pattern.startswith(FILE):
                self.pattern(key, pattern)
            if not isinstance(reason, str) or not reason.strip():
                self.fail(f"{key} {pattern!r}", "needs a reason")
        return table

    def names(self, key: str, table: dict[str, Any]) -> Rules:
        rules: list[Rule] = []
        for word, read in (("rename", self.rename), ("rules", self.rule)):
            for n, value in enumerate(self.entries(key, table, word)):
                rules += [replace(rule, declared=f"{word}[{n}]") for rule in read(f"{key}.{word}[{n}]", value)]
        return Rules(tuple(rules), source=self.where)

    def rename(self, key: str, value: Any) -> list[Rule]:
        if not isinstance(value, list) or len(value) != 2:
            self.fail(key, "must be [pattern, replacement]")
        pattern = self.pattern(key, value[0])
        self.template(key, pattern, value[1])
        return [Rule("step", pattern, value[1])]

    def template(self, key: str, pattern: str, value: Any) -> None:
        if not isinstance(value, str):
            self.fail(key, "must say the new name as text")
        try:
            re.compile(f"(?:{pattern})|").sub(value, "")
        except (re.error, IndexError) as error:
            self.fail(key, f"{value!r} does not go with {pattern!r} ({error})")

    def rule(self, key: str, value: Any) -> list[Rule]:
        if not isinstance(value, list) or len(value) < 2:
            self.fail(key, "must be [source, target, operation ...]")
        sources = [self.pattern(key, word) for word in self.words(key, value[0])]
        targets = value[1] if isinstance(value[1], list) else [value[1]]
        if not sources or not targets:
            self.fail(key, "needs a source and a target")
        if len(set(sources)) < len(sources):
            self.fail(key, "names one source twice")
        try:
            operations = tuple(Operation.from_json(word) for word in value[2:])
        except UsageError as error:
            self.fail(key, f"holds a wrong operation: {error}")
        names = [step.name for step in operations]
        if "skip" in names:  # of all that it takes, whatever the target
            return self.pairs(key, sources, targets[:1], operations)
        if len(sources) > 1 and "split" in names[: names.index("fuse") if "fuse" in names else None]:
            self.fail(key, "splits before it joins its sources", "Write a rule for each source, or fuse first")
        if len(sources) > 1 and "fuse" not in names and len(targets) != len(sources):
            self.fail(key, f"has {len(sources)} sources, and nothing joins them", 'Say how: ["fuse", 0]')
        if len(sources) > 1 and "fuse" not in names:  # one after another: each source has a target of its own
            pairs = zip(sources, targets, strict=True)
            return [rule for pair in pairs for rule in self.pairs(key, [pair[0]], [pair[1]], operations)]
        return self.pairs(key, sources, targets, operations)

    def pairs(self, key: str, sources: list[str], targets: list[Any], operations: tuple[Operation, ...]) -> list[Rule]:
        """One rule for each source and target; a target that is left out has the others' name, and a reason."""
        named = next((target for target in targets if not isinstance(target, dict)), r"\g<0>")
        count = len(sources) if len(sources) > 1 else None
        several = len(targets) if len(targets) > 1 else None
        found = []
        for number, target in enumerate(targets):
            steps, name = operations, target
            if isinstance(target, dict):
                reason = target.get("skip")
                if len(target) != 1 or not isinstance(reason, str) or not reason.strip():
                    self.fail(key, "needs a target, or a reason for what is left out")
                name, steps = named, (*operations, Operation("skip", (reason,)))
            output = number if several else None
            for place, source in enumerate(sources):
                self.template(key, source, name)
                index = place if count else None
                found.append(Rule("whole", source, name, index, count, None, steps, output, several))
        return found
