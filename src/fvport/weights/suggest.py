# SPDX-License-Identifier: Apache-2.0
"""`fvport mapping suggest`: a rule list from nothing but the names and shapes of both sides.

Units are paired from what is certain outwards (`suggest_match.py`, `suggest_joins.py`), then written as rules
(`suggest_rules.py`). Whatever the evidence does not decide is in the list as the best guess, marked as ambiguous with
the other candidates: it is for a person to decide, and for parity to show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fvport.weights import show, suggest_declared, suggest_joins, suggest_match, suggest_rules
from fvport.weights.mapping import Rule, Rules
from fvport.weights.suggest_match import State
from fvport.weights.suggest_rules import Draft, Place, Table
from fvport.weights.suggest_units import layer_counts, units

Shape = tuple[int, ...]


@dataclass
class Proposal:
    """One rule or pass-through with its evidence. `sure` False: a guess, `rivals` what it could be instead."""

    rule: str
    sure: bool
    keys: int
    before: str
    after: str
    shape: list[int]
    evidence: list[str]
    rivals: list[str]


@dataclass
class Suggestion:
    """`rules` and `passthrough` as they would be declared. `unplaced` official and `missing` native names have no
    partner: exclude them with a reason, or write their rules by hand.
    """

    rules: Rules
    passthrough: list[str]
    proposals: list[Proposal]
    unplaced: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    component: str = ""

    @property
    def ambiguous(self) -> list[Proposal]:
        return [proposal for proposal in self.proposals if not proposal.sure]

    def to_json(self) -> dict[str, Any]:
        return {
            "component": self.component,
            "rules": self.rules.to_json()["rules"],
            "passthrough": self.passthrough,
            "proposals": [vars(proposal) for proposal in self.proposals],
            "ambiguous": len(self.ambiguous),
            "unplaced": self.unplaced,
            "missing": self.missing,
            **({"conversion": self.conversion()} if self.converts else {}),
        }

    @property
    def converts(self) -> bool:
        """Some rule needs what only a conversion can do."""
        return any(rule.operations for rule in self.rules.rules)

    def conversion(self) -> dict[str, Any]:
        """The rules as a component of a conversion script declares them."""
        names = [] if self.passthrough else [p.before for p in self.proposals if p.before]
        return suggest_declared.entry(self.rules, names)

    def text(self) -> str:
        rows: list[tuple[str, ...]] = [("", "rule", "keys", "example", "becomes", "shape")]
        rows += [("" if p.sure else "?", p.rule, str(p.keys), p.before, p.after, str(p.shape)) for p in self.proposals]
        head = f"{self.component}: " if self.component else ""
        lines = [f"{head}{len(self.rules.rules)} rules, {len(self.passthrough)} pass-throughs", show.table(rows)]
        if self.ambiguous:
            lines.append(f"\n? {len(self.ambiguous)} are guesses; decide them yourself:")
        for proposal in self.ambiguous:
            could = f"; could also be {', '.join(proposal.rivals)}" if proposal.rivals else ""
            lines.append(f"  {proposal.before} -> {proposal.after}: {'; '.join(proposal.evidence)}{could}")
        if self.unplaced:
            lines.append(f"\n{len(self.unplaced)} official keys have no place: {show.listing(self.unplaced)}")
        if self.missing:
            lines.append(f"\n{len(self.missing)} native names have no source: {show.listing(self.missing)}")
        return "\n".join([*lines, "", self.declaration()])

    def declaration(self) -> str:
        """The rules as one writes them down, a guess with a comment."""
        if self.converts:
            return suggest_declared.text(self.conversion(), len(self.ambiguous))
        guesses = {proposal.rule for proposal in self.ambiguous}
        lines = ["param_names_mapping = {"]
        for rule in self.rules.rules:
            target = f'r"{rule.target}"' if rule.index is None else f'(r"{rule.target}", {rule.index}, {rule.count})'
            lines.append(f'    r"{rule.pattern}": {target},{"  # ? a guess" if rule.text in guesses else ""}')
        lines.append("}")
        if self.passthrough:
            lines.append("passthrough = [" + ", ".join(f"'{pattern}'" for pattern in self.passthrough) + "]")
        return "\n".join(lines)


def suggest(
    official: Mapping[str, Sequence[int]], native: Mapping[str, Sequence[int]], component: str = ""
) -> Suggestion:
    """The rule list for these names and shapes."""
    state = solve(official, native)
    matches = [state.matches[unit] for unit in state.native if unit in state.matches]
    known = suggest_rules.table(matches, official, state.official)
    found = suggest_rules.verified(
        suggest_rules.drafts(matches, known), known, lambda drafts: _applied(drafts, official)
    )
    rules = Rules(tuple(_rule(draft) for draft in found if not draft.stays), "suggested")
    passthrough = [_passing(draft) for draft in found if draft.stays]
    reached = {place[0] for places in known.places.values() for place in places}
    return Suggestion(
        rules,
        passthrough,
        [_proposal(draft, known, official) for draft in found],
        [name for name in official if name not in known.places],
        [name for name in native if name not in reached],
        component,
    )


def solve(official: Mapping[str, Sequence[int]], native: Mapping[str, Sequence[int]]) -> State:
    """Every pairing that shapes allow and names support: the same leaves and shapes first, then looser."""
    official, native = _plain(official), _plain(native)
    common = layer_counts(official) & layer_counts(native)
    state = State(units(official, common), units(native, common))
    _rounds(state)
    if state.free_official() and state.free_native():
        state.unroll()
        _rounds(state)
    suggest_match.doubt_squares(state)
    return state


def _plain(names: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """Without names that hold a sign which a template or an alternative is written with: those are for a person."""
    return {name: shape for name, shape in names.items() if name and not set(name) & set("#|*")}


def _rounds(state: State) -> None:
    for kind in (suggest_match.signature, suggest_match.loose):
        while _round(state, kind):
            state.learn()
    while suggest_joins.merges(state, guess=True) | suggest_joins.splits(state, guess=True):
        state.learn()
        for kind in (suggest_match.signature, suggest_match.loose):
            while _round(state, kind):
                state.learn()
    for kind in (suggest_match.signature, suggest_match.loose):
        suggest_match.settle(state, kind)
    for kind in (suggest_match.flat, suggest_match.square):
        while suggest_match.pair_classes(state, kind):
            state.learn()
        suggest_match.settle(state, kind)


def _round(state: State, kind: Any) -> bool:
    """Certain pairs till there are no more, then merges and splits; True when anything was found."""
    found = False
    while suggest_match.pair_classes(state, kind):
        state.learn()
        found = True
    joined = suggest_joins.merges(state)
    return suggest_joins.splits(state) or joined or found


# --- from drafts to rules --------------------------------------------------------------------------------------------


def _rule(draft: Draft) -> Rule:
    return Rule("rename", draft.pattern, draft.replacement, draft.index, draft.count, operations=draft.operations)


def _passing(draft: Draft) -> str:
    """A pass-through as port.toml writes it: about whole names, without groups."""
    return draft.pattern.removeprefix("^").removesuffix("$").replace(r"(\d+)", r"\d+").replace("(.*)", ".*")


def _applied(drafts: list[Draft], names: Mapping[str, Any]) -> dict[str, list[Place]]:
    rules = Rules(tuple(_rule(draft) for draft in drafts))
    found: dict[str, list[Place]] = {}
    for item in rules.apply(names).placed:
        entry = (item.target, item.index, item.count, " ".join(map(str, item.operations)))
        found.setdefault(item.source, []).append(entry)
    return found


def _proposal(draft: Draft, known: Table, official: Mapping[str, Sequence[int]]) -> Proposal:
    taken = [name for match in draft.matches for name in _names(draft, match, known)]
    taken = list(dict.fromkeys(taken))
    rule = _passing(draft) + " (passes through)" if draft.stays else _rule(draft).text
    evidence = list(dict.fromkeys(said for match in draft.matches for said in match.evidence))
    rivals = list(dict.fromkeys(rival for match in draft.matches for rival in match.rivals))
    if not taken:
        return Proposal(rule, draft.sure, 0, "", "", [], evidence, rivals)
    after = next((p[0] for p in known.places[taken[0]] if p[1] == draft.index), known.places[taken[0]][0][0])
    return Proposal(rule, draft.sure, len(taken), taken[0], after, list(official[taken[0]]), evidence[:6], rivals)


def _names(draft: Draft, match: Any, known: Table) -> list[str]:
    pattern = re.compile(draft.pattern)
    return [n for unit in match.sources for n in unit.names.values() if n in known.places and pattern.match(n)]
