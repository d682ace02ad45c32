# SPDX-License-Identifier: Apache-2.0
"""What a run of FastVideo is told, what it says that it saw, and that it ends with whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport import evidence, fastvideo_api
from fvport.errors import FvportError
from fvport.models import ask, kept, native_facts, native_pipeline
from fvport.parity import generating


def tree(root: Path, text: str = "") -> Path:
    """A tree with a `fastvideo` package of one file."""
    (root / "fastvideo").mkdir(parents=True)
    (root / "fastvideo" / "__init__.py").write_text(text, encoding="utf-8")
    return root


def port(root: Path, backend: str = "TORCH_SDPA") -> Any:
    load_tree = root / "converted_weights" / "tiny"
    load_tree.mkdir(parents=True)
    (load_tree / "model_index.json").write_text("{}")
    place = {"root": root, "load_tree": load_tree, "state": root / ".fvport", "slug": "tiny", "components": {}}
    told = {"fastvideo": SimpleNamespace(attention_backend=backend)}
    return SimpleNamespace(**place, **told, port=SimpleNamespace(workload_types=("t2v",)))


# --- told and seen -----------------------------------------------------------------------------------------------


def test_the_shell_does_not_choose_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell says of the attention backend does not count; port.toml's does."""
    root = tree(tmp_path)
    monkeypatch.setenv(fastvideo_api.BACKEND_VARIABLE, "FLASH_ATTN")
    assert fastvideo_api.child_environment(root, "cpu")[fastvideo_api.BACKEND_VARIABLE] == "TORCH_SDPA"
    told = fastvideo_api.child_environment(root, "cpu", backend="SAGE_ATTN")
    assert told[fastvideo_api.BACKEND_VARIABLE] == "SAGE_ATTN"


def test_a_record_states_nothing_that_nobody_saw(tmp_path: Path) -> None:
    """A process that never imported FastVideo says nothing of its path, its determinism or TF32."""
    code = "import sys, json; from fvport import fastvideo_api as f; print(json.dumps(f.environment(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(tree(tmp_path))], capture_output=True, check=True)
    assert not {"deterministic", "tf32", "fastvideo_path", "attention_backend"} & set(json.loads(done.stdout))


@pytest.mark.parametrize("decoy", [False, True])
def test_a_script_notes_which_fastvideo_it_imported(tmp_path: Path, decoy: bool) -> None:
    """A `fastvideo` beside the script shadows the workspace's: the run's own note says so, and it is refused."""
    root = tree(tmp_path / "root")
    script = tmp_path / "elsewhere" / "run.py"
    script.parent.mkdir()
    script.write_text("import fastvideo\n")
    seen = tmp_path / "seen"
    seen.mkdir()
    if decoy:
        tree(script.parent)
    env = fastvideo_api.child_environment(root, "cpu") | {fastvideo_api.SEEN_VARIABLE: str(seen)}
    env["FVPORT_DEVICE"] = "cuda"  # no adaptation: it would import torch
    subprocess.run([sys.executable, str(script)], env=env, check=True)
    answers = fastvideo_api.imported(seen, root)
    if decoy:
        with pytest.raises(FvportError, match="outside the workspace"):
            fastvideo_api.agree(answers, "the example")
    else:
        assert fastvideo_api.agree(answers, "the example") == {"fastvideo_path": "fastvideo/__init__.py"}


def test_a_run_that_says_nothing_is_refused() -> None:
    """No process that imported FastVideo, or two that differ, is no run to speak of."""
    with pytest.raises(FvportError, match="no process says"):
        fastvideo_api.agree([{}], "generation")
    one = {"fastvideo_path": "fastvideo/__init__.py", "tf32": False}
    with pytest.raises(FvportError, match="differ in tf32"):
        fastvideo_api.agree([one, one | {"tf32": True}], "generation")


def test_a_generator_that_fails_is_one_sentence(tmp_path: Path) -> None:
    """VideoGenerator's failure is said with the log's last error, not with a traceback about a missing file."""
    root = tree(tmp_path, 'raise RuntimeError("no such head size")\n')
    call = {"name": "p0s0", "arguments": {}}
    with pytest.raises(FvportError, match=r"VideoGenerator failed: .*no such head size"):
        native_pipeline.run(port(root), [call], tmp_path / "out", tmp_path / "logs" / "a.log", "cuda")
    assert native_pipeline.last_words(tmp_path / "nowhere") == "it said nothing"


# --- what FastVideo resolves ----------------------------------------------------------------------------------------


def test_only_the_hub_id_is_answered_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub id gets the release's own index; a folder is read by FastVideo as it lies there."""
    tiny = port(tree(tmp_path))
    tiny.official_weights = tmp_path / "official"
    tiny.official_weights.mkdir()
    tiny.official_tree = tiny.official_weights
    (tiny.official_weights / "model_index.json").write_text('{"_class_name": "OfficialPipeline"}')
    registry: Any = types.ModuleType("fastvideo.registry")
    registry.maybe_download_model_index = lambda path, **_: {"_class_name": f"read from {path}"}
    info = {"pipeline_config_cls": Path, "pipeline_cls": Path}
    seen: dict[str, str] = {}

    def get_model_info(path: str) -> Any:
        seen[path] = registry.maybe_download_model_index(path)["_class_name"]
        return SimpleNamespace(**info)

    registry.get_model_info, registry.get_preset_selection = get_model_info, lambda path: ("a", "b")
    package: Any = types.ModuleType("fastvideo")
    package.registry = registry
    monkeypatch.setitem(sys.modules, "fastvideo", package)
    monkeypatch.setitem(sys.modules, "fastvideo.registry", registry)
    paths = {"official folder": "official", "load tree": "tree", "hub id": "org/tiny"}
    native_facts.resolutions(tiny, {"paths": paths})
    assert seen == {"official": "read from official", "tree": "read from tree", "org/tiny": "OfficialPipeline"}


# --- what several processes keep ----------------------------------------------------------------------------------

KEY = "0123456789abcdef01234567"


def test_a_folder_that_another_process_reads_is_not_removed(tmp_path: Path) -> None:
    """Pruning leaves a held folder and another process's half-made one, and removes what nobody holds."""
    folder = tmp_path / "cache" / "generation"
    old, free, new, part = (
        folder / n for n in (f"native.{KEY}", f"native.{KEY[::-1]}", "native.new", ".native.part.1")
    )
    for place in (old, free, new, part):
        place.mkdir(parents=True)
    code = "import sys; from pathlib import Path; from fvport.models import kept\n"
    code += "print(kept.hold(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(old)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == "True"
        kept.prune_folders(new, "native")
        assert old.is_dir()
        assert part.is_dir()
        assert not free.exists()
        reader.communicate()
    kept.prune_folders(new, "native")
    assert not old.exists()
    assert new.is_dir()


def test_there_already_is_success(tmp_path: Path) -> None:
    """Two processes that made the same folder: the second keeps the first's."""
    place, part = tmp_path / "a", tmp_path / "part"
    for folder in (place, part):
        folder.mkdir()
        (folder / "x").write_text(folder.name)
    kept.settle(part, place)
    assert (place / "x").read_text() == "a"
    assert not part.exists()


def test_an_answer_of_another_process_is_let_alone(tmp_path: Path) -> None:
    """A newer answer replaces older ones, not the job or the answer of a process that is at work."""
    old, new = tmp_path / f"net.meta.{KEY}.json", tmp_path / f"net.meta.{KEY[::-1]}.json"
    foreign = tmp_path / "net.meta.4711.json"
    for file in (old, foreign):
        file.write_text("{}")
    ask._write(new, {"a": 1})
    assert not old.exists()
    assert foreign.exists()
    assert json.loads(new.read_text()) == {"a": 1}


def test_a_generation_follows_all_of_fvport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another fvport makes another generation, whichever of its files changed."""
    tiny = port(tree(tmp_path))
    made: list[Path] = []

    def make() -> Path:
        side = generating.side_of(tiny, "native", "cpu", {}, lambda wanted, part: made.append(part))
        return generating.kept_folder(tiny, side, [{"name": "p0s0"}])

    first = make()
    assert make() == first
    real = evidence.package_digest
    monkeypatch.setattr(evidence, "package_digest", lambda name: "other" if name == "fvport" else real(name))
    assert make() != first
    assert len(made) == 2


# --- ends ---------------------------------------------------------------------------------------------------------

HOST = """
import os, sys, time
from pathlib import Path
from fvport.models import forked
forked.interrupt_on_sigterm()
def work():
    Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(120)
forked.run(work, name="work", log=Path(sys.argv[1] + ".log"), timeout=120)
"""


def gone(pid: int, limit: float = 5.0) -> bool:
    until = time.monotonic() + limit
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_forked_child_ends_with_its_host(tmp_path: Path, number: int) -> None:
    """Whatever ends the host, its child (a session of its own) does not live on."""
    file = tmp_path / "pid"
    host = subprocess.Popen([sys.executable, "-c", HOST, str(file)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not (file.is_file() and file.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    child = int(file.read_text())
    os.kill(host.pid, number)
    host.wait(timeout=10)
    assert gone(child)


def test_a_script_ends_with_its_parent(tmp_path: Path) -> None:
    """An example (any Python with the environment of a child) is ended when the check that runs it is killed."""
    env = fastvideo_api.child_environment(tree(tmp_path), "cuda")
    outer = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'print(1, flush=True); "
    outer += "import time; time.sleep(120)'], stdout=subprocess.PIPE); p.stdout.readline(); "
    outer += "print(p.pid, flush=True); import time; time.sleep(120)"
    with subprocess.Popen([sys.executable, "-c", outer], env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert gone(child)
