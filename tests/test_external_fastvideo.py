# SPDX-License-Identifier: Apache-2.0
"""A hybrid wrapper on real FastVideo: its own loader, its own tokenizer stage, the real T5 of transformers outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hybrid_port
import pytest

FVPORT = Path(sys.executable).with_name("fvport")
MODES = "components=text_encoder=external,transformer=reuse,vae=reuse,scheduler=reuse"


def fvport(*words: object, cwd: Path, codes: tuple[int, ...] = (0,)) -> str:
    env = {**os.environ, "FVPORT_ENV": sys.prefix}
    done = subprocess.run(
        [FVPORT, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode in codes, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From bare folder to a signed mapping."""
    base = tmp_path_factory.mktemp("hybrid")
    official = hybrid_port.release(base / "official")
    words = ("model_name=Hybrid", f"official_weights={official}", "gate_device=cpu", "workload_type=t2v", MODES)
    fvport("new", "--no-input", *words, cwd=base)
    root = base / "hybrid"
    hybrid_port.fill(root)
    fvport("prep", cwd=root)
    fvport("workspace", cwd=root)
    fvport("mapping", "review", "text_encoder", "--sign", "test", cwd=root)
    return root


@pytest.mark.heavy
def test_the_wrapper_and_its_connector_alone_are_green(port: Path) -> None:
    """mapping, keys, conversion of what is owned; parity of the whole contract, and of the connector by itself."""
    for check in ("mapping", "keys", "conversion"):
        fvport("check", check, "text_encoder", cwd=port)
    assert hybrid_port.items(port, "keys")["text_encoder: external"]["verdict"] == "pass"
    fvport("check", "parity", "text_encoder", "text_encoder_connector", cwd=port)
    components = {item["component"] for item in hybrid_port.items(port, "parity").values()}
    assert {"text_encoder", "text_encoder_connector"} <= components


@pytest.mark.heavy
def test_another_folder_that_the_loader_resolves_is_red_by_name(port: Path) -> None:
    """FastVideo prefers the root's field over the folder inside: with both, production calls another model."""
    index = port / "official_weights/hybrid/model_index.json"
    text = index.read_text()
    decoy = port / "official_weights/hybrid/tokenizer"
    try:
        index.write_text(json.dumps({**json.loads(text), "gemma_model_path": decoy.name}))
        fvport("prep", cwd=port)
        said = fvport("check", "keys", "text_encoder", cwd=port, codes=(1,))
        assert "the pipeline means text_encoder/gemma" in " ".join(said.split())
    finally:
        index.write_text(text)
        fvport("prep", cwd=port)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("self.norm(self.proj(hidden_states))", "self.proj(hidden_states)", "text_encoder_connector"),
        ("attention_mask=attention_mask).last", "attention_mask=None).last", "FAIL text_encoder"),
    ],
)
def test_a_fault_of_the_connector_or_of_the_call_is_red_where_it_is(port: Path, old: str, new: str, said: str) -> None:
    """A norm left out is the connector's; a mask that is not handed over is the wrapper's alone."""
    file = port / "fastvideo/models/encoders/hybrid_text_encoder.py"
    text = file.read_text()
    assert old in text
    try:
        file.write_text(text.replace(old, new))
        out = fvport("check", "parity", "text_encoder", "text_encoder_connector", cwd=port, codes=(1,))
    finally:
        file.write_text(text)
    verdicts = dict.fromkeys(("text_encoder", "text_encoder_connector"), True)
    for item in hybrid_port.items(port, "parity").values():
        verdicts[item["component"]] &= item["verdict"] == "pass"
    assert not verdicts["text_encoder"]
    assert verdicts["text_encoder_connector"] == ("norm" not in old)
    assert said in " ".join(out.split())
