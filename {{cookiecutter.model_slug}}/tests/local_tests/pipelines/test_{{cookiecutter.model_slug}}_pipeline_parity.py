# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline against {{ p.official_pipeline or "the official one" }}: same prompt, seed and steps; latents and frames compared."""
from pathlib import Path

from fvport import spec
from fvport.checks import Options, pipeline

SLUG = "{{ p.slug }}"


def test_{{ p.slug }}_pipeline_parity() -> None:
    port = spec.load(Path(__file__).resolve().parents[1] / SLUG)
    record = pipeline.run(port, Options())
    wrong = [f"{item.name}: {item.reason}" for item in record.items if item.verdict != "pass"]
    assert record.items and not wrong, "\n".join(wrong)
