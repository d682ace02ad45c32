# SPDX-License-Identifier: Apache-2.0
"""The oracle runs apart, its results are kept by everything they depend on, and its mistakes name its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fvport import spec
from fvport.checks import parity
from fvport.errors import BlockedError, FvportError
from fvport.parity import generation, late, oracle

PORT_TOML = """schema = 1
[port]
model = "Toy"
slug = "toy"
workload_types = ["t2v"]
[official]
weights = "official_weights/toy"
[components.net]
kind = "dit"
mode = "reuse"
official = "torch.nn:Linear"
native = "fastvideo.models.dits.toy:Toy"
weights = "net"
"""

ORACLE = """import torch


def build_net(folder, dtype):
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).to(dtype)


def inputs_net(config, seed):
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
    return {"two": {"x": x, "scale": config["scale"], "more": [x * 2]}}


def call_net(net, case):
    return {"out": net(case["x"]) * case["scale"], "ids": torch.arange(3), "states": [case["x"], case["more"][0]]}
"""


@pytest.fixture
def port(tmp_path: Path) -> spec.Port:
    """A port of one toy component: official weights, port.toml and oracle.py; no FastVideo tree."""
    folder = tmp_path / "tests" / "local_tests" / "toy"
    folder.mkdir(parents=True)
    (folder / "port.toml").write_text(PORT_TOML, encoding="utf-8")
    (folder / "oracle.py").write_text(ORACLE, encoding="utf-8")
    (folder / "helper.py").write_text("VALUE = 1\n", encoding="utf-8")
    weights = tmp_path / "official_weights" / "toy" / "net"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text('{"scale": 2.0}', encoding="utf-8")
    return spec.load(tmp_path)


def write(port: spec.Port, text: str) -> None:
    (port.folder / "oracle.py").write_text(text, encoding="utf-8")


def guarded(port: spec.Port, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` behind the oracle's guard, without torch: fast."""
    lines = [
        "import importlib.util, sys, pathlib",
        f"spec = importlib.util.spec_from_file_location('runner', {str(oracle.RUNNER)!r})",
        "runner = importlib.util.module_from_spec(spec)",
        "spec.loader.exec_module(runner)",
        f"root = pathlib.Path({str(port.root)!r})",
        f"oracle = pathlib.Path({str(port.folder / 'oracle.py')!r})",
        "runner.guard(root, oracle, [root / 'reference'])",
        code,
    ]
    return subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


REACHES = {
    "fastvideo by name": "import fastvideo",
    "a module of fastvideo": "from fastvideo.models.dits import wanvideo",
    "fvport by name": "import fvport.spec",
    "fastvideo through importlib": "import importlib; importlib.import_module('fastvideo')",
    "a file of the port through sys.path": "sys.path.insert(0, str(oracle.parent)); import helper",
    "a file of the port by path": "exec(open(oracle.parent / 'helper.py').read())",
    "fvport by path": f"open({str(Path(oracle.__file__))!r})",
}


@pytest.mark.parametrize("reach", REACHES)
def test_the_oracle_cannot_reach_the_other_side(port: spec.Port, reach: str) -> None:
    """FastVideo, fvport and every other file of the port raise, however they are reached."""
    done = guarded(port, REACHES[reach])
    assert done.returncode != 0
    assert "two sides that share code prove nothing" in done.stderr


def test_the_oracle_may_read_itself_and_the_reference_clone(port: spec.Port) -> None:
    """oracle.py and an allowed folder under the root are readable; so is what is installed."""
    reference = port.root / "reference"
    reference.mkdir()
    (reference / "official_code.py").write_text("VALUE = 2\n", encoding="utf-8")
    code = (
        "import json, decimal; open(oracle).close(); sys.path.insert(0, str(root / 'reference')); import official_code"
    )
    done = guarded(port, code)
    assert done.returncode == 0, done.stderr


def test_results_hold_both_precisions_and_are_kept(port: spec.Port) -> None:
    """float32, float64, integers and nested inputs come back; the second run reads the cache."""
    first = oracle.results(port, "net", device="cpu")
    assert not first.cached
    official = first.outputs("two")
    assert set(official.tensors) == {"out", "ids", "states/000", "states/001"}
    assert str(official.exact["out"].dtype) == "torch.float64"
    assert official.containers["states/000"] == "a tensor in a sequence of 2"
    given = first.inputs("two")
    assert given["scale"] == 2.0
    given["x"].zero_()
    assert first.inputs("two")["x"].abs().sum() > 0  # a fresh copy each time
    assert oracle.results(port, "net", device="cpu").cached


def test_inputs_of_another_seed_are_answered_on_demand_and_kept_nowhere(port: spec.Port) -> None:
    """Their inputs lie with the results; what the official model answers to them exists only while it is asked for."""
    import torch

    known = oracle.results(port, "net", device="cpu")
    given = known.late()
    assert list(given) == ["two"]
    assert not torch.equal(given["two"]["x"], known.inputs("two")["x"])
    assert torch.equal(given["two"]["more"][0], given["two"]["x"] * 2)
    with late.answers(port, ["net"], device="cpu") as made:
        found, folder = made["net"], made["net"].folder
        torch.manual_seed(0)
        right = torch.nn.Linear(4, 3)(given["two"]["x"]) * 2
        assert torch.allclose(found.outputs("two").tensors["out"], right)
        assert str(found.outputs("two").exact["out"].dtype) == "torch.float64"
    assert not folder.exists()
    fixed = ORACLE.replace("torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))", "torch.ones(2, 4)")
    write(port, fixed)
    assert oracle.results(port, "net", device="cpu").late() == {}  # nothing in it follows from the seed


def test_answers_that_a_killed_run_left_are_swept(port: spec.Port) -> None:
    """A folder whose process is gone goes; one of a run at work stays."""
    oracle.results(port, "net", device="cpu")
    with late.answers(port, ["net"], device="cpu") as made:
        at_work = made["net"].folder.parent
        left = at_work.with_name(f"{late.PREFIX}left")
        left.mkdir()
        (left / late.AT_WORK).touch()
        (left / "float32.safetensors").write_bytes(b"x")
        late.sweep(port)
        assert at_work.is_dir()
        assert not left.exists()


def test_key_follows_everything_that_the_numbers_depend_on(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """oracle.py, config, weights, lock entry, seed and library versions each change the key; PLAN.md does not."""

    def key(device: str = "cpu", seed: int = 0) -> str:
        return oracle.key(port, port.component("net"), device, seed)

    keys = [key(), key(seed=1)]
    (port.folder / "PLAN.md").write_text("x", encoding="utf-8")
    assert key() == keys[0]
    write(port, ORACLE + "\n")
    keys.append(key())
    folder = port.official_weights / "net"
    (folder / "config.json").write_text('{"scale": 3.0}', encoding="utf-8")
    keys.append(key())
    (folder / "model.safetensors").write_bytes(b"x")
    keys.append(key())
    (port.folder / "port.lock.json").write_text(json.dumps({"components": {"net": {"digest": "1"}}}), encoding="utf-8")
    keys.append(key())
    monkeypatch.setattr("fvport.evidence.package_digest", lambda name: f"{name}==9")
    keys.append(key())
    assert len(set(keys)) == len(keys)


CLONE = 'library = "wan"\nimport_root = "clone/src"\nrequirements = "official.lock"\nweights = "official_weights/toy"'


def test_the_clones_code_is_an_input(port: spec.Port) -> None:
    """A changed line of the reference clone, of its lock, or another version in its environment: another oracle."""
    text = port.file.read_text(encoding="utf-8").replace('weights = "official_weights/toy"', CLONE)
    port.file.write_text(text, encoding="utf-8")
    source, lock = port.root / "clone" / "src" / "net.py", port.root / "official.lock"
    source.parent.mkdir(parents=True)
    python = port.state / "oracle-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    site = port.state / "oracle-env" / "lib" / "python3.11" / "site-packages"
    changes = [lambda: source.write_text("A = 1\n"), lambda: source.write_text("A = 2\n")]
    changes += [lambda: lock.write_text("torch==1\n"), lambda: (site / "torch-2.0.dist-info").mkdir(parents=True)]
    python.write_text("")
    other, keys = spec.load(port.root), []
    for change in changes:
        change()
        keys.append(oracle.key(other, other.component("net"), "cpu", 0))
    assert len(set(keys)) == 4
    for names in (parity.inputs(other), generation.inputs(other)):
        assert {"tree:clone/src", "file:official.lock"} <= set(names)


def test_half_written_results_are_never_used(port: spec.Port) -> None:
    """A run that was interrupted leaves no folder of the right name, so nothing half is read."""
    write(port, ORACLE.replace("def call_net(net, case):\n", "def call_net(net, case):\n    import os; os._exit(9)\n"))
    with pytest.raises(FvportError, match=r"the official side of net ended with code 9"):
        oracle.results(port, "net", device="cpu")
    assert list((port.state / "cache" / "oracle").iterdir()) == []


BROKEN = {
    "an exception": (ORACLE.replace("net(case", "net(1 / 0 + case"), r"oracle.py:15 in call_net: ZeroDivisionError"),
    "inputs changed in place": (
        ORACLE.replace('    return {"out"', "    case['x'].mul_(2)\n    return {\"out\""),
        r"changed its inputs in place \(two/x\)",
    ),
    "no such function": (ORACLE.replace("call_net", "call_other"), "oracle.py has no call_net"),
    "fastvideo imported": ("import fastvideo\n" + ORACLE, r"oracle.py:1 in .*must not import fastvideo"),
    "a syntax error": (ORACLE + "def (", r"oracle.py:16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_in_the_oracle_name_its_line(port: spec.Port, name: str) -> None:
    """What goes wrong in oracle.py is one sentence with the line, and nothing is kept."""
    text, words = BROKEN[name]
    write(port, text)
    with pytest.raises(FvportError, match=words):
        oracle.results(port, "net", device="cpu")


@pytest.mark.slow
def test_without_float64_the_floor_is_noise(port: spec.Port) -> None:
    """An operation without float64, and a build that ignores the dtype, both give a noise floor and say why."""
    write(
        port,
        ORACLE.replace("net(case", "need32(net, case['x'])(case") + "\n\ndef need32(net, x):\n"
        "    if x.dtype == torch.float64:\n        raise RuntimeError('no Double here')\n    return net\n",
    )
    found = oracle.results(port, "net", device="cpu")
    assert "no Double here" in found.meta["no_float64"]
    assert found.outputs("two").noisy["out"].shape == found.outputs("two").tensors["out"].shape
    write(port, ORACLE.replace(".to(dtype)", "").replace('net(case["x"])', 'net(case["x"].float())'))
    assert "its outputs are float32" in oracle.results(port, "net", device="cpu").meta["no_float64"]


@pytest.mark.slow
def test_a_killed_oracle_is_a_readable_failure(port: spec.Port) -> None:
    """A signal is named; an out-of-memory kill looks like one."""
    write(
        port,
        ORACLE.replace(
            "def call_net(net, case):\n", "def call_net(net, case):\n    import os; os.kill(os.getpid(), 9)\n"
        ),
    )
    with pytest.raises(FvportError, match=r"was killed by SIGKILL \(out of memory\?\)"):
        oracle.results(port, "net", device="cpu")


def test_missing_weights_are_blocked(port: spec.Port) -> None:
    """Without the official weights there is nothing to compare with: blocked, with the command that gets them."""
    os.rename(port.official_weights, port.root / "elsewhere")
    with pytest.raises(BlockedError, match=r"nox -s prep"):
        oracle.results(port, "net", device="cpu")
