# SPDX-License-Identifier: Apache-2.0
"""Stable Audio's conditioner: text states and two numbers of seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.lines import Rules, field_lines

CONDITIONER_DEFAULTS = {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512}


@dataclass(frozen=True)
class ConditionerFacts:
    """Switches of a compound conditioner: text states, a start and an end."""

    lines: list[str]
    projection: bool  # the text states change their width
    number_dim: int

    @property
    def rules(self) -> Rules:
        number = r"(start|end)_number_conditioner\.time_positional_embedding\."
        rules: Rules = [
            (number + r"0\.weights", r"\1_number_conditioner.frequencies"),
            (number + r"1\.(weight|bias)", r"\1_number_conditioner.projection.\2"),
        ]
        return [(r"text_projection\.(weight|bias)", r"text_projection.\1"), *rules] if self.projection else rules


def conditioner(c: Any) -> ConditionerFacts:
    """The facts of a component whose official class is StableAudioProjectionModel."""
    given = {**CONDITIONER_DEFAULTS, **c.config}
    learned = c.tensors.get("start_number_conditioner.time_positional_embedding.0.weights")
    return ConditionerFacts(
        lines=field_lines(c.config, CONDITIONER_DEFAULTS, CONDITIONER_DEFAULTS),
        projection=given["text_encoder_dim"] != given["conditioning_dim"],
        number_dim=2 * learned[1][0] if learned else 256,
    )
