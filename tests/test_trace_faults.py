# SPDX-License-Identifier: Apache-2.0
"""The trace names the module whose own computation differs, and a cause that a test which was run bears out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trace_support as ts

from fvport.errors import UsageError
from fvport.parity import lockstep, trace, trace_files


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ts.record_official(tmp_path_factory.mktemp("official"))


def broken(change: Callable[[Any], Any]) -> Any:
    model = ts.native(ts.official())
    with torch.no_grad():
        change(model)
    return model


def swap_qk(m: Any) -> None:
    w = m.blocks[2].attn.qkv.weight
    w.copy_(torch.cat([w[16:32], w[:16], w[32:]]))


def negated_sine(m: Any) -> None:
    m.forward = lambda hidden: _with_rope(m, hidden, lambda cos, sin: (cos, -sin))


def _with_rope(m: Any, hidden: Any, change: Any) -> Any:
    rope = change(*ts.rotary(hidden.shape[1], 10000.0))
    return _around(m, hidden, lambda: m.embed(hidden), rope)


def _around(m: Any, hidden: Any, embedded: Any, rope: Any = None) -> Any:
    x = embedded() + m.place(torch.arange(hidden.shape[1]))
    return m.proj_out(m.norm_out(ts._through(m.blocks, x, rope or ts.rotary(hidden.shape[1], 10000.0))))


FAULTS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "eps": (lambda m: setattr(m.blocks[1].norm2, "eps", 1e-5), "blocks.1.norm2", "eps"),
    "q and k": (swap_qk, "blocks.2.attn.qkv", "swap"),
    "bias": (lambda m: m.blocks[0].mlp.fc_out.bias.zero_(), "blocks.0.mlp.fc_out", "missing bias"),
    "gelu": (lambda m: setattr(m.blocks[0].mlp.act, "approximate", "none"), "blocks.0.mlp.act", "activation"),
    "scale": (lambda m: setattr(m.blocks[1].attn, "scale", 0.25), "blocks.1.attn", "scale"),
    "theta": (lambda m: setattr(m, "theta", 256.0), "", "rope"),
    "sine": (negated_sine, "", "rope"),
    "modulation": (lambda m: m.blocks[1].table.copy_(m.blocks[1].table.flip(0)), "blocks.1", "layout"),
    "bf16": (lambda m: m.proj_out.weight.copy_(m.proj_out.weight.bfloat16()), "proj_out", "dtype"),
    "another layer's": (
        lambda m: m.blocks[2].mlp.load_state_dict(m.blocks[1].mlp.state_dict()),
        "blocks.2.mlp.fc_in",
        "swap",
    ),
    "transposed": (
        lambda m: m.blocks[0].attn.to_out.weight.copy_(m.blocks[0].attn.to_out.weight.t().clone()),
        "blocks.0.attn.to_out",
        "layout",
    ),
    "norm affine": (lambda m: m.norm_out.weight.fill_(1), "norm_out", "norm affine"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_module_and_the_family_are_named(recorded: Any, name: str) -> None:
    """A fault in any place, inherited by all that follows: its own module, and a cause whose test makes it equal."""
    change, module, family = FAULTS[name]
    found = trace.examine(ts.sides(broken(change), recorded))
    assert found.native == module, found.sentence
    assert found.causes, found.sentence
    assert found.causes[0]["family"] == family, found.sentence
    assert found.causes[0]["after"] < found.causes[0]["before"] / 20
    assert found.native_line.rpartition(":")[2].isdigit()
    for line in (found.native_line, found.official_line):  # torch's own class is told by what holds it
        assert "trace_support.py:" in line
    assert found.sentence.startswith("first to differ by itself is")


def test_a_sound_model_has_no_finding(recorded: Any) -> None:
    """Fused projections, other names, tuples as outputs, another order of sums: nothing differs by itself."""
    found = trace.examine(ts.sides(ts.native(ts.official()), recorded))
    assert found.native is None
    assert not found.others
    assert not found.calls
    assert found.sentence.startswith("none of the")
    assert found.unpaired_native == ["blocks"]


def test_two_faults_are_two_findings(recorded: Any) -> None:
    """The first is the answer, the second is named too: official values in between keep them apart."""

    def both(m: Any) -> None:
        swap_qk(m)
        m.embed.bias.zero_()

    found = trace.examine(ts.sides(broken(both), recorded), why=False)
    assert found.native == "embed"
    assert found.others == ["blocks.2.attn.qkv"]


def test_a_fault_in_a_modules_own_lines_is_told_from_its_submodules(recorded: Any) -> None:
    """Every submodule is given and answers the official values: what is wrong is what the forward makes of them."""
    model = ts.native(ts.official())
    model.blocks[1].register_forward_hook(lambda module, args, output: output * 1.01)
    found = trace.examine(ts.sides(model, recorded), why=False)
    assert found.native == "blocks.1"
    assert "all its submodules were given and answered the same, mlp as the last" in found.sentence
    swapped = trace.examine(ts.sides(broken(swap_qk), recorded), why=False)
    assert "all its submodules" not in swapped.sentence


def test_an_embedding_that_is_asked_for_other_rows_is_not_to_blame(recorded: Any) -> None:
    """Indices are integers and never near: with the official ones the embedding is equal, so its holder is named."""
    found = trace.examine(ts.sides(broken(lambda m: setattr(m, "first", 1)), recorded))
    assert (found.native, found.at, found.label) == ("", "place", "input"), found.sentence
    assert "with the official input given to place, all of it is equal" in found.sentence
    wrong = trace.examine(ts.sides(broken(lambda m: m.place.weight.copy_(m.place.weight.flip(0))), recorded))
    assert (wrong.native, wrong.at) == ("place", "")
    assert "when given equal inputs" in wrong.sentence
    both = broken(lambda m: (setattr(m, "first", 1), m.place.weight.mul_(1.5)))
    found = trace.examine(ts.sides(both, recorded), why=False)
    assert "official inputs but for input, which is another one or written in another way" in found.sentence


def test_a_size_that_cannot_be_compared_is_said(recorded: Any) -> None:
    """A stream that was cut before a block: what follows is blamed with it, not in its stead."""
    cut = broken(lambda m: None)
    whole, embed = cut.forward, cut.embed
    cut.forward = lambda hidden: whole(hidden[:, :-1])
    found = trace.examine(ts.sides(cut, recorded), why=False)
    assert found.sentence.endswith("embed is given input of [2, 6, 8], officially of [2, 7, 8]"), found.sentence
    cut.forward = lambda hidden: _around(
        cut, hidden, lambda: torch.nn.functional.pad(embed(hidden[:, :-1]), (0, 0, 0, 1))
    )
    found = trace.examine(ts.sides(cut, recorded), why=False)
    assert found.resized == "embed is given input of [2, 6, 8], officially of [2, 7, 8]", found.sentence
    assert "What cannot be compared and comes before it" in found.sentence
    sound = trace.examine(ts.sides(broken(FAULTS["eps"][0]), recorded), why=False)
    assert not sound.resized


def test_a_block_that_never_runs_is_told(recorded: Any) -> None:
    """A block left out shows as a fault of what calls it, and the number of calls says what is missing."""
    found = trace.examine(ts.sides(broken(lambda m: setattr(m, "blocks", m.blocks[:2])), recorded), why=False)
    assert found.native == ""
    assert found.at == "norm_out"


def test_what_comes_after_the_model_is_told(recorded: Any) -> None:
    """No module differs and the model's output agrees: the sentence points at call()."""
    found = trace.examine(ts.sides(ts.native(ts.official()), recorded))
    assert "call() of the test" in found.sentence


def test_nothing_is_left_behind(recorded: Any) -> None:
    """Hooks, patched functions, changed parameters and attributes: after a trace of a fault all is as before."""
    model = broken(FAULTS["scale"][0])
    functions = (torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.gelu, torch.softmax)
    before = {n: (dict(vars(m)), [p.clone() for p in m.parameters(recurse=False)]) for n, m in model.named_modules()}
    trace.examine(ts.sides(model, recorded))
    assert (torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.gelu, torch.softmax) == functions
    for name, module in model.named_modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        plain, values = before[name]
        assert vars(module).keys() == plain.keys()
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(recurse=False), values, strict=True))


def test_a_model_that_raises_leaves_no_hook(recorded: Any) -> None:
    """An exception in the middle of a recorded run goes on, and every hook is gone."""
    model = ts.native(ts.official())
    sides = ts.sides(model, recorded)
    model.blocks[1].mlp.act.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trace.examine(sides)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_memory_is_bounded_by_a_window(tmp_path: Path) -> None:
    """Where not all activations fit, sketches of the free run choose what a second pass keeps exactly."""
    modules, found, store, _params = ts.record_official(tmp_path, limit=2000)
    assert not found["complete"]
    model = broken(FAULTS["bias"][0])
    names = trace.window(ts.sides(model, (modules, found, store, None)))
    assert "blocks.0.ff.net.2" in names
    assert len(names) < 8
    again = ts.record_official(tmp_path, exact=sorted(names))
    result = trace.examine(ts.sides(model, again))
    assert result.native == "blocks.0.mlp.fc_out"
    assert result.causes[0]["family"] == "missing bias"


def test_files_for_people_and_tools(recorded: Any, tmp_path: Path) -> None:
    """Activation traces in FastVideo's form, a table with every pair, a well-formed plot that marks the place."""
    from xml.etree import ElementTree

    sides = ts.sides(broken(FAULTS["eps"][0]), recorded)
    found = trace.examine(sides, why=False)
    files = {Path(f).name: Path(f) for f in trace_files.write(tmp_path, found, sides)}
    records = trace_files.read_jsonl(files["native.jsonl"])
    assert {"module", "tensor", "step", "abs_mean", "std", "shape", "dtype"} <= set(records[0])
    assert {r["module"] for r in records} >= {"blocks.1.norm2", "proj_out"}
    rows = files["drift.tsv"].read_text().splitlines()
    assert len(rows) == len(found.rows) + 1
    assert ElementTree.fromstring(files["drift.svg"].read_text()).tag.endswith("svg")
    assert "blocks.1.norm2" in files["drift.svg"].read_text()
    assert json.loads(files["trace.json"].read_text())["native"] == "blocks.1.norm2"


def test_fastvideos_own_trace_is_read(recorded: Any, tmp_path: Path) -> None:
    """A trace of the native side alone, as FastVideo writes it, is enough to name the first module by statistics."""
    sides = ts.sides(ts.native(ts.official()), recorded)
    official = tmp_path / "official.jsonl"
    official.write_text(trace_files.jsonl(sides.found["modules"]))
    wrong = ts.sides(broken(FAULTS["bias"][0]), recorded)
    native = tmp_path / "native.jsonl"
    native.write_text(trace_files.jsonl(lockstep.free(wrong.root, wrong.pairs, wrong.found, wrong.store, wrong.run)[1]))
    partners = {p.official[0]: p.native for p in sides.pairs.pairs.values() if len(p.official) == 1}
    a, b = trace_files.read_jsonl(official), trace_files.read_jsonl(native)
    assert trace_files.first_difference(a, b, partners)["first"]["native"] == "blocks.0.mlp.fc_out"
    assert trace_files.first_difference(a, a)["first"] is None
    native.write_text('{"module": "a"}\nno json\n')
    with pytest.raises(UsageError, match="line 2 is no record"):
        trace_files.read_jsonl(native)
