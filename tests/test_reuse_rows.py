# SPDX-License-Identifier: Apache-2.0
"""What `plan --sync` writes of a reuse proof: each aspect, a stale one as stale, a missing one as not made."""

from __future__ import annotations

from pathlib import Path

import pytest
import weights_support as ws

from fvport import evidence as ev
from fvport import spec
from fvport.errors import UsageError
from fvport.reuse import commands
from fvport.reuse.proof import Finding

VAE = """
[components.vae]
kind = "vae"
mode = "reuse"
official = "diffusers:AutoencoderKLWan"
native = "fastvideo.models.vaes.wanvae:AutoencoderKLWan"
weights = "vae"
"""


@pytest.fixture
def port(tmp_path: Path) -> spec.Port:
    """A port with one reused component that has weights."""
    return ws.make_port(tmp_path, ws.PORT + VAE)


def proven(port: spec.Port, *findings: Finding) -> commands.Proof:
    """A proof of the vae on what is there now, kept."""
    component = port.component("vae")
    digests = ev.digests(port, commands.inputs(port, component))
    result = commands.Proof("vae", component.official, component.native, list(findings), digests)
    commands._write(port, result)
    return result


def test_a_reused_component_without_a_proof_is_named(port: spec.Port) -> None:
    """It says what to run; a reused scheduler has no parameters and is not in the table."""
    native = "fastvideo.models.vaes.wanvae:AutoencoderKLWan"
    assert commands.rows(port) == [("vae", native, "proof", "not made", "fvport reuse vae")]


def test_each_aspect_is_a_row_with_what_differs(port: spec.Port) -> None:
    """The first two details of what is not equal stand in the row."""
    wrong = Finding("normalisation", "differs", "2 norms differ", ("a: eps 1e-5", "b: eps 1e-5", "c"))
    result = proven(port, Finding("structure", "equal", "146 names"), wrong)
    rows = {row[2]: row[3:] for row in commands.rows(port)}
    assert rows["structure"] == ("equal", "146 names")
    assert rows["normalisation"] == ("differs", "2 norms differ: a: eps 1e-5; b: eps 1e-5")
    assert not result.reusable
    assert result.to_json()["parity"] == "still required"
    assert "Not reusable as it is: normalisation" in result.text()


def test_a_proof_of_something_else_is_stale(port: spec.Port) -> None:
    """Another native class, or any other change of the component, and the proof no longer speaks of it."""
    proven(port, Finding("structure", "equal", "146 names"))
    text = port.file.read_text().replace("wanvae:AutoencoderKLWan", "wanvae:AutoencoderKLWan2")
    port.file.write_text(text)
    rows = commands.rows(spec.load(port.root))
    assert [(row[2], row[3]) for row in rows] == [("proof", "stale")]


def test_a_component_without_a_class_to_compare_with_is_refused(port: spec.Port) -> None:
    """A ported component needs a candidate, a scheduler has nothing to compare; each in one sentence."""
    with pytest.raises(UsageError, match="there is no class of FastVideo to compare with"):
        commands.prove(port, "transformer")
    with pytest.raises(UsageError, match="no parameters"):
        commands.prove(port, "scheduler")
    with pytest.raises(UsageError, match="nothing to rank by"):
        commands.find(port, "scheduler", "cpu")


def test_a_proof_is_stale_where_the_oracle_or_the_load_tree_changed(port: spec.Port) -> None:
    """Both sides were built from these files."""
    index = port.load_tree / "model_index.json"
    for file in (port.folder / "oracle.py", index, port.load_tree / "vae/config.json"):
        proven(port, Finding("structure", "equal", "146 names"))
        assert [row[3] for row in commands.rows(port)] == ["equal"]
        ws.save_json(file, {"changed": file.name})
        assert [row[3] for row in commands.rows(port)] == ["stale"], file.name
