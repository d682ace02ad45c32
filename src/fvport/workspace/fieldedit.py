# SPDX-License-Identifier: Apache-2.0
"""Arguments of a call that FastVideo has no field for: one more field of SamplingParam and of ForwardBatch.

FastVideo refuses a call's argument that is no field of both, so this is how a model adds one. Other ports of the tree
may need the same field: it is theirs as well, and stays until the last of them is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomllib

from fvport.errors import UsageError
from fvport.workspace.pyedit import Tree, cut_lines, line_end, newline, parse

if TYPE_CHECKING:
    import libcst as cst

    from fvport.spec import Port

HOLDERS = {  # file -> class
    "fastvideo/api/sampling_param.py": "SamplingParam",
    "fastvideo/pipelines/pipeline_batch_info.py": "ForwardBatch",
}
TYPES = ("float", "int", "str", "bool")


@dataclass(frozen=True)
class Field:
    """`name: annotation` behind the last field of a class; found again by its name."""

    owner: str
    name: str
    annotation: str

    @property
    def line(self) -> str:
        return f"    {self.name}: {self.annotation}"

    def _fields(self, tree: Tree) -> dict[str, cst.BaseStatement]:
        import libcst as cst

        for node in tree.module.body:
            if isinstance(node, cst.ClassDef) and node.name.value == self.owner:
                lines = [item for item in node.body.body if isinstance(item, cst.SimpleStatementLine)]
                smalls = [(item, item.body[0]) for item in lines if len(item.body) == 1]
                return {
                    small.target.value: item
                    for item, small in smalls
                    if isinstance(small, cst.AnnAssign) and isinstance(small.target, cst.Name)
                }
        raise tree.missing(f"no class {self.owner}")

    def present(self, data: bytes, where: str) -> bool:
        return self.name in self._fields(parse(data, where))

    def add(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        fields = list(self._fields(tree).values())
        if not fields:
            raise tree.missing(f"{self.owner} has no field")
        at = line_end(data, tree.span(fields[-1])[1])
        return data[:at] + f"{self.line}{newline(data)}".encode() + data[at:]

    def remove(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        statement = self._fields(tree).get(self.name)
        return data if statement is None else cut_lines(data, *tree.span(statement))


def of(owner: str, name: str, kind: str) -> Field:
    return Field(owner, name, f"{kind} | None = None")


def of_port(port: Port) -> dict[str, tuple[Field, ...]]:
    """{file: fields} that port.toml's [fastvideo] fields asks for. UsageError for a name or type that cannot be one."""
    for name, kind in port.fastvideo.fields.items():
        if not name.isidentifier() or kind not in TYPES:
            what = f'"{name}" of type "{kind}" can be no field of a call'
            todo = f"Give a name and one of {', '.join(TYPES)}"
            raise UsageError(what, where="port.toml [fastvideo] fields", todo=todo)
    given = port.fastvideo.fields.items()
    return {file: tuple(of(owner, name, kind) for name, kind in given) for file, owner in HOLDERS.items() if given}


def of_others(root: Path, port: Port) -> dict[str, str]:
    """{name: type} of the fields that other ports of this tree declare."""
    found: dict[str, str] = {}
    for file in sorted(root.glob("tests/local_tests/*/port.toml")):
        if file.parent.name != port.slug:
            try:
                told = tomllib.loads(file.read_text(encoding="utf-8")).get("fastvideo", {}).get("fields", {})
                found |= {name: kind for name, kind in told.items() if name.isidentifier() and kind in TYPES}
            except (OSError, ValueError, TypeError):
                continue  # another port's file is its own matter
    return found
