# SPDX-License-Identifier: Apache-2.0
"""Several ranks: what each left is judged against the official results, and a run that proves nothing is not green."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport import fastvideo_api
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Item
from fvport.models import native_parallel
from fvport.parity import compare, parallel, parallel_rank
from fvport.parity.job import Kept
from fvport.parity.parallel import Split
from fvport.spec import Component

ENCODER = Component("text_encoder", "text_encoder", "port", native="a:Net", weights="text_encoder")
DIT = Component("transformer", "dit", "port", native="a:Net", weights="transformer")
VAE = Component("vae", "vae", "port", native="a:Net", weights="vae")
SCHEDULER = Component("scheduler", "scheduler", "reuse", native="a:Net", weights="scheduler")
TP, SP = Split(tp=2), Split(sp=2)
OUTPUTS = ("state.00", "state.01")


class Official:
    """What `oracle.results` gives: two cases of two outputs, with their float64 values."""

    cases = ("one", "two")

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.right = torch.randn(6, 5, dtype=torch.float64)

    def outputs(self, case: str) -> compare.Outputs:
        return compare.Outputs(dict.fromkeys(OUTPUTS, self.right.float()), {}, dict.fromkeys(OUTPUTS, self.right))


OFFICIAL: Any = Official()


def leave(folder: Path, rank: int, *, wrong: str = "", talk: int = 4, cases: tuple[str, ...] = Official.cases) -> None:
    """A rank's answers; `wrong` names an output that is half of what it should be, as without an all-reduce."""
    folder.mkdir(exist_ok=True)
    kept = Kept(folder / f"rank{rank}")
    tensors = {name: OFFICIAL.right.float() * (0.5 if name == wrong else 1.0) for name in OUTPUTS}
    for case in cases:
        kept.put("right", "", case, compare.Outputs(tensors))
    compared = [{"component": "net", "collectives": {"allreduce_": talk} if talk else {}}]
    said = {"compared": compared, "tests": [{"test": "t", "outcome": "passed", "text": ""}]}
    (folder / f"rank{rank}.said.json").write_text(json.dumps(said))


def judged(folder: Path, split: Split = TP, code: int | None = 0) -> tuple[list[Item], list[str]]:
    return parallel.judged(ENCODER, split, OFFICIAL, folder, code, 60.0)


def test_ranks_that_agree_and_talked_pass(tmp_path: Path) -> None:
    """Each rank answers what the official model answers, and the note says what they exchanged."""
    leave(tmp_path, 0)
    leave(tmp_path, 1)
    items, notes = judged(tmp_path)
    assert [(item.name, item.verdict) for item in items] == [
        ("text_encoder tp2: rank 0", "pass"),
        ("text_encoder tp2: rank 1", "pass"),
    ]
    assert "4 allreduce_" in notes[0]


def test_ranks_that_exchanged_nothing_prove_nothing(tmp_path: Path) -> None:
    """Equal outputs without one collective: each rank computed the whole, which is blocked and never green."""
    leave(tmp_path, 0)
    leave(tmp_path, 1, talk=0)
    (item,), _ = judged(tmp_path, SP)
    assert item.verdict == "blocked"
    assert "rank 1 exchanged nothing" in item.reason
    assert "DistributedAttention" in item.todo


def test_one_rank_that_differs_is_named_with_its_first_output(tmp_path: Path) -> None:
    """Rank 1 alone is wrong: the item names it, the case, the output, and that the one before agrees."""
    leave(tmp_path, 0)
    leave(tmp_path, 1, wrong="state.01")
    items, _ = judged(tmp_path)
    assert [item.verdict for item in items] == ["pass", "fail"]
    assert items[1].name == "text_encoder tp2: rank 1"
    assert "2 of 4 outputs differ; in case one, state.01" in items[1].reason
    assert "First differing state: index 1" in items[1].reason
    assert "fvport check parity text_encoder" in items[1].todo


def test_a_case_that_a_rank_left_out_is_red(tmp_path: Path) -> None:
    """What was not run on a rank is not equal."""
    leave(tmp_path, 0)
    leave(tmp_path, 1, cases=("one",))
    items, _ = judged(tmp_path)
    assert [item.verdict for item in items] == ["pass", "fail"]
    assert "the native side was not run on this case" in items[1].reason


def test_answers_that_cannot_be_read_are_red(tmp_path: Path) -> None:
    """A list of outputs that was cut off holds none."""
    leave(tmp_path, 0)
    leave(tmp_path, 1)
    (tmp_path / "rank1" / "outputs.json").write_text('[{"kind"')
    items, _ = judged(tmp_path)
    assert [item.verdict for item in items] == ["pass", "fail"]


def raised(folder: Path, rank: int, message: str, at: float) -> None:
    (folder / f"rank{rank}.raised.json").write_text(json.dumps({"message": message, "at": at}))


def test_the_first_rank_that_raised_is_the_cause(tmp_path: Path) -> None:
    """The others lose their connection a moment later."""
    leave(tmp_path, 0)
    raised(tmp_path, 0, "RuntimeError: Connection closed by peer", 11.0)
    raised(tmp_path, 1, "text_encoder, case one: the native side raised ValueError: no such head", 10.0)
    (item,), _ = judged(tmp_path, code=1)
    assert item.verdict == "fail"
    assert "rank 1: text_encoder, case one: the native side raised ValueError: no such head" in item.reason


@pytest.mark.parametrize(
    "message",
    [
        "RuntimeError: ProcessGroupGloo does not support alltoall",
        "NotImplementedError: reduce_scatter",
        "RuntimeError: No backend type associated with device type cuda",
        "AssertionError: 3 is not divisible by 2",
        "ValueError: 3 heads cannot be split over 2 devices",
    ],
)
def test_what_a_backend_or_a_size_does_not_allow_is_blocked(tmp_path: Path, message: str) -> None:
    """No fault of the port, and no proof of it either: the exception is shown."""
    for rank in range(2):
        raised(tmp_path, rank, message, 10.0 + rank)
    (item,), _ = judged(tmp_path, SP, 1)
    assert item.verdict == "blocked"
    assert message in item.reason


def test_what_is_not_there_is_blocked(tmp_path: Path) -> None:
    """No load tree, say: the rank's own word, with what to do."""
    parallel_rank.raised(tmp_path, 0, BlockedError("no load tree for net", todo="Run: nox -s prep conversion"))
    (item,), _ = judged(tmp_path, code=1)
    assert item.verdict == "blocked"
    assert "no load tree for net. Run: nox -s prep conversion" in item.reason


def test_a_size_that_only_one_rank_rejects_is_a_fault(tmp_path: Path) -> None:
    """Ranks of one size: what does not divide, divides on none of them."""
    raised(tmp_path, 1, "AssertionError: 3 is not divisible by 2", 10.0)
    (item,), _ = judged(tmp_path, code=1)
    assert item.verdict == "fail"


def test_a_rank_that_died_is_named_with_its_last_words(tmp_path: Path) -> None:
    """torchrun says which failed first; the other was ended by it."""
    (tmp_path / "torchrun.log").write_text("E1 ... failed (exitcode: -9) local_rank: 1 (pid: 7) of binary: python\n")
    (tmp_path / "rank1.log").write_text("parallel: rank 1 begins case two\n")
    (item,), _ = judged(tmp_path, code=1)
    assert item.verdict == "fail"
    assert "rank 1 was killed by SIGKILL (out of memory?)" in item.reason
    assert "begins case two" in item.reason


def test_ranks_that_hang_are_red_with_where_each_was(tmp_path: Path) -> None:
    """The time limit ends them; the last line of each says how far it came."""
    (tmp_path / "rank0.log").write_text("parallel: rank 0 begins case two\n")
    (tmp_path / "rank1.log").write_text("parallel: rank 1 begins case one\n")
    (item,), _ = judged(tmp_path, SP, None)
    assert item.verdict == "fail"
    assert "it was still running after 60 s and was ended" in item.reason
    assert "rank 0 begins case two" in item.reason
    assert "rank 1 begins case one" in item.reason


def test_a_red_test_and_a_failed_launch_are_red(tmp_path: Path) -> None:
    """A test of the port that fails on a rank, and an end of torchrun that no rank explains."""
    leave(tmp_path, 0)
    leave(tmp_path, 1)
    (item,), _ = judged(tmp_path, code=3)
    assert "torchrun ended with code 3" in item.reason
    said = {"compared": [{}], "tests": [{"test": "t", "outcome": "failed", "text": "E  ImportError: nothing there"}]}
    (tmp_path / "rank1.said.json").write_text(json.dumps(said))
    (item,), _ = judged(tmp_path, code=0)
    assert "rank 1: E ImportError: nothing there" in item.reason
    assert item.verdict == "fail"


def test_what_is_split_follows_from_the_kind() -> None:
    """Encoders by their matrices, transformers by their sequence; anything else must be said."""
    assert (parallel.wanted(ENCODER, 0, 0).word, parallel.wanted(DIT, 0, 0).word) == ("tp2", "sp2")
    assert parallel.wanted(VAE, 0, 4) == Split(sp=4)
    for component, tp, sp, words in (
        (VAE, 0, 0, "say what is split"),
        (SCHEDULER, 2, 0, "nothing to split"),
        (DIT, 2, 2, "exclude each other"),
        (DIT, 0, 1, "2 or more"),
        (DIT, -2, 0, "2 or more"),
    ):
        with pytest.raises(UsageError, match=words):
            parallel.wanted(component, tp, sp)


def test_one_gpu_is_none_for_two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is gloo on a CPU there; CUDA asked for in so many words is blocked."""
    monkeypatch.setattr(fastvideo_api, "resolve_device", lambda device="auto": "cuda" if device == "auto" else device)
    monkeypatch.setattr(fastvideo_api, "gpus", lambda: 1)
    assert parallel.device_for(SP, "auto") == "cpu"
    with pytest.raises(BlockedError, match="needs 2 GPUs, there are 1"):
        parallel.device_for(SP, "cuda")
    monkeypatch.setattr(fastvideo_api, "gpus", lambda: 2)
    assert parallel.device_for(SP, "auto") == "cuda"


def test_collectives_are_counted_whoever_calls_them() -> None:
    """By torch's own dispatch, so no layer of FastVideo has to be known."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with native_parallel.counted() as found:
            torch.ones(2).add(1)
            torch.distributed.all_reduce(torch.ones(2))
            torch.distributed.all_gather_into_tensor(torch.empty(2), torch.ones(2))
        assert sum(found.values()) == 2
        assert found["allreduce_"] == 1
    finally:
        torch.distributed.destroy_process_group()


def test_without_groups_there_is_one_device() -> None:
    """The arguments of the ordinary run are what they were."""
    assert native_parallel.sizes() == {"num_gpus": 1}


def test_only_the_first_exception_of_a_rank_is_noted(tmp_path: Path) -> None:
    """What follows it is its consequence."""
    parallel_rank.raised(tmp_path, 0, ValueError("first"))
    parallel_rank.raised(tmp_path, 0, RuntimeError("then"))
    assert "ValueError: first" in json.loads((tmp_path / "rank0.raised.json").read_text())["message"]


STUB = """
import json, os, signal, sys, time
rank = os.environ["RANK"]
folder = os.path.dirname(os.environ["FVPORT_PARITY_JOB"])
with open(os.path.join(folder, f"rank{rank}.log"), "w") as log:
    log.write(f"parallel: rank {rank} begins case one\\n")
with open(os.path.join(folder, f"rank{rank}.pid"), "w") as file:
    file.write(str(os.getpid()))
if sys.argv[2] == "dies" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "limit", "words"), [("dies", 120.0, "rank 1 was killed by SIGKILL"), ("hangs", 60.0, "still running")]
)
def test_torchrun_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: float, words: str) -> None:
    """Two real ranks of which one is killed, or both hang: red in bounded time, and none of them is left."""
    (tmp_path / "fastvideo").mkdir()
    (tmp_path / "fastvideo" / "__init__.py").write_text("")
    (tmp_path / "stub_rank.py").write_text(STUB)
    monkeypatch.setattr(parallel, "RANK", "stub_rank")
    settings = SimpleNamespace(attention_backend="TORCH_SDPA")
    port: Any = SimpleNamespace(root=tmp_path, file=tmp_path / "port.toml", fastvideo=settings)
    folder = tmp_path / "left"
    folder.mkdir()
    component = Component(name, "dit", "port", native="a:Net")
    code = parallel._launch(port, component, SP, "cpu", limit, folder)
    (item,), _ = parallel.judged(component, SP, OFFICIAL, folder, code, limit)
    assert item.verdict == "fail"
    assert words in item.reason
    assert "begins case one" in item.reason
    pids = [int(file.read_text()) for file in folder.glob("*.pid")]
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, "a rank outlived its torchrun"
        time.sleep(0.1)


@pytest.mark.heavy
@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_a_right_port_is_green_when_it_is_split(port: Any, component: str) -> None:
    """Two real ranks each: matrices split for the encoder, tokens for the transformer."""
    ran = port.fvport("parallel", component, "--json")
    found = ran.json()
    assert (ran.code, found["verdict"]) == (0, "pass"), ran.out
    assert len(found["items"]) == 2
    assert "the ranks exchanged" in found["notes"][0]


ROW = """        self.o = RowParallelLinear(config.num_heads * config.d_kv,
                                   config.d_model,
"""
ATTENTION = "        x, _ = self.attn(query, key, value, seq_len, freqs_cis=rope)\n"
OWN_POSITIONS = """        from fastvideo.layers.rotary_embedding import _apply_rotary_emb
        cos, sin = (part[:query.shape[1]] for part in rope)
        query = _apply_rotary_emb(query, cos, sin, is_neox_style=False)
        key = _apply_rotary_emb(key, cos, sin, is_neox_style=False)
        x, _ = self.attn(query, key, value, seq_len)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("component", "file", "old", "new"),
    [
        (
            "text_encoder",
            "encoders/tiny_wan.py",
            ROW,
            f"{ROW}                                   reduce_results=False,\n",
        ),
        ("transformer", "dits/tiny_wan.py", ATTENTION, OWN_POSITIONS),
    ],
    ids=["a missing all-reduce", "each rank counts positions from its own first token"],
)
def test_a_fault_that_one_device_cannot_show(port: Any, component: str, file: str, old: str, new: str) -> None:
    """Both leave a single process as it was, and are red on two ranks with the output and the size of it."""
    port.edit(f"fastvideo/models/{file}", old, new)
    ran = port.fvport("parallel", component, "--json")
    found = ran.json()
    assert (ran.code, found["verdict"]) == (1, "fail"), ran.out
    assert all("outputs differ; in case " in item["reason"] for item in found["items"])
