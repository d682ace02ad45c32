# SPDX-License-Identifier: Apache-2.0
"""`mapping`: the weight rules are explicit, sound and reviewed. Findings FV101 to FV120; a signature holds for a
digest.

Rules and signature are items of their own: a swap shows although the signature is fresh, a stale signature although the
rules are sound.
"""

from __future__ import annotations

from typing import Any

from fvport import evidence as ev
from fvport.checks import Options
from fvport.checks import _converted as converted
from fvport.checks import _each as each
from fvport.spec import Component, Port
from fvport.weights import convert, lint, review, sides


def run(port: Port, options: Options) -> ev.Evidence:
    """One item a sound rule list, one an error found in it, one a signature."""
    record = ev.Evidence("mapping", port.slug)
    chosen = sides.components(port, options.components)
    convert.build_load_tree(port)
    converted.declared_items(port, record, chosen)
    sides.prefetch(port, chosen, "rules", "meta")
    each.component(record, chosen, "rules", lambda component: _component(record, sides.Side(port, component)))
    return record


def inputs(port: Port) -> list[str]:
    return sides.inputs(port)


def expected(port: Port) -> list[str]:
    names = [f"{component.name}: rules" for component in sides.components(port)]
    names += [f"{c.name}: signature" for c in sides.components(port) if c.mode == "port"]
    return names + converted.expected(port, "declaration")


def _component(record: ev.Evidence, side: sides.Side) -> list[ev.Item]:
    """Items of one component; findings that are only worth knowing become the record's notes."""
    items = []
    component, findings = side.component, side.findings()
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in errors:
        todo = f"See the table: fvport mapping review {component.name}"
        metrics: dict[str, Any] = {
            "rule": finding.rule,
            "names": list(finding.names)[:50],
            "about": lint.sentence(finding.code),
        }
        name = f"{component.name}: {finding.code}"
        items.append(ev.Item(name, "fail", finding.message, metrics, component=component.name, todo=todo))
    if not errors and not side.case.names:
        what = "no official key is left that a rule could be about"
        items.append(ev.Item(f"{component.name}: rules", "blocked", what, component=component.name))
    elif not errors:
        metrics = {"rules": len(side.rules.rules), "keys": len(side.shapes), "provenance": side.rules.provenance}
        items.append(ev.Item(f"{component.name}: rules", "pass", "", metrics, component=component.name))
    record.notes += [f"{component.name}: {f.code} {f.message}" for f in findings if f.severity == "note"]
    if component.mode == "port":
        items.append(_signature(component, side.digest()))
    return items


def _signature(component: Component, digest: str) -> ev.Item:
    mapping, state = component.mapping, review.signature(component, digest)
    name, metrics = f"{component.name}: signature", {"digest": digest, "signed_by": mapping.signed_by}
    if state == "signed":
        said = f"signed by {mapping.signed_by} on {mapping.signed_on}"
        return ev.Item(name, "pass", said, metrics, component=component.name)
    reason = "nobody signed these rules"
    if state == "stale":
        reason = f"the rules changed after {mapping.signed_by} signed them on {mapping.signed_on} (fvport mapping diff)"
    todo = f"Read the table, then: fvport mapping review {component.name} --sign NAME"
    return ev.Item(name, "fail", reason, metrics, component=component.name, todo=todo)
