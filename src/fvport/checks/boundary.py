# SPDX-License-Identifier: Apache-2.0
"""`boundary`: what the port's files may hold and import. Parses, never imports; rules FV300 to FV319."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from fvport import evidence as ev
from fvport.checks import Options
from fvport.checks import _classes as classes
from fvport.checks import _conduct as conduct
from fvport.checks import _hot_path as hot_path
from fvport.checks import _imports as imports
from fvport.checks import _native_side as native
from fvport.checks import _sources as sources
from fvport.checks._rules import Family, Finding
from fvport.checks._secrets import secret
from fvport.checks._sources import Source, Sources
from fvport.spec import Port
from fvport.workspace import entries

RULES = Family()
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".npz", ".npy", ".pkl", ".h5", ".msgpack")
MEDIA = (".mp4", ".webm", ".gif", ".wav", ".flac", ".mov", ".avi", ".zip", ".tar", ".gz", ".whl")
MOST_BYTES = 1 << 20


def run(port: Port, options: Options) -> ev.Evidence:
    """One item a rule that holds, one a finding where it does not."""
    found = sources.read(port)
    record = ev.Evidence("boundary", port.slug, items=RULES.items(found))
    edited = [source.path for source in found.files if source.lines is not None]
    if edited:
        record.notes.append(f"FastVideo files that the port changes: {', '.join(edited)}")
    record.notes += [*_reasons(found), *hot_path.notes(found)]
    if not sources.in_git(port):
        record.notes.append(
            "no git tree here: the port's files were found by name, changes of FastVideo's are not seen"
        )
    return record


def inputs(port: Port) -> list[str]:
    names = [f"{'prose' if _synced(port, path) else 'file'}:{path}" for path in sources.paths(port)]
    buckets = sorted({c.bucket for c in port.components.values() if c.mode == "port" and c.config})
    names += [f"file:fastvideo/configs/models/{bucket}/__init__.py" for bucket in buckets]
    tests = [f"file:{port.test_file(c)}" for c in port.components.values() if c.needs_parity]
    return [*names, *tests, "port:components", "port:port", "port:official", "package:fvport"]


def _synced(port: Port, path: str) -> bool:
    folder = port.folder.relative_to(port.root).as_posix()
    return path in (f"docs/inference/{port.slug}.md", *(f"{folder}/{n}.md" for n in ("PLAN", "PORT_STATUS", "README")))


def expected(port: Port) -> list[str]:
    return [rule.id for rule in RULES]


def _at(source: Source, line: int) -> str:
    return f"{source.path}:{line}"


@RULES.rule("FV300")
def parses(s: Sources) -> Iterator[Finding]:
    """Every Python file of the port parses."""
    for source in s.files:
        if source.python and isinstance(source.tree, SyntaxError):
            yield Finding(_at(source, source.tree.lineno or 1), f"does not parse: {source.tree.msg}")


# --- imports ---------------------------------------------------------------------------------------------------------


@RULES.rule("FV301")
def no_foreign_model(s: Sources) -> Iterator[Finding]:
    """Nothing that runs for a user imports a model class of another library (tokenizers and processors may)."""
    allowed = {c.path for c in s.port.components.values() if c.mode == "external"}
    for source in s.files:
        if not (source.runtime and source.python) or source.path in allowed or isinstance(source.tree, SyntaxError):
            continue
        for line, what in sorted(set(imports.runtime_imports(source.tree, _official_packages(s.port)))):
            if source.mine(line):
                todo = "Write it with FastVideo's layers, or declare the component external with a reason"
                yield Finding(_at(source, line), what, todo, s.component_of(source.path))


def _official_packages(port: Port) -> frozenset[str]:
    """Import names of the official code where it is a repository: what lies at its import root, and its name."""
    if not port.official.repo:
        return frozenset()
    name = port.official.repo.rstrip("/").removesuffix(".git").rpartition("/")[2]
    names = {re.sub(r"\W", "_", word) for word in (name, name.lower())}
    for clone in (port.root / name, port.root / ".fvport" / "official" / name):
        root = clone / port.official.import_root
        if root.is_dir():
            names |= {entry.parent.name for entry in root.glob("*/__init__.py")}
    return frozenset(names - {"fastvideo", "tests", "scripts", "docs", "examples"})


@RULES.rule("FV302")
def no_gate_at_run_time(s: Sources) -> Iterator[Finding]:
    """Nothing that runs for a user imports fvport, the oracle or a test, or changes sys.path."""
    for source in s.files:
        if not source.runtime:
            continue
        for node in source.nodes:
            for line, module in _imported(node):
                if module.split(".")[0] in ("fvport", "oracle", "tests", "conftest", "pytest"):
                    yield Finding(_at(source, line), f"imports {module}", component=s.component_of(source.path))
            if isinstance(node, ast.Attribute) and node.attr == "path" and imports._dotted(node) == "sys.path":
                yield Finding(_at(source, node.lineno), "uses sys.path", component=s.component_of(source.path))


@RULES.rule("FV303")
def oracle_apart(s: Sources) -> Iterator[Finding]:
    """oracle.py imports the official library, torch and numpy, and nothing of FastVideo, fvport or the port."""
    path = (s.port.folder / "oracle.py").relative_to(s.port.root).as_posix()
    source = s.get(path)
    if source is None:
        if any(c.needs_parity for c in s.port.components.values()):
            yield Finding(path, "is not there, so nothing says what the official side does")
        return
    for node in source.nodes:
        for line, module in _imported(node):
            own = s.port.root.joinpath(*module.split(".")).with_suffix(".py").is_file()
            beside = (s.port.folder / f"{module.split('.')[0]}.py").is_file()
            if module.split(".")[0] in ("fastvideo", "fvport", "tests") or module.startswith(".") or own or beside:
                yield Finding(_at(source, line), f"imports {module}: two sides with one helper agree on a fault")
        if isinstance(node, ast.Call) and imports._dotted(node.func) in ("importlib.import_module", "__import__"):
            name = imports._constant(node.args[0]) if node.args else None
            if not isinstance(name, str) or name.split(".")[0] in ("fastvideo", "fvport", "tests"):
                yield Finding(_at(source, node.lineno), f"imports {name or 'a name made while it runs'}")


def _imported(node: ast.AST) -> list[tuple[int, str]]:
    """(line, module) of what an import statement imports; [] for any other node."""
    if isinstance(node, ast.Import):
        return [(node.lineno, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.lineno, "." * node.level + (node.module or ""))]
    return []


# --- what no file may hold -------------------------------------------------------------------------------------------


@RULES.rule("FV304")
def no_secret(s: Sources) -> Iterator[Finding]:
    """No file of the port holds a token, a key or a password."""
    for source in s.files:
        for number, line in source.numbered():
            what = secret(line, hashes=source.path.endswith((".lock", ".lock.json")))
            if what:
                yield Finding(
                    _at(source, number), f"holds {what}", "Take it out, revoke it, and name the variable only"
                )


@RULES.rule("FV305")
def no_weights(s: Sources) -> Iterator[Finding]:
    """No weights, media or file over 1 MiB is part of the port."""
    for source in s.files:
        if source.path.lower().endswith(WEIGHTS + MEDIA):
            yield Finding(source.path, "weights, media and archives are never committed")
        elif source.size > MOST_BYTES:
            yield Finding(source.path, f"is {source.size / 2**20:.1f} MiB, over 1 MiB")


_PLACEHOLDER = re.compile(
    r"FVPORT-DECIDE|\b(TODO|FIXME|XXX)\b|<(family|model|slug|model_family|your[-_ ]\w+)>"
    r"|\{\{.*?\}\}|\{%.*?%\}"
)


@RULES.rule("FV306")
def no_placeholder(s: Sources) -> Iterator[Finding]:
    """Nothing is left to decide or to write: no FVPORT-DECIDE, TODO, template tag or NotImplementedError."""
    for source in s.files:
        if source.path.startswith(sources.GATE_ONLY) or source.path.endswith((".lock", "/AGENTS.md")):
            continue
        told = set()
        for number, line in source.numbered():
            if found := _PLACEHOLDER.search(line):
                told.add(number)
                yield Finding(_at(source, number), f"holds {found[0]}", component=s.component_of(source.path))
        for node in source.nodes:
            if isinstance(node, ast.Raise) and node.exc is not None:
                if told.intersection(range(node.lineno, (node.end_lineno or node.lineno) + 1)):
                    continue  # raise NotImplementedError("FVPORT-DECIDE: ..."): one thing to write
                name = imports._dotted(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
                if name == "NotImplementedError":
                    yield Finding(_at(source, node.lineno), f"raises {name}", component=s.component_of(source.path))


_MACHINE = re.compile(r"(?<![\w.$}])(/(?:home|Users)/[\w.-]+|/(?:root|mnt|scratch|data|work|tmp)/)|[A-Z]:\\Users")


@RULES.rule("FV307")
def no_machine_path(s: Sources) -> Iterator[Finding]:
    """No file of the port names a folder of somebody's machine."""
    for source in s.files:
        if source.path.startswith(sources.GATE_ONLY):
            continue
        for number, line in source.numbered():
            found = _MACHINE.search(line)
            if found and not re.search(r"https?://\S*" + re.escape(found[0]), line):
                yield Finding(_at(source, number), f"names {found[0]}", "Use a path relative to the repository")


# --- FastVideo's layout ----------------------------------------------------------------------------------------------


@RULES.rule("FV308")
def right_bucket(s: Sources) -> Iterator[Finding]:
    """A component's class and config lie in the folders of its kind."""
    for c in s.ported:
        if not c.native.startswith(f"fastvideo.models.{c.bucket}."):
            yield Finding(c.native_file, f"a {c.kind} belongs into fastvideo/models/{c.bucket}/", component=c.name)
        if c.config and not c.config.startswith(f"fastvideo.configs.models.{c.bucket}."):
            yield Finding(
                c.config_file, f"its config belongs into fastvideo/configs/models/{c.bucket}/", component=c.name
            )


@RULES.rule("FV309")
def right_config_base(s: Sources) -> Iterator[Finding]:
    """A component's config class derives from the config base of its kind."""
    for c in s.ported:
        module, _, name = c.config.partition(":")
        wanted = classes.CONFIG_BASES.get(c.kind)
        if not c.config or not wanted:
            continue
        found = classes.ancestors(s.port.root, module, name)
        if found is None:
            yield Finding(c.config_file, f"has no class {name}", component=c.name)
        elif not wanted & found:
            what = (
                f"{name} derives from {', '.join(sorted(found)) or 'nothing'}, not from {' or '.join(sorted(wanted))}"
            )
            yield Finding(c.config_file, what, component=c.name)


@RULES.rule("FV310")
def right_class_base(s: Sources) -> Iterator[Finding]:
    """A component's class is there and derives from FastVideo's base class of its kind."""
    for c in s.ported:
        found = classes.ancestors(s.port.root, c.native.partition(":")[0], c.native_class)
        wanted = classes.MODEL_BASES.get(c.kind)
        if found is None:
            yield Finding(c.native_file, f"has no class {c.native_class}", component=c.name)
        elif wanted and not wanted & found:
            what = f"{c.native_class} derives from {', '.join(sorted(found)) or 'nothing'}"
            yield Finding(c.native_file, f"{what}, not from {' or '.join(sorted(wanted))}", component=c.name)


@RULES.rule("FV311")
def entry_class(s: Sources) -> Iterator[Finding]:
    """A component's file and the pipeline's file say their class as EntryClass, in the form that FastVideo reads."""
    for c in s.ported:
        names = entries.entry_class(s.port.root / c.native_file)
        if names is not None and c.native_class not in names:
            said = f"EntryClass is {', '.join(names)}" if names else "has no EntryClass"
            yield Finding(c.native_file, f"{said}, not {c.native_class}", component=c.name)
    folder = f"fastvideo/pipelines/basic/{s.port.slug}"
    files = [source for source in s.files if source.path.startswith(f"{folder}/") and source.python]
    if s.port.official.pipeline.cls and not any(entries.entry_class(s.port.root / f.path) for f in files):
        yield Finding(f"{folder}/", "no file says EntryClass, so FastVideo finds no pipeline")


@RULES.rule("FV312")
def exported(s: Sources) -> Iterator[Finding]:
    """A component's config class is exported by its bucket's `__init__.py`, by import and by `__all__`."""
    for c in s.ported:
        module, _, name = c.config.partition(":")
        if not c.config or not c.bucket:
            continue
        path = f"fastvideo/configs/models/{c.bucket}/__init__.py"
        imported, listed = classes.exports(s.port.root / path)
        if imported.get(name) != module:
            yield Finding(path, f"does not import {name} from {module}", "Run: fvport workspace", c.name)
        elif listed is not None and name not in listed:
            yield Finding(path, f"__all__ does not list {name}", "Run: fvport workspace", c.name)


@RULES.rule("FV313")
def tests_compare(s: Sources) -> Iterator[Finding]:
    """Every component has a parity test that calls parity.compare with its name, with no skip, try or tolerance."""
    for c in s.port.components.values():
        if not c.needs_parity:
            continue
        path = s.port.test_file(c)
        source = s.get(path) or sources._source(s.port.root, path, None)
        if not (s.port.root / path).is_file():
            yield Finding(path, "is not there", component=c.name)
        elif not isinstance(source.tree, SyntaxError):
            for line, what in classes.test_problems(source.tree, c.name):
                yield Finding(_at(source, line), what, component=c.name)
    for source in s.files:
        if re.match(r"tests/local_tests/(pipelines/test_|[^/]+/test_)", source.path):
            for line, what in classes.skips(source.tree):
                if source.path not in {s.port.test_file(c) for c in s.port.components.values()}:
                    yield Finding(_at(source, line), what)


@RULES.rule("FV314")
def external_isolated(s: Sources) -> Iterator[Finding]:
    """An external component lives in one wrapper file that imports the other library inside functions only."""
    for c in s.port.components.values():
        if c.mode != "external":
            continue
        source = s.get(c.path) if c.path else None
        if source is None or isinstance(source.tree, SyntaxError):
            yield Finding(c.path or f"components.{c.name}.path", "names no wrapper file", component=c.name)
            continue
        for node in source.tree.body:
            for line, what in imports.runtime_imports(node) if not _defines(node) else ():
                yield Finding(_at(source, line), f"{what} when it is imported, not when it is used", component=c.name)


def _defines(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


@RULES.rule("FV315")
def attention_layers(s: Sources) -> Iterator[Finding]:
    """A ported DiT attends with DistributedAttention (full sequence) and LocalAttention, not with torch's functions."""
    for c in s.ported:
        source = s.get(c.native_file)
        if c.kind != "dit" or source is None:
            continue
        own = {"scaled_dot_product_attention", "MultiheadAttention", "flash_attn_func", "memory_efficient_attention"}
        for node in source.nodes:
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in own:
                yield Finding(_at(source, getattr(node, "lineno", 1)), f"calls {name}", _ATTEND, component=c.name)
        used = {node.id for node in source.nodes if isinstance(node, ast.Name)}
        if "LocalAttention" in used and "DistributedAttention" not in used and not _NOT_FULL.search(source.text or ""):
            what = "has LocalAttention alone: full-sequence self-attention needs DistributedAttention"
            todo = "Where no softmax attention goes over the whole sequence, say why: # no DistributedAttention: REASON"
            yield Finding(source.path, what, todo, component=c.name)


_ATTEND = (
    "Self-attention over the sequence goes through DistributedAttention, other attention through LocalAttention; a "
    "mask goes there as set_forward_context(..., attn_metadata=SDPAMetadata(current_timestep=0, attn_mask=mask))"
)
# A linear-attention or windowed transformer has no softmax attention over the sequence; only a person can say so.
_NOT_FULL = re.compile(r"#[ \t]*no DistributedAttention:[ \t]*(\S+[ \t]+\S.*)")


def _reasons(s: Sources) -> Iterator[str]:
    """What a person wrote in place of DistributedAttention: a risk that the gate and the report show."""
    for c in s.ported:
        source = s.get(c.native_file)
        for reason in _NOT_FULL.findall((source.text or "") if source else ""):
            yield f"{c.name}: no DistributedAttention, {reason.strip()} (said in {c.native_file})"


# --- what would make the evidence worthless --------------------------------------------------------------------------


@RULES.rule("FV316")
def nothing_deleted(s: Sources) -> Iterator[Finding]:
    """The port deletes no file of FastVideo."""
    for source in s.files:
        if source.gone:
            yield Finding(source.path, "is FastVideo's and is deleted", "Bring it back from the commit before the port")


@RULES.rule("FV317")
def tests_use_the_native_side(s: Sources) -> Iterator[Finding]:
    """A parity test has no way to the official side: it computes with the native object that it is given."""
    tests = {s.port.test_file(c): c for c in s.port.components.values() if c.needs_parity}
    for path, component in tests.items():
        source = s.get(path) or sources._source(s.port.root, path, None)
        if source.python and isinstance(source.tree, ast.Module):
            for line, what in native.problems(source.tree):
                yield Finding(_at(source, line), what, component=component.name)
    for source in s.files:
        if source.path.endswith("conftest.py") and source.path.startswith("tests/") and source.lines is None:
            for line, what in native.conftest_problems(source.tree):
                yield Finding(_at(source, line), what)


RULES.rule("FV318")(conduct.judge_not_looked_for)
RULES.rule("FV319")(conduct.fastvideo_left_alone)
