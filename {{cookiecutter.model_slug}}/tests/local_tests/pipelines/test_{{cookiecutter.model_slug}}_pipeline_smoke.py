# SPDX-License-Identifier: Apache-2.0
"""The pipeline's files import, export what FastVideo looks for, and name each other rightly."""
from pathlib import Path

from fastvideo.api.presets import get_preset
from fastvideo.configs.pipelines.{{ p.slug }} import {{ p.pipeline_config_class }}
from fastvideo.pipelines.basic.{{ p.slug }}.{{ p.slug }}_pipeline import EntryClass
from fastvideo.pipelines.basic.{{ p.slug }}.presets import ALL_PRESETS
from fastvideo.registry import get_pipeline_config_cls_from_name

SLUG = "{{ p.slug }}"


def test_{{ p.slug }}_pipeline_class_is_exported() -> None:
    assert EntryClass.__name__ == "{{ p.pipeline_class }}"
    assert "{{ p.dit.name }}" in EntryClass._required_config_modules


def test_{{ p.slug }}_config_is_registered() -> None:
    load_tree = Path(__file__).resolve().parents[3] / "converted_weights" / SLUG
    assert get_pipeline_config_cls_from_name(str(load_tree)) is {{ p.pipeline_config_class }}


def test_{{ p.slug }}_presets_are_registered() -> None:
    for preset in ALL_PRESETS:
        assert get_preset(preset.name, preset.model_family) == preset
