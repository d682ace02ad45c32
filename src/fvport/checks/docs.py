# SPDX-License-Identifier: Apache-2.0
"""`docs`: the port's page says what a user needs, with figures of this code. Rules FV401 to FV407."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from fvport import evidence as ev
from fvport import figures
from fvport.checks import Options
from fvport.checks._rules import Family, Finding
from fvport.spec import Port

RULES = Family()
SECTIONS = {  # what must be there -> how a heading may say it
    "usage": r"usage|quick ?start|how to (use|run)",
    "constraints": r"constraint|limitation|limits",
    "memory and speed": r"memory|speed|performance",
    "backend requirements": r"backend|requirement",
}
SYNC = "Run: fvport plan --sync, then fvport gate --run"


@dataclass(frozen=True)
class Page:
    """The docs page of a port; `text` is '' where there is none."""

    port: Port
    path: str
    text: str

    @property
    def lines(self) -> list[tuple[int, str]]:
        return list(enumerate(self.text.splitlines(), 1))

    @property
    def headings(self) -> list[tuple[int, str]]:
        found, fenced = [], False
        for number, line in self.lines:
            fenced ^= line.lstrip().startswith("```")
            if not fenced and (match := re.match(r"#{1,6}\s+(.*)", line)):
                found.append((number, match[1].strip()))
        return found

    @property
    def block(self) -> str | None:
        """The generated block of figures, or None where the page has no place for one."""
        return next((m[3] for m in ev.GENERATED.finditer(self.text) if m[2] == "figures"), None)


def page_path(port: Port) -> str:
    return f"docs/inference/{port.slug}.md"


def example_path(port: Port) -> str:
    return f"examples/inference/basic/basic_{port.slug}.py"


def run(port: Port, options: Options) -> ev.Evidence:
    """One item a rule; the page's figures are compared with the evidence of the checks that made them."""
    return ev.Evidence("docs", port.slug, items=RULES.items(_page(port)))


def _page(port: Port) -> Page:
    path = port.root / page_path(port)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return Page(port, page_path(port), text)


def inputs(port: Port) -> list[str]:
    """The page without its generated block, the example, and all that the figures were made from."""
    own = [f"prose:{page_path(port)}", f"file:{example_path(port)}", "port:port", "port:gate", "package:fvport"]
    return [*own, *figures.inputs(port)]


def expected(port: Port) -> list[str]:
    return [rule.id for rule in RULES]


def outdated(port: Port) -> list[str]:
    """For the gate: why the page's generated block, which is outside every digest, does not hold any more."""
    return [f"{page_path(port)}: {problem}" for problem in figures.problems(port, _page(port).block or "")]


def mended(port: Port, record: ev.Evidence) -> list[str]:
    """For the gate: why a record that is red by its figures is old news, when `plan --sync` has filled the block since.

    The block is outside every digest, so nothing else would say that the check is worth running again.
    """
    ruled = {item.name.split()[0] for item in record.items if item.verdict == "fail"}
    page = _page(port)
    if ruled & {"FV403", "FV404"} and not [*has_figures(page), *figures_current(page)]:
        return [f"stale: the figures in {page_path(port)} were brought up to date since it ran"]
    return []


@RULES.rule("FV401")
def there(page: Page) -> Iterator[Finding]:
    """The docs page is there."""
    if not page.text.strip():
        yield Finding(page.path, "is not there or is empty", "Bring it back: fvport new renders it")
    for number, line in page.lines:
        if "\N{REPLACEMENT CHARACTER}" in line:
            yield Finding(f"{page.path}:{number}", "is not UTF-8 text", "Save the page as UTF-8")
            return


@RULES.rule("FV402")
def sections(page: Page) -> Iterator[Finding]:
    """The page has usage, constraints, memory and speed, and backend requirements, each with words under it."""
    lines = ev.prose(page.text).splitlines()
    generated = {m[2] for m in ev.GENERATED.finditer(page.text)}
    for need, pattern in SECTIONS.items():
        heads = [text for _, text in page.headings if re.search(pattern, text, re.IGNORECASE)]
        if not heads:
            yield Finding(page.path, f"has no section on {need}")
            continue
        if all(_words(lines, text) < 5 for text in heads) and not (need == "memory and speed" and generated):
            yield Finding(page.path, f'section "{heads[0]}" says nothing')


def _words(lines: list[str], heading: str) -> int:
    """How many words stand under a heading, up to the next one of its level or above."""
    start = next((n for n, line in enumerate(lines) if re.match(rf"#+\s+{re.escape(heading)}\s*$", line)), None)
    if start is None:
        return 0
    level, count = len(lines[start]) - len(lines[start].lstrip("#")), 0
    for line in lines[start + 1 :]:
        if (match := re.match(r"(#+)\s", line)) and len(match[1]) <= level:
            break
        count += len(re.findall(r"\w+", line)) if not line.startswith(("#", "<!--")) else 0
    return count


@RULES.rule("FV403")
def has_figures(page: Page) -> Iterator[Finding]:
    """The page has a generated block with real figures."""
    if page.block is None:
        what = "has no block between <!-- fvport:begin figures --> and <!-- fvport:end figures -->"
        yield Finding(page.path, what)
    elif not re.search(r"^\|.*\d.*\|", page.block, re.MULTILINE):
        yield Finding(page.path, "its block of figures is empty", SYNC)


@RULES.rule("FV404")
def figures_current(page: Page) -> Iterator[Finding]:
    """The figures were made from this code, and are what the evidence says."""
    for problem in figures.problems(page.port, page.block or ""):
        yield Finding(page.path, problem, SYNC)


_LEFT = re.compile(
    r"FVPORT-DECIDE|\b(TODO|FIXME|TBD|XXX|lorem ipsum)\b|\{\{|\{%|<(model|family|slug|your[- _]\w+)>", re.IGNORECASE
)


@RULES.rule("FV405")
def nothing_left(page: Page) -> Iterator[Finding]:
    """Nothing of the template is left to fill in."""
    for number, line in page.lines:
        if found := _LEFT.search(line):
            yield Finding(f"{page.path}:{number}", f"holds {found[0]}")


@RULES.rule("FV406")
def links(page: Page) -> Iterator[Finding]:
    """Every link inside the repository leads somewhere."""
    anchors = {_slug(text) for _, text in page.headings}
    folder = (page.port.root / page.path).parent
    for number, line in page.lines:
        for target in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", line):
            where, _, anchor = target.partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", target) or where.startswith("//"):
                continue
            if where and not (folder / where).exists():
                yield Finding(f"{page.path}:{number}", f"links to {where}, which is not there")
            elif not where and anchor and anchor not in anchors:
                yield Finding(f"{page.path}:{number}", f"links to #{anchor}, and has no such heading")


def _slug(heading: str) -> str:
    """The anchor of a heading as mkdocs makes it."""
    plain = re.sub(r"[^\w\s-]", "", re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


@RULES.rule("FV407")
def example_command(page: Page) -> Iterator[Finding]:
    """The page shows the command of the example, and the example knows every option in it."""
    path = example_path(page.port)
    file = page.port.root / path
    if not file.is_file():
        yield Finding(path, "is not there")
        return
    commands = _commands(page.text, path)
    if not commands:
        yield Finding(page.path, f"does not say: python {path}")
        return
    known = _options(file.read_text(encoding="utf-8", errors="replace"))
    for number, words in commands:
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in known:
                yield Finding(f"{page.path}:{number}", f"{word.partition('=')[0]} is no option of {path}")


def _commands(text: str, path: str) -> list[tuple[int, list[str]]]:
    """(line, words after the script) for each command that runs `path`, continued lines joined."""
    found, lines = [], text.splitlines()
    for number, line in enumerate(lines):
        if path not in line or not re.search(r"\bpython[\d.]*\s", line):
            continue
        whole, n = line, number
        while whole.rstrip().endswith("\\") and n + 1 < len(lines):
            n += 1
            whole = whole.rstrip()[:-1] + " " + lines[n]
        tail = whole.partition(path)[2].partition("`")[0]
        try:
            found.append((number + 1, shlex.split(tail, comments=True)))
        except ValueError:
            found.append((number + 1, tail.split()))
    return found


def _options(source: str) -> set[str]:
    """The long options that a script gives to argparse."""
    known = {"--help"}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return known
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            known |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return known
