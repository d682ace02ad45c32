# SPDX-License-Identifier: Apache-2.0
"""Edits of Python files that can be taken back to the exact bytes.

libcst finds the anchors (statements, lists) and the byte span of each; the edit is then a splice at that span, so
nothing else of the file moves: comments, odd spacing and CRLF stay as they are. Each edit has `present`, `add` and
`remove`; `apply` proves `remove(add(x)) == x` before anything is written, and refuses otherwise. Removing needs the
tree alone (no record), so it also works in a fresh clone of the branch.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fvport.errors import FvportError

if TYPE_CHECKING:  # else only where a file is edited: it costs more to import than a port's state to read
    import libcst as cst

BOM = b"\xef\xbb\xbf"


class Edit(Protocol):
    """One reversible change of one file's bytes. `where` is the file's name in messages."""

    def present(self, data: bytes, where: str) -> bool: ...
    def add(self, data: bytes, where: str) -> bytes: ...
    def remove(self, data: bytes, where: str) -> bytes: ...


def apply(edit: Edit, data: bytes, where: str) -> bytes:
    """`data` with the edit made (unchanged when it is there). Raises FvportError when it could not be undone."""
    if edit.present(data, where):
        return data
    new = edit.add(data, where)
    if not edit.present(new, where) or edit.remove(new, where) != data:
        raise FvportError(
            f"its layout does not allow an edit that can be undone ({edit})",
            where=where,
            todo="Register by hand, or reformat the file, and run again: fvport workspace",
        )
    return new


def newline(data: bytes) -> str:
    """The file's own line ending."""
    return "\r\n" if data.count(b"\r\n") * 2 > data.count(b"\n") else "\n"


def line_start(data: bytes, at: int) -> int:
    return data.rfind(b"\n", 0, at) + 1


def line_end(data: bytes, at: int) -> int:
    """Offset just after the line break that ends the line of `at`."""
    found = data.find(b"\n", at)
    return len(data) if found < 0 else found + 1


class Tree:
    """A parsed file and the byte span of every node in it."""

    def __init__(self, data: bytes, where: str) -> None:
        import libcst as cst
        from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

        self.data, self.where = data, where
        self.offset = len(BOM) if data.startswith(BOM) else 0
        try:
            self.module = cst.parse_module(data[self.offset :])
        except (cst.ParserSyntaxError, UnicodeDecodeError, SyntaxError) as error:
            line = getattr(error, "raw_line", None)
            raise FvportError(f"is not valid Python (line {line})", where=where, todo="Repair the file first") from None
        if self.module.bytes != data[self.offset :]:
            raise FvportError("cannot be read back byte for byte (odd encoding)", where=where)
        wrapper = MetadataWrapper(self.module, unsafe_skip_copy=True)
        self.spans = wrapper.resolve(ByteSpanPositionProvider)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Byte offsets (start, end) of a node, without the blank lines and comments around it."""
        found = self.spans[node]
        return found.start + self.offset, found.start + found.length + self.offset

    def body(self, function: str) -> Sequence[cst.BaseStatement]:
        """The statements of a top-level function, or of the module for ''."""
        import libcst as cst

        if not function:
            whole: Sequence[cst.BaseStatement] = self.module.body
            return whole
        for node in self.module.body:
            named = isinstance(node, cst.FunctionDef) and node.name.value == function
            if named and isinstance(node.body, cst.IndentedBlock):
                return [item for item in node.body.body if isinstance(item, cst.BaseStatement)]
        raise self.missing(f"no function {function}()")

    def imports(self, function: str) -> list[tuple[cst.SimpleStatementLine, cst.ImportFrom, str]]:
        """`from X import ...` statements of a body: (statement, node, X)."""
        import libcst as cst
        from libcst.helpers import get_full_name_for_node

        found = []
        for node in self.body(function):
            if not isinstance(node, cst.SimpleStatementLine) or len(node.body) != 1:
                continue
            small = node.body[0]
            if isinstance(small, cst.ImportFrom) and small.module is not None and not small.relative:
                found.append((node, small, get_full_name_for_node(small.module) or ""))
        return found

    def sequence(self, function: str, variable: str) -> cst.List | cst.Tuple:
        """The list or tuple that a body assigns to `variable`."""
        import libcst as cst
        from libcst.helpers import get_full_name_for_node

        for node in self.body(function):
            for small in node.body if isinstance(node, cst.SimpleStatementLine) else ():
                if isinstance(small, cst.Assign):
                    names = [get_full_name_for_node(target.target) for target in small.targets]
                elif isinstance(small, cst.AnnAssign):
                    names = [get_full_name_for_node(small.target)]
                else:
                    continue
                if variable in names and isinstance(small.value, cst.List | cst.Tuple):
                    return small.value
        raise self.missing(f"no list or tuple {variable}" + (f" in {function}()" if function else ""))

    def missing(self, what: str) -> FvportError:
        todo = "This FastVideo is laid out in an unknown way: register by hand, or choose another fastvideo.ref"
        return FvportError(f"{what}, so there is no anchor for the registration", where=self.where, todo=todo)


@functools.lru_cache(maxsize=8)
def parse(data: bytes, where: str) -> Tree:
    """The tree of one state of a file; kept, because each edit looks at it several times."""
    return Tree(data, where)


@dataclass(frozen=True)
class Import:
    """`from module import name [as alias]` after the last import whose module matches the pattern `anchor`."""

    module: str
    name: str
    anchor: str
    function: str = ""
    alias: str = ""

    def _found(self, tree: Tree) -> cst.SimpleStatementLine | None:
        import libcst as cst
        from libcst.helpers import get_full_name_for_node

        for statement, node, module in tree.imports(self.function):
            if module != self.module or isinstance(node.names, cst.ImportStar):
                continue
            for alias in node.names:
                bound = get_full_name_for_node(alias.asname.name) if alias.asname else ""
                if get_full_name_for_node(alias.name) == self.name and bound == self.alias:
                    return statement
        return None

    def present(self, data: bytes, where: str) -> bool:
        return self._found(parse(data, where)) is not None

    def text(self, indent: str, nl: str) -> str:
        """One line where it fits into 120 columns, else in brackets as FastVideo's formatter lays it out."""
        what = f"{self.name} as {self.alias}" if self.alias else self.name
        line = f"{indent}from {self.module} import {what}"
        if len(line) <= 120 and not self.function:
            return line
        return f"{indent}from {self.module} import ({nl}{indent}    {what}, )"

    def add(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        anchors = [s for s, _, module in tree.imports(self.function) if re.fullmatch(self.anchor, module)]
        if not anchors:
            raise tree.missing(f"no import of {self.anchor.replace(chr(92), '')}")
        start, end = tree.span(anchors[-1])
        indent = data[line_start(data, start) : start].decode()
        at, nl = line_end(data, end), newline(data)
        text = self.text(indent, nl)
        text = text + nl if data[at - 1 : at] == b"\n" else nl + text
        return data[:at] + text.encode() + data[at:]

    def remove(self, data: bytes, where: str) -> bytes:
        import libcst as cst

        tree = parse(data, where)
        statement = self._found(tree)
        if statement is None:
            return data
        node = statement.body[0]
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar) and len(node.names) > 1:
            raise FvportError(
                f"the import of {self.name} was merged with others", where=where, todo="Take it out by hand"
            )
        return cut_lines(data, *tree.span(statement))


def cut_lines(data: bytes, start: int, end: int) -> bytes:
    """`data` without the whole lines of [start, end)."""
    first, last = line_start(data, start), line_end(data, end)
    if (
        last == len(data) and data[-1:] != b"\n" and first
    ):  # the file's last line has no line break: take the one before
        first -= 2 if data[first - 2 : first] == b"\r\n" else 1
    return data[:first] + data[last:]


@dataclass(frozen=True)
class Element:
    """One more element at the end of the list or tuple `variable`. `element` is Python source."""

    variable: str
    element: str
    function: str = ""

    def _elements(self, tree: Tree) -> list[cst.BaseExpression]:
        return [item.value for item in tree.sequence(self.function, self.variable).elements]

    def _close(self, tree: Tree, node: cst.List | cst.Tuple, values: list[cst.BaseExpression]) -> int:
        """Offset of the closing bracket (libcst's span of a tuple leaves the brackets out)."""
        import libcst as cst

        start, _ = tree.span(node)
        at = tree.span(values[-1])[1] if values else start + (1 if isinstance(node, cst.List) else 0)
        filler = re.match(rb"(?:[\s,(]|#[^\n]*\n)*", tree.data[at:])
        close = at + (filler.end() if filler else 0)
        if tree.data[close : close + 1] not in (b"]", b")"):
            raise tree.missing(f"{self.variable} has no brackets")
        return close

    def _index(self, tree: Tree) -> int:
        wanted = _plain(self.element)
        sources = [_plain(tree.module.code_for_node(value)) for value in self._elements(tree)]
        return sources.index(wanted) if wanted in sources else -1

    def present(self, data: bytes, where: str) -> bool:
        return self._index(parse(data, where)) >= 0

    def add(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        node, text, nl = tree.sequence(self.function, self.variable), self.element.encode(), newline(data).encode()
        values = self._elements(tree)
        close = self._close(tree, node, values)
        if not values:
            return data[:close] + text + (b"," if data[close : close + 1] == b")" else b"") + data[close:]
        start, end = tree.span(values[-1])
        own_line = data[line_start(data, close) : close].strip() == b""
        first = line_start(data, start)
        indent = data[first : len(data[first:start]) - len(data[first:start].lstrip()) + first]
        if comma := re.match(rb"[ \t]*,", data[end:]):
            at = line_start(data, close) if own_line else end + comma.end()
            return data[:at] + (indent + text + b"," + nl if own_line else b" " + text + b",") + data[at:]
        rest = data[end : line_end(data, end)].strip()
        column = len(data[first:end].decode()) + len(self.element) + 2
        if own_line and (column > 120 or rest):
            at = line_start(data, close)
            return data[:end] + b"," + data[end:at] + indent + text + nl + data[at:]
        return data[:end] + b", " + text + data[end:]

    def remove(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        index = self._index(tree)
        if index < 0:
            return data
        values = self._elements(tree)
        start, end = tree.span(values[index])
        comma = re.match(rb"[ \t]*,", data[end:])
        after = end + comma.end() if comma else end
        alone = not data[line_start(data, start) : start].strip() and _rest(data, after) == b""
        if comma:
            if alone:
                return cut_lines(data, start, after)
            if _rest(data, after)[:1] in (b"", b"#", b")", b"]"):
                return data[: _before(data, start)] + data[after:]
            return data[:start] + data[after + len(data[after:]) - len(data[after:].lstrip(b" \t")) :]
        new = cut_lines(data, start, end) if alone else data[: _before(data, start)] + data[end:]
        if index:
            previous = tree.span(values[index - 1])[1]
            stop = re.match(rb"[ \t]*,", data[previous:])
            if stop:
                new = new[:previous] + new[previous + stop.end() :]
        return new


def _plain(source: str) -> str:
    """One spelling for equal literals and names."""
    try:
        return ast.dump(ast.parse(source.strip(), mode="eval"))
    except SyntaxError:
        return source.strip()


def _rest(data: bytes, at: int) -> bytes:
    return data[at : line_end(data, at)].strip()


def _before(data: bytes, at: int) -> int:
    """Offset where the blanks before `at` begin."""
    return len(data[:at].rstrip(b" \t"))


@dataclass(frozen=True)
class Block:
    """A statement (with its comments) that comes first in a function; found again by a call's keyword `key=value`."""

    function: str
    lines: tuple[str, ...]
    key: str
    value: str

    def _found(self, tree: Tree) -> cst.BaseStatement | None:
        import libcst as cst
        from libcst.helpers import get_full_name_for_node

        for node in tree.body(self.function):
            small = node.body[0] if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1 else None
            if isinstance(small, cst.Expr) and isinstance(small.value, cst.Call):
                for argument in small.value.args:
                    named = argument.keyword is not None and argument.keyword.value == self.key
                    if named and get_full_name_for_node(argument.value) == self.value:
                        return node
        return None

    def present(self, data: bytes, where: str) -> bool:
        return self._found(parse(data, where)) is not None

    def add(self, data: bytes, where: str) -> bytes:
        import libcst as cst

        tree = parse(data, where)
        body = list(tree.body(self.function))
        first = body[0]
        start = tree.span(first)[0]
        indent = data[line_start(data, start) : start].decode()
        at = _leading(data, line_start(data, start))
        small = first.body[0] if isinstance(first, cst.SimpleStatementLine) else None
        if isinstance(small, cst.Expr) and isinstance(small.value, cst.SimpleString | cst.ConcatenatedString):
            at = line_end(data, tree.span(first)[1])  # after the docstring
        nl = newline(data)
        return data[:at] + "".join(indent + line + nl for line in self.lines).encode() + data[at:]

    def remove(self, data: bytes, where: str) -> bytes:
        tree = parse(data, where)
        node = self._found(tree)
        if node is None:
            return data
        start, end = tree.span(node)
        comments = [line for line in self.lines if line.startswith("#")]
        for comment in reversed(comments):
            above = line_start(data, line_start(data, start) - 1)
            if data[above : line_start(data, start)].strip() != comment.encode():
                break  # a person rewrote the comment: leave what is theirs
            start = above
        return cut_lines(data, start, end)


def _leading(data: bytes, at: int) -> int:
    """Start of the blank lines and comments that stand right above the line beginning at `at`."""
    while at:
        above = line_start(data, at - 1)
        text = data[above:at].strip()
        if text and not text.startswith(b"#"):
            return at
        at = above
    return at
