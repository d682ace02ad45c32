# SPDX-License-Identifier: Apache-2.0
"""Can the official code be imported where the oracle runs? Asked of a child process in exactly that environment.

What is imported: everything that oracle.py imports, and every `module:Class` that port.toml calls official. The answer
is one of FastVideo's three words, with every missing module and where it is asked for.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError
from fvport.models.forked import tail
from fvport.progress import beat
from fvport.redact import redact, without_secrets
from fvport.spec import Port
from fvport.workspace import upstream

PROBE = Path(__file__).with_name("official_probe.py")
WORDS = ("imports_ok", "private_deps_need_stubs", "blocked")
TIME_LIMIT = 900.0


@dataclass
class OfficialEnv:
    """`status` is imports_ok, private_deps_need_stubs or blocked; the rest says why."""

    status: str
    missing: list[dict[str, str]] = field(default_factory=list)  # module, where, of
    problems: list[dict[str, str]] = field(default_factory=list)  # target, where, words
    late: list[dict[str, str]] = field(default_factory=list)  # module, where: only when a function is called
    stood_in: list[str] = field(default_factory=list)  # missing modules that the helper file stands in for
    versions: dict[str, list[str]] = field(default_factory=dict)  # package: [version, end of its path]
    python: str = ""
    helper: str = ""  # the helper file, relative to the port's root, where there is one
    added: list[str] = field(default_factory=list)  # lines that this run wrote into it

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def modules(self) -> list[str]:
        return sorted({entry["module"] for entry in self.missing} | set(self.stood_in))

    def text(self) -> str:
        lines = [f"official environment: {self.status} (Python {self.python})"]
        for name, (version, where) in self.versions.items():
            lines.append(f"  {name} {version or '(no version)'}: {where}")
        for entry in self.missing:
            of = f" ({entry['of']} is installed and has no such part: another version?)" if entry["of"] else ""
            lines.append(f"  missing: {entry['module']}, imported at {entry['where']}{of}")
        lines += [f"  stood in for: {name} ({self.helper})" for name in self.stood_in if name not in self.added]
        lines += [f"  fails: {p['target']} at {p['where']}: {p['words']}" for p in self.problems]
        lines += [f"  only when called: {entry['module']}, at {entry['where']}" for entry in self.late]
        if self.added:
            lines.append(f"  stand-ins written to {self.helper}: {', '.join(self.added)}")
            lines.append("  (public ones are better installed for the oracle alone: [official] requirements)")
        return "\n".join(lines)


def check(port: Port) -> OfficialEnv:
    """Ask, and write stand-ins for what is missing. Raises BlockedError where the environment itself is not there."""
    helper = upstream.file_of(port)
    given = upstream.names(helper)
    answer = _ask(port, given)
    found = OfficialEnv("", **{key: answer[key] for key in ("missing", "problems", "late", "stood_in", "versions")})
    found.python = answer["python"]
    # What a stand-in cannot be: a part of another version, or the official package itself.
    other = [entry for entry in found.missing if entry["of"] or entry["where"].startswith(("oracle.py:", "port.toml:"))]
    if found.problems or other:
        found.status = "blocked"
    else:
        found.status = "private_deps_need_stubs" if found.missing or found.stood_in else "imports_ok"
        found.added = upstream.add(port, {entry["module"]: entry["where"] for entry in found.missing})
    if helper.is_file():
        found.helper = helper.relative_to(port.root).as_posix()
    return found


def _ask(port: Port, given: list[str]) -> dict[str, Any]:
    from fvport.parity import oracle

    python = oracle._python(port)
    roots = [str(port.import_root.resolve())] if port.import_root else []
    job = {"import_path": roots, "targets": targets(port), "stubs": given, "stand_ins": upstream.SOURCE}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTVIDEO_", "FVPORT_"))}
    env = without_secrets(env) | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory(prefix="fvport-import-") as folder:
        file, out, log = (Path(folder, name) for name in ("job.json", "out.json", "log.txt"))
        file.write_text(json.dumps(job), encoding="utf-8")
        command = [python, "-I", "-B", str(PROBE), str(file), str(out)]
        with log.open("wb") as stream, beat("importing the official code"):
            try:
                done = subprocess.run(
                    command,
                    check=False,
                    env=env,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    timeout=TIME_LIMIT,
                )
            except subprocess.TimeoutExpired:
                raise BlockedError(f"importing the official code took more than {TIME_LIMIT:.0f} s") from None
            except OSError as error:
                raise BlockedError(f"cannot be run ({error.strerror})", where=python) from None
        try:
            answer: dict[str, Any] = _redacted(json.loads(out.read_text(encoding="utf-8")))
            return answer
        except (OSError, ValueError):
            words = f"importing the official code ended the process with code {done.returncode}{redact(tail(log))}"
            raise BlockedError(words, todo="Does it run something when it is imported?") from None


def _redacted(value: Any) -> Any:
    return json.loads(redact(json.dumps(value)))


def targets(port: Port) -> list[list[str]]:
    """[[module, name or '', where]]: the imports of oracle.py, in order, then the official classes of port.toml."""
    found: dict[tuple[str, str], str] = {}
    file = port.folder / "oracle.py"
    if file.is_file():
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0)
            raise FvportError(f"does not parse ({error})", where=f"{file}:{line}", todo="Correct oracle.py") from None
        for node in ast.walk(tree):
            for module, name in _imported(node):
                found.setdefault((module, name), f"oracle.py:{node.lineno}")  # type: ignore[attr-defined]
    named = [*(c.official for c in port.components.values() if c.mode != "passthrough"), port.official.pipeline.cls]
    for official in named:
        module, _, name = official.partition(":")
        if module and module != "oracle":
            found.setdefault((module, name), f'port.toml: "{official}"')
    return [[module, name, where] for (module, name), where in found.items()]


def _imported(node: ast.AST) -> list[tuple[str, str]]:
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module != "__future__":
        return [(node.module, alias.name) for alias in node.names]
    return []


# --- what was found last time ----------------------------------------------------------------------------------------


def remember(port: Port, found: OfficialEnv) -> None:
    """Keep the answer in `.fvport/prep.json`: it speaks of this machine, so it is no part of the lock."""
    from fvport.weights import lockfile

    port.state.mkdir(parents=True, exist_ok=True)
    lockfile.write(port.state / "prep.json", {"official_env": found.to_json(), "key": key(port)})


def remembered(port: Port) -> OfficialEnv | None:
    """The last answer, where everything that it speaks of is as it was then; else None."""
    try:
        kept = json.loads((port.state / "prep.json").read_text(encoding="utf-8"))
        return OfficialEnv(**kept["official_env"]) if kept["key"] == key(port) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def key(port: Port) -> str:
    """Digest of what decides the answer: what is imported, the clone, the stand-ins, the environment."""
    from fvport.parity import oracle

    packages = {name for module, _, _ in targets(port) for name in [module.partition(".")[0]]}
    whole = {
        "targets": targets(port),
        "root": str(port.import_root or ""),
        "code": oracle.code(port),
        "helper": ev.digest(port, f"file:{upstream.file_of(port).relative_to(port.root).as_posix()}"),
        "packages": ev.digests(port, [f"package:{name}" for name in packages]),
        "probe": [ev.blake3(PROBE.read_bytes()), ev.blake3(upstream.SOURCE.encode())],
        "requirements": port.official.requirements,
    }
    return ev.blake3(ev.canonical(whole))
