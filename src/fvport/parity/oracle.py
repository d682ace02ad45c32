# SPDX-License-Identifier: Apache-2.0
"""The official side, apart: it runs in a process of its own, and what it computed is kept by everything it depends on.

    results(port, "transformer")   inputs and outputs of a component, float32 and float64, from the cache where valid
    call(port, "run_pipeline", [folder, arguments, out])   any other function of oracle.py, never cached here

For a component NAME, `build_NAME(folder, dtype)` is given the component's own folder of the official weights,
`inputs_NAME(config, seed)` that folder's JSON config, and `call_NAME(built, case)` one case with its floating tensors
in the run's dtype.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import fastvideo_api
from fvport.errors import BlockedError, FvportError
from fvport.models import kept
from fvport.models.forked import signal_words, tail
from fvport.parity import compare, tree
from fvport.spec import Component, Port
from fvport.workspace import upstream

RUNNER = Path(__file__).with_name("oracle_runner.py")
OWN_CODE = ("oracle_runner.py", "tree.py", "oracle_contract.py", "record.py", "probe.py", "../contract/root.py")
SEED = 20_240_229
TIME_LIMIT = 3600.0
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "safetensors")


@dataclass(frozen=True)
class Oracle:
    """What the official side computed for one component."""

    component: str
    folder: Path
    meta: dict[str, Any]
    cached: bool
    tensors: dict[str, dict[str, Any]] = field(repr=False, default_factory=dict)

    @property
    def cases(self) -> list[str]:
        return list(self.meta["cases"])

    def inputs(self, case: str, device: str = "cpu", change: Any = None) -> Any:
        """The case's inputs as `inputs_NAME` made them (float32), a fresh copy; `change(name, tensor)` alters them."""
        tensors = self.tensors["inputs"]
        if change is not None:
            tensors = {key: change(key, tensor) for key, tensor in tensors.items()}
        return tree.unpack(self.meta["inputs"][case], tensors, lambda t: t.clone().to(device))

    def late(self, device: str = "cpu") -> dict[str, Any]:
        """{case: inputs of another seed}: what they make the official side answer is on no disk; {} without a seed."""
        trees, tensors = self.meta.get("late", {}), self.tensors.get("late", {})
        return {case: tree.unpack(found, tensors, lambda t: t.clone().to(device)) for case, found in trees.items()}

    def outputs(self, case: str) -> compare.Outputs:
        def of(run: str) -> dict[str, Any]:
            found = self.tensors.get(run, {})
            return {key[len(case) + 1 :]: t for key, t in found.items() if key.startswith(case + "/")}

        containers = self.meta.get("containers", {}).get(case, {})
        return compare.Outputs(of("float32"), containers, of("float64"), of("noise"), self.meta.get("no_float64", ""))

    def given(self, case: str) -> dict[str, Any]:
        """Masks and positions that the official model itself was given; {} where it was not watched."""
        found = self.tensors.get("given", {})
        return {key[len(case) + 1 :]: t.clone() for key, t in found.items() if key.startswith(case + "/")}


def results(port: Port, name: str, *, device: str = "auto", seed: int = SEED, fresh: bool = False) -> Oracle:
    """The official side of a component. Raises FvportError naming oracle.py's line, BlockedError without weights."""
    component = port.component(name)
    official_folder(port, component)
    device = fastvideo_api.resolve_device(device)
    place = port.state / "cache" / "oracle" / f"{name}.{key(port, component, device, seed)}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with kept.alone(place):
        if kept.hold(place) and not fresh:
            return _read(name, place, cached=True)
        _settled(port, _job(port, name, device, seed), name, place)
    return _read(name, place, cached=False)


@contextlib.contextmanager
def ahead(port: Port, name: str, *, device: str = "auto") -> Iterator[None]:
    """The official side's process works while the caller boots FastVideo, which uses one core and no weights.

    What goes wrong there is raised at the end, unless the body raised first.
    """
    if "fastvideo" in sys.modules:  # nothing to wait for beside it
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(results, port, name, device=device)
        yield
        made.result()


def prepare(port: Port, names: list[str], *, device: str = "auto", seed: int = SEED) -> None:
    """Make the results of several components in one process, where they are not kept: imports are paid once.

    Nothing is raised: a component whose job did not come to its end is made again, apart, when it is asked for.
    """
    device = fastvideo_api.resolve_device(device)
    places: dict[str, Path] = {}
    for name in names:
        with contextlib.suppress(FvportError):
            component = port.component(name)
            official_folder(port, component)
            place = port.state / "cache" / "oracle" / f"{name}.{key(port, component, device, seed)}"
            if not place.is_dir():
                places[name] = place
    if len(places) < 2:
        return
    home = next(iter(places.values())).parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".several.", dir=home) as scratch:
        jobs = []
        for name in places:
            out = Path(scratch) / name
            out.mkdir()
            jobs.append({**_job(port, name, device, seed), "out": str(out.resolve())})
        with contextlib.suppress(FvportError):
            _run(port, {"what": "components", "jobs": jobs}, Path(scratch), ", ".join(places))
        for name, place in places.items():
            with contextlib.suppress(OSError, ValueError), kept.alone(place):
                meta = json.loads((Path(scratch) / name / "meta.json").read_text(encoding="utf-8"))
                if "error" not in meta and not meta.get("modified") and not place.is_dir():
                    kept.settle(Path(scratch) / name, place)
                    kept.prune_folders(place, name)


def _job(port: Port, name: str, device: str, seed: int) -> dict[str, Any]:
    """What the official side's process is asked for one component."""
    component = port.component(name)
    return {
        "what": "component",
        "component": name,
        "folder": str(official_folder(port, component)),
        "config": _config(config_folder(port, component)),
        "seed": seed,
        "device": device,
        "contract": _has_contract(component),
    }


def _settled(port: Port, job: dict[str, Any], name: str, place: Path) -> None:
    """Run a job in a folder beside `place`, which then gets its name: never a half-written result."""
    part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=place.parent))
    try:
        _run(port, job, part, name)
        if place.exists():  # a fresh one was asked for
            shutil.rmtree(place)
        kept.settle(part, place)  # a half-written result never gets the name
    finally:
        shutil.rmtree(part, ignore_errors=True)
    kept.prune_folders(place, name)


def _has_contract(component: Component) -> bool:
    """Encoders and conditioners are watched while they run (`fvport.contract`)."""
    return component.bucket == "encoders"


def call(port: Port, function: str, arguments: list[Any], *, timeout: float = TIME_LIMIT) -> Any:
    """Run one function of oracle.py apart, such as `run_pipeline(folder, call, out)`; its value must be JSON."""
    with tempfile.TemporaryDirectory(prefix="fvport-oracle-") as out:
        return _run(port, {"what": function, "arguments": arguments}, Path(out), function, timeout).get("value")


def config_folder(port: Port, component: Component) -> Path:
    """Where the component's official config lies."""
    return port.official_tree / (component.weights or component.name)


def official_folder(port: Port, component: Component) -> Path:
    """What `build_NAME` is given: the component's folder; the whole release, as it came, where it was converted.

    The converted weights are ours: an official side that read them would repeat a mistake of the conversion.
    """
    folder = config_folder(port, component)
    if port.official.needs_conversion and component.has_weights:
        folder = port.official_weights
    if not folder.is_dir():
        shown = f"{port.official.weights}/{component.weights or component.name}"
        raise BlockedError(f"no official weights for {component.name} ({shown})", todo="Run: nox -s prep")
    if not (port.folder / "oracle.py").is_file():
        raise BlockedError("no oracle.py", where=str(port.folder), todo="Bake the port again: fvport new")
    return folder


def key(port: Port, component: Component, device: str, seed: int) -> str:
    """Digest of everything that the official side's numbers depend on."""
    folder = official_folder(port, component)
    files = [(str(f.relative_to(folder)), *_stat(f)) for f in sorted(folder.rglob("*")) if f.is_file()]
    texts = {f.name: ev.blake3(f.read_bytes()) for f in sorted(config_folder(port, component).glob("*.json"))}
    whole = {
        "oracle": ev.blake3((port.folder / "oracle.py").read_bytes()),
        "official": port.raw.get("official"),
        "component": [component.name, component.kind, component.official, component.weights],
        "lock": ev.digest(port, f"weights:{component.name}"),
        "files": files,
        "texts": texts,
        "packages": ev.digests(port, [f"package:{name}" for name in PACKAGES]),
        "code": code(port),
        "runner": [ev.blake3((RUNNER.parent / name).read_bytes()) for name in OWN_CODE],
        "python": [sys.version, _python(port)],
        "device": [device, fastvideo_api.device_of(port.root, device)["name"]],
        "seed": seed,
    }
    return ev.blake3(ev.canonical(whole)).partition(":")[2][:32]


def roots(port: Port) -> list[Path]:
    """Folders beside oracle.py that the official side may import from: the clone, and what lies with the port."""
    named = [root for root in (port.reference, port.import_root) if root]
    return [*dict.fromkeys(named), port.root / "reference", port.folder / "official"]


def code_inputs(port: Port) -> list[str]:
    """The official side's own code and environment, as names of a record's inputs."""
    trees = [root for root in roots(port) if root.is_dir() or root in (port.import_root, port.reference)]
    names = [f"tree:{os.path.relpath(root, port.root)}" for root in trees]
    helper = upstream.file_of(port)
    if helper.is_file() or port.official.repo:
        names.append(f"file:{os.path.relpath(helper, port.root)}")
    return [*names, f"file:{port.official.requirements}"] if port.official.requirements else names


def code(port: Port) -> dict[str, Any]:
    """Digests of `code_inputs`, and what the oracle's own environment really holds where it has one."""
    found: dict[str, Any] = dict(ev.digests(port, code_inputs(port)))
    if port.official.requirements:
        site = (port.state / "oracle-env").glob("lib/python*/site-packages/*.dist-info")
        found["installed"] = sorted(path.name.removesuffix(".dist-info") for path in site)
    return found


def _stat(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _config(folder: Path) -> dict[str, Any]:
    for name in ("config.json", "scheduler_config.json"):
        if (folder / name).is_file():
            try:
                found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
                return found
            except ValueError as error:
                raise FvportError(f"is not JSON ({error})", where=str(folder / name)) from None
    return {}


def _python(port: Port) -> str:
    """The interpreter for the oracle: its own environment where port.toml asks for one."""
    if not port.official.requirements:
        return sys.executable
    own = port.state / "oracle-env" / "bin" / "python"
    if not own.is_file():
        lock = port.official.requirements
        todo = f"Run: fvport prep (or: uv venv {own.parent.parent} && uv pip install --python {own} -r {lock})"
        raise BlockedError(f"the oracle's own environment ([official] requirements = {lock!r}) is not there", todo=todo)
    return str(own)


def _run(port: Port, job: dict[str, Any], out: Path, name: str, timeout: float = TIME_LIMIT) -> dict[str, Any]:
    allowed = [str(port.import_root.resolve())] if port.import_root else []
    readable = [*allowed, *(str(root.resolve()) for root in roots(port))]
    helper = upstream.file_of(port)
    job = {**job, "oracle": str((port.folder / "oracle.py").resolve()), "root": str(port.root.resolve())}
    job |= {"stand_ins": str(helper) if helper.is_file() else ""}
    job |= {"out": str(out.resolve()), "allowed": readable, "import_path": allowed}
    file, log = out / "job.json", out / "log.txt"
    file.write_text(json.dumps(job), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTVIDEO_", "FVPORT_"))}
    env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    command = [_python(port), "-I", str(RUNNER), str(file)]
    try:
        with log.open("wb") as stream:
            done = subprocess.run(
                command,
                check=False,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                timeout=timeout,
                cwd=out,
            )
    except subprocess.TimeoutExpired:
        raise FvportError(f"the official side of {name} was still running after {timeout:.0f} s{tail(log)}") from None
    try:
        meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        code = done.returncode
        words = signal_words(-code) if code < 0 else f"ended with code {code}"
        raise FvportError(f"the official side of {name} {words}{tail(log)}") from None
    return _checked(meta, name)


def _checked(meta: dict[str, Any], name: str) -> dict[str, Any]:
    if "error" in meta:
        where = f" at {meta['line']}" if meta.get("line") else ""
        raise FvportError(f"the official side of {name} raised{where}: {meta['error']}", todo="Correct oracle.py")
    if meta.get("modified"):
        names = ", ".join(meta["modified"])
        raise FvportError(
            f"the official side of {name} changed its inputs in place ({names})",
            todo=f"Clone them in call_{name} of oracle.py: both sides must see the same inputs",
        )
    return meta


def _read(name: str, place: Path, *, cached: bool) -> Oracle:
    from safetensors.torch import load_file

    meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
    runs = ("inputs", "late", "float32", "float64", "noise", "given")
    tensors = {run: load_file(place / f"{run}.safetensors") for run in runs if (place / f"{run}.safetensors").is_file()}
    return Oracle(name, place, meta, cached, tensors)
