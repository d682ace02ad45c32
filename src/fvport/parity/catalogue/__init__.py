# SPDX-License-Identifier: Apache-2.0
"""Faults that ports really had, to be planted one at a time into a native component that agrees.

Each is like a class of bug that was found in the field; none names a model. `all_faults()` is the whole list,
`for_kind(kind)` what can be tried on one kind of component.
"""

from __future__ import annotations

from fvport.parity.catalogue.core import Fault, Planted, Target

__all__ = ["Fault", "Planted", "Target", "all_faults", "for_kind"]


def all_faults() -> list[Fault]:
    from fvport.parity.catalogue import layout, numerics, weights

    return [*weights.FAULTS, *numerics.FAULTS, *layout.FAULTS]


def for_kind(kind: str) -> list[Fault]:
    """Faults of a component kind; a scheduler has no weights and no arithmetic of layers."""
    faults = [fault for fault in all_faults() if not fault.kinds or kind in fault.kinds]
    return [fault for fault in faults if fault.group == "scheduler"] if kind == "scheduler" else faults
