# SPDX-License-Identifier: Apache-2.0
"""A bake of a release that is not in Diffusers layout: with its declaration it knows the components, without it the
script is rendered with what was seen."""

from __future__ import annotations

import pytest
from convert_support import TEXT, plan, release

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.scaffold import conversion, render
from fvport.scaffold.context import PortContext
from fvport.weights import declaration, layout


def context(inspection):
    given = dict.fromkeys(("official_repo", "official_commit", "hub_id", "revision", "gate_device", "workload"), "")
    return PortContext("Raw", "Raw", "raw", "Raw", fastvideo={}, inspection=inspection, **given)


def test_a_declaration_says_what_the_release_holds(tmp_path):
    """Components with class, kind, config and converted tensors; layout and need for conversion stay the release's."""
    root = release(tmp_path / "release")
    (tmp_path / "d.py").write_text(TEXT)
    found, text = conversion.declared(layout.inspect(root), root, "d.py", tmp_path)
    assert text == TEXT
    assert found.needs_conversion
    assert found.pipeline_class == "WanPipeline"
    assert {name: c.kind for name, c in found.components.items()} == {
        "transformer": "dit",
        "vae": "vae",
        "tokenizer": "tokenizer",
        "scheduler": "scheduler",
    }
    part = found.components["transformer"]
    assert part.config == {"_class_name": "WanTransformer3DModel", "num_layers": 2}
    assert part.tensors["blocks.0.to_q.weight"] == ("F32", (4, 4))
    assert found.components["tokenizer"].config == {"tokenizer_class": "T5TokenizerFast"}
    again = layout.Inspection.from_json(found.to_json())
    assert again.components["vae"].tensors == found.components["vae"].tensors


def test_one_file_is_a_release_too(tmp_path):
    """A release may be a single file."""
    root = release(tmp_path / "release")
    file = root / "model.safetensors"
    text = TEXT.replace('"config.json"', "{}").partition('    "tokenizer"')[0] + "}\nSKIP = {'^ema': 'average'}\n"
    (tmp_path / "d.py").write_text(text)
    found, _ = conversion.declared(layout.inspect(file), file, "d.py", tmp_path)
    assert set(found.components) == {"transformer", "vae"}


@pytest.mark.parametrize(
    ("text", "said", "error"),
    [
        (TEXT.replace('"vae."', '"veh."'), "belong to no component", FvportError),
        ("COMPONENTS = open('x')", "is not a plain literal", UsageError),
        (None, "there is no file", BlockedError),
    ],
)
def test_a_declaration_that_does_not_fit_stops_the_bake(tmp_path, text, said, error):
    """Before anything is written."""
    root = release(tmp_path / "release")
    if text is not None:
        (tmp_path / "d.py").write_text(text)
    with pytest.raises(error, match=said):
        conversion.declared(layout.inspect(root), root, "d.py", tmp_path)


def test_a_diffusers_release_takes_none(tmp_path):
    """What is loaded as it is has nothing to declare."""
    from weights_support import release as diffusers

    root = diffusers(tmp_path / "release")
    (tmp_path / "d.py").write_text(TEXT)
    with pytest.raises(UsageError, match="is not needed"):
        conversion.declared(layout.inspect(root), root, "d.py", tmp_path)
    with pytest.raises(UsageError, match="needs the release"):
        conversion.declared(None, None, "d.py", tmp_path)


def test_without_a_declaration_the_script_holds_what_was_seen(tmp_path):
    """Components by prefix and what lies beside them; decisions are marked, and the file parses once they are made."""
    root = release(tmp_path / "release")
    text = render.render("conversion.py.jinja", context(layout.inspect(root)))
    assert "FVPORT-DECIDE" in text
    assert '"prefix": "dit."' in text
    with pytest.raises(UsageError, match="class is not there"):
        declaration.parse(text, "x.py")
    decided = text.replace(', ""],  # FVPORT-DECIDE', ', "M"],')
    plan(root, decided)
