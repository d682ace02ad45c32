# SPDX-License-Identifier: Apache-2.0
"""Going through a port's components: what stops one of them is that component's item, and the others are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fvport.errors import BlockedError, FvportError
from fvport.evidence import Evidence, Item
from fvport.spec import Component


def component(
    record: Evidence, components: Iterable[Component], what: str, work: Callable[[Component], list[Item]]
) -> None:
    """Add `work(component)`'s items to `record`; an error becomes an item called `<component>: <what>`."""
    for one in components:
        try:
            record.items += work(one)
        except FvportError as error:
            verdict = "blocked" if isinstance(error, BlockedError) else "fail"
            record.items.append(Item(f"{one.name}: {what}", verdict, str(error), component=one.name, todo=error.todo))
