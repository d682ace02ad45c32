# SPDX-License-Identifier: Apache-2.0
"""What `docker buildx bake` makes of our bake files, as far as they go: variables, groups, targets, `inherits`, `${X}`.

Strict: anything else is an error, never a guess. Files are laid over one another, and the environment over the
variables, as bake does both. python3 -m ci.bake_file gate-cpu prints the `docker build` command line of a target.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE, OVERLAY = ROOT / "docker" / "docker-bake.hcl", ROOT / "docker" / "docker-bake.ci.hcl"
TOKEN = re.compile(r'\s+|#[^\n]*|(?P<token>"(?:[^"\\\n]|\\["\\])*"|[A-Za-z_][\w-]*|==|[{}\[\]=,?:])')
Tree = dict[str, dict[str, dict[str, Any]]]  # kind of block -> its name -> its attributes, not evaluated


class Wrong(ValueError):
    """The file says something that is not understood; the sentence says what and on which line."""


def targets(files: Sequence[Path], given: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Every target of the files, complete: inherited, laid over, variables filled in."""
    tree: Tree = {"variable": {}, "group": {}, "target": {}}
    for file in files:
        for kind, blocks in parse(file.read_text(encoding="utf-8")).items():
            for name, block in blocks.items():
                tree[kind].setdefault(name, {}).update(block)
    values = _Values(tree["variable"], given or {})
    return {name: _whole(tree["target"], name, values) for name in tree["target"]}


def build_command(target: Mapping[str, Any]) -> list[str]:
    """`docker build` of one target (cache and attestations are bake's own)."""
    flags = [f"--build-arg={key}={value}" for key, value in target["args"].items()]
    flags += [f"--tag={tag}" for tag in target["tags"]]
    return ["docker", "build", "-f", target["dockerfile"], f"--target={target['target']}", *flags, target["context"]]


def _whole(blocks: Mapping[str, dict[str, Any]], name: str, values: _Values) -> dict[str, Any]:
    if name not in blocks:
        raise Wrong(f"no target {name}")
    found: dict[str, Any] = {"args": {}}
    own = {key: values.of(value) for key, value in blocks[name].items()}
    for parent in own.pop("inherits", []):
        found = _over(found, _whole(blocks, parent, values))
    return _over(found, own)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {**below, **above, "args": {**below["args"], **above.get("args", {})}}


class _Values:
    """Values of expressions; a variable takes the environment's value before its default."""

    def __init__(self, variables: Mapping[str, dict[str, Any]], given: Mapping[str, str]) -> None:
        self.variables, self.given = variables, given

    def of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        if isinstance(value, _Name):
            return self.variable(str(value))
        if isinstance(value, _Choice):
            return self.of(value.yes if self.of(value.left) == self.of(value.right) else value.no)
        return re.sub(r"\$\{(\w+)\}", lambda found: self.variable(found[1]), value)

    def variable(self, name: str) -> str:
        if name not in self.variables:
            raise Wrong(f"no variable {name}")
        return self.given[name] if name in self.given else self.of(self.variables[name]["default"])


class _Name(str):
    """A variable that stands bare in an expression."""


class _Choice:
    """`left == right ? yes : no`"""

    def __init__(self, left: Any, right: Any, yes: Any, no: Any) -> None:
        self.left, self.right, self.yes, self.no = left, right, yes, no


def parse(text: str) -> Tree:
    """The blocks of one file. Raises Wrong for what is not understood, and for a name that is there twice."""
    reader, tree = _Reader(text), Tree()
    while reader.peek():
        kind, name = reader.take(r"variable|group|target"), reader.text()
        if name in tree.setdefault(kind, {}):
            reader.fail(f'{kind} "{name}" is there twice')
        tree[kind][name] = reader.map()
    return tree


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        self.at = place = 0
        while place < len(text):
            found = TOKEN.match(text, place)
            line = text.count("\n", 0, place) + 1
            if not found:
                raise Wrong(f"line {line}: not understood: {text[place : place + 20]!r}")
            if found["token"]:
                self.tokens.append((found["token"], line))
            place = found.end()

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def fail(self, sentence: str) -> None:
        line = self.tokens[min(self.at, len(self.tokens) - 1)][1] if self.tokens else 1
        raise Wrong(f"line {line}: {sentence}")

    def take(self, pattern: str) -> str:
        if not re.fullmatch(pattern, self.peek()):
            self.fail(f"not understood: {self.peek() or 'the end'!r}")
        self.at += 1
        return self.tokens[self.at - 1][0]

    def text(self) -> str:
        inner = re.sub(r"\\(.)", r"\1", self.take(r'".*"')[1:-1])
        if "$" in re.sub(r"\$\{\w+\}", "", inner) or "%{" in inner:
            self.fail(f"only ${{NAME}} is understood in a text: {inner!r}")
        return inner

    def map(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.take(r"\{")
        while self.peek() != "}":
            key = self.take(r"[A-Za-z_][\w-]*")
            self.take("=")
            if key in found:
                self.fail(f"{key} is there twice")
            found[key] = self.value()
        self.take(r"\}")
        return found

    def value(self) -> Any:
        if self.peek() == "{":
            return self.map()
        if self.peek() == "[":
            return self.list()
        left = self.one()
        if self.peek() != "==":
            return left
        self.take("==")
        right, _, yes, _, no = self.one(), self.take(r"\?"), self.one(), self.take(":"), self.one()
        return _Choice(left, right, yes, no)

    def one(self) -> Any:
        return self.text() if self.peek().startswith('"') else _Name(self.take(r"[A-Z_][A-Z0-9_]*"))

    def list(self) -> list[Any]:
        found = []
        self.take(r"\[")
        while self.peek() != "]":
            found.append(self.one())
            if self.peek() != "]":
                self.take(",")
        self.take(r"\]")
        return found


def main(argv: Sequence[str]) -> int:
    for name in argv:
        print(shlex.join(build_command(targets([FILE], os.environ)[name])))
    return 0 if argv else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
