# SPDX-License-Identifier: Apache-2.0
"""What a Python file can import while it runs, read from its syntax tree: statements, importlib, getattr and such.

Model libraries may give a port tokenizers, processors, configurations and plain helpers; a class that holds weights or
computes with them must be FastVideo's own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LIBRARIES = {
    *(
        "diffusers",
        "transformers",
        "timm",
        "open_clip",
        "clip",
        "sentence_transformers",
        "peft",
        "fairseq",
        "modelscope",
    ),
    *(
        "vllm",
        "sglang",
        "comfy",
        "audiocraft",
        "stable_audio_tools",
        "k_diffusion",
        "xfuser",
        "mmcv",
        "mmengine",
        "accelerate",
    ),
}
PARTS = (
    "torchvision.models",
    "torchaudio.models",
    "torchaudio.pipelines",
    "torch.hub",
)  # model zoos inside other libraries
_PLAIN_MODULES = re.compile(
    r"diffusers\.(utils|configuration_utils|image_processor|video_processor|schedulers\.scheduling_utils)(\.|$)"
    r"|transformers\.(utils|image_utils|image_processing\w*|processing_utils|tokenization\w*|feature_extraction\w*"
    r"|configuration_utils|modeling_outputs|modeling_rope_utils|activations)(\.|$)"
    r"|transformers\.models\.\w+\.(tokenization|processing|image_processing|configuration|feature_extraction)\w*$"
    r"|accelerate\.utils(\.|$)"
)
_PLAIN_NAMES = re.compile(
    r".*(Tokenizer|TokenizerFast|Processor|ImageProcessorFast|FeatureExtractor|Config)$|BatchEncoding$|BatchFeature$"
    r"|(utils|logging|__version__)$|Tensor[Tt]ype$"
)


def forbidden(module: str, name: str = "", more: frozenset[str] = frozenset()) -> bool:
    """Whether `from module import name` (or `import module`, or `module.name`) can bring a foreign model class."""
    if module == name == "":
        return False
    whole = f"{module}.{name}" if name else module
    if any(whole == part or whole.startswith(f"{part}.") for part in PARTS):
        return True
    top = module.partition(".")[0]
    if top in more:
        return True
    if top not in LIBRARIES or _PLAIN_MODULES.match(f"{module}.") or _PLAIN_MODULES.match(whole):
        return False
    return not name or not _PLAIN_NAMES.match(name)


def runtime_imports(tree: ast.AST, more: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
    """(line, sentence) for each way in which the file can reach a forbidden class; `more` are further packages."""
    skipped = _type_checking(tree)
    names = _Names(tree, skipped)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if (alias.name.count(".") and forbidden(alias.name, "", more)) or top in more:
                    yield node.lineno, f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if forbidden(node.module or "", alias.name, more):
                    yield node.lineno, f"imports {alias.name} from {node.module}"
        elif isinstance(node, ast.Attribute):
            owner = names.module_of(node.value)
            if owner and forbidden(owner, node.attr, more) and not names.is_module(f"{owner}.{node.attr}"):
                yield node.lineno, f"uses {owner}.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _call(node, names, more)
        elif isinstance(node, ast.Subscript):
            key = _word(node.slice)
            if _dotted(node.value) == "sys.modules" and (key is None or key.partition(".")[0] in LIBRARIES | more):
                yield node.lineno, "reaches into sys.modules"


def _call(node: ast.Call, names: _Names, more: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Calls that import or look up by name: what they name must be a constant, and allowed."""
    called = names.resolve(_dotted(node.func))
    first = _word(node.args[0]) if node.args else None
    if called in ("importlib.import_module", "__import__", "pydoc.locate", "pkgutil.resolve_name"):
        top = (first or "").partition(".")[0].partition(":")[0]
        if first is None:
            yield node.lineno, f"{called} of a name that is put together while it runs"
        elif top in LIBRARIES | more:
            yield node.lineno, f"{called} of {first}"
    elif called in ("importlib.util.spec_from_file_location", "runpy.run_path", "runpy.run_module"):
        yield node.lineno, f"{called} loads code from outside"
    elif called in ("exec", "eval", "builtins.exec", "builtins.eval"):
        yield node.lineno, f"{called} hides what is run"
    elif called == "torch.hub.load":
        yield node.lineno, "torch.hub.load brings a model of another library"
    elif called in ("getattr", "builtins.getattr") and node.args and (owner := names.module_of(node.args[0])):
        name = _word(node.args[1]) if len(node.args) > 1 else None
        if (owner.partition(".")[0] in LIBRARIES | more) and (name is None or forbidden(owner, name, more)):
            yield node.lineno, f"getattr({owner}, {name or '...'})"
    elif called.endswith((".from_pretrained", ".from_config")) and any(
        k.arg == "trust_remote_code" and _constant(k.value) is not False for k in node.keywords
    ):
        yield node.lineno, "trust_remote_code runs the checkpoint's own code"


class _Names:
    """What the names of a file stand for: modules bound by import statements, with their aliases."""

    def __init__(self, tree: ast.AST, skipped: set[ast.AST]) -> None:
        self.bound: dict[str, str] = {}
        self.modules: set[str] = set()
        for node in ast.walk(tree):
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.modules.add(alias.name)
                    self.bound[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self.bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                called = _dotted(node.value.func)
                if called.endswith(("import_module", "__import__")) and node.value.args:
                    for target in node.targets:
                        if isinstance(target, ast.Name) and (module := _word(node.value.args[0])):
                            self.bound[target.id] = module

    def resolve(self, dotted: str) -> str:
        head, _, rest = dotted.partition(".")
        return ".".join(part for part in (self.bound.get(head, head), rest) if part)

    def module_of(self, node: ast.expr) -> str:
        """The library path that an expression stands for, or ''."""
        dotted = _dotted(node)
        head = dotted.partition(".")[0]
        return self.resolve(dotted) if head in self.bound else ""

    def is_module(self, path: str) -> bool:
        return any(module == path or module.startswith(f"{path}.") for module in self.modules)


def _type_checking(tree: ast.AST) -> set[ast.AST]:
    """Nodes that never run: the bodies of `if TYPE_CHECKING:`."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _dotted(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for statement in node.body:
                found |= set(ast.walk(statement))
    return found


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, `a` of a name, else ''."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _word(node: ast.AST | None) -> str | None:
    """The text of a string constant; None for all else, which no reader of names can judge."""
    value = _constant(node)
    return value if isinstance(value, str) else None
