# SPDX-License-Identifier: Apache-2.0
"""Numbered findings on a rule list, given the official names and the native ones. A number never changes its meaning.

Each rule is one function; its docstring's first sentence is what the user sees beside the number. `error` findings
fail the `mapping` check, `note` findings are for the reviewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fvport.errors import UsageError, did_you_mean
from fvport.weights import alike, regexcost, swaps, wild_dots
from fvport.weights.case import NATIVE, Case, Finding, Shape
from fvport.weights.mapping import Rule, Rules, produced
from fvport.weights.operations import Tensor
from fvport.weights.patterns import concerns, concerns_any
from fvport.weights.show import listing

# judgements on words may be accepted; what loses or mixes tensors never
ACCEPTABLE = ("FV102", "FV108", "FV114", "FV115", "FV118")

RULES: dict[str, Callable[[Case], Iterator[Finding]]] = {}


def _rule(code: str) -> Callable[[Callable[[Case], Iterator[Finding]]], Callable[[Case], Iterator[Finding]]]:
    def add(function: Callable[[Case], Iterator[Finding]]) -> Callable[[Case], Iterator[Finding]]:
        RULES[code] = function
        return function

    return add


def sentence(code: str) -> str:
    """The one sentence that says what a rule is about."""
    return (RULES[code].__doc__ or "").strip().split("\n")[0]


def lint(
    rules: Rules,
    shapes: Mapping[str, Shape],
    native: Mapping[str, Shape] | None = None,
    passthrough: Sequence[str] = (),
    exclude: Mapping[str, str] | None = None,
    accept: Mapping[str, str] | None = None,
    reuse: bool = False,
) -> list[Finding]:
    """All findings on a rule list.

    `accept` {`FV1xx` or `FV1xx name-regex`: reason} turns errors into notes, in writing. `reuse` judges an existing
    FastVideo class, whose rules are not this port's to tidy: only what loses or mixes tensors stays an error.
    """
    case = Case(rules, shapes, native, passthrough, exclude or {})
    for code in ("FV101", "FV117"):
        if broken := list(RULES[code](case)):
            return broken  # nothing can be applied
    found = [finding for function in RULES.values() for finding in function(case)]
    keep = ("FV105", "FV106", "FV107", "FV110", "FV111", "FV120")
    if reuse:
        found = [f if f.code in keep else replace(f, severity="note") for f in found]
    return [_accepted(finding, accept or {}) for finding in found]


DECLARED = ("FV109", "FV112", "FV113", "FV114", "FV115", "FV118")  # the plan of a conversion has refused the rest


def declared(case: Case, where: str, accept: Mapping[str, str] | None = None) -> list[Finding]:
    """Findings on the rules of a declared conversion, whose plan could be made. `where` begins each message."""
    found = [replace(f, message=f"{where}: {f.message}") for code in DECLARED for f in RULES[code](case)]
    return [_accepted(finding, accept or {}) for finding in found]


def _accepted(finding: Finding, accept: Mapping[str, str]) -> Finding:
    for key, reason in accept.items():
        code, _, pattern = key.partition(" ")
        subjects = finding.names or (finding.rule,)
        if (
            code == finding.code
            and code in ACCEPTABLE
            and reason.strip()
            and all(re.fullmatch(pattern or ".*", name) for name in subjects)
        ):
            return replace(finding, severity="note", message=f"{finding.message} (accepted: {reason})")
    return finding


def _error(code: str, message: str, names: Sequence[str] = (), rule: Rule | None = None) -> Finding:
    return Finding(code, "error", message, tuple(names), rule.text if rule else "")


def _note(code: str, message: str, names: Sequence[str] = (), rule: Rule | None = None) -> Finding:
    return Finding(code, "note", message, tuple(names), rule.text if rule else "")


@_rule("FV101")
def invalid(case: Case) -> Iterator[Finding]:
    """A pattern must be a regular expression, and its target may name only groups that the pattern has."""
    for rule in case.rules.rules:
        if rule.form != "rename":
            if not rule.pattern:
                yield _error("FV101", "an empty substring matches every name", rule=rule)
            continue
        try:
            compiled = re.compile(rule.pattern)
            _check_groups(compiled, rule.target)
        except (re.error, IndexError) as error:
            yield _error("FV101", f"rule {rule.text} is not valid ({error})", rule=rule)
    for pattern in [*case.passthrough, *case.exclude]:
        try:
            re.compile(pattern.removeprefix(NATIVE))
        except re.error as error:
            yield _error("FV101", f"the pattern {pattern!r} in port.toml is not a regular expression ({error})")


def _check_groups(compiled: re.Pattern[str], target: str) -> None:
    """Raises re.error or IndexError when `target` names a group that the pattern does not have."""
    scanner: Any = getattr(re, "_parser", None) or __import__("sre_parse")
    scanner.parse_template(target, compiled)


@_rule("FV102")
def unused(case: Case) -> Iterator[Finding]:
    """Every rule must take at least one key."""
    for position, rule in enumerate(case.rules.rules):
        if not _matching(case, rule):
            near = did_you_mean(_plain(rule.pattern), [_plain(name) for name in case.names])
            yield _error("FV102", f"rule {rule.text} takes no key.{near}", rule=rule)
        elif not case.taken(position) and rule.form == "stacked":
            yield _error("FV102", f"rule {rule.text} takes no key: earlier rules take all it could", rule=rule)


def _matching(case: Case, rule: Rule) -> list[str]:
    """Names that the rule would take if it were alone among those of its form."""
    names = case.names
    if rule.form == "stacked":
        names = [name for name in names if not any(r.form == "rename" and r.matches(name) for r in case.rules.rules)]
    return [name for name in names if rule.matches(case.called[name])]


def _plain(pattern: str) -> str:
    return re.sub(r"\\d\+?|\(.*?\)|[\\^$]|\d+", "", pattern)


@_rule("FV103")
def shadowed(case: Case) -> Iterator[Finding]:
    """A rule must not be hidden: the first match wins, so an earlier rule that takes all its keys makes it dead."""
    for position, rule in enumerate(case.rules.rules):
        matching = _matching(case, rule) if rule.form == "rename" else []
        if not matching or case.taken(position):
            continue
        earlier = {item.rules[0] for item in case.mapped.placed if item.source in set(matching) and item.rules}
        by = ", ".join(case.rules.rules[n].text for n in sorted(earlier))
        yield _error(
            "FV103", f"rule {rule.text} is shadowed by {by}, which takes {listing(matching, 4)}", matching, rule
        )


@_rule("FV104")
def undeclared(case: Case) -> Iterator[Finding]:
    """A key that no rule names passes through as it is; that must be declared (`mapping.passthrough`)."""
    names = [p.source for p in case.mapped.placed if not p.rules and not concerns_any(case.passthrough, p.source)]
    if names:
        what = f"{len(names)} keys pass through under their own names without being declared: {listing(names)}"
        yield _error("FV104", what, names)


@_rule("FV105")
def collision(case: Case) -> Iterator[Finding]:
    """Two sources must not go to one target: the one that comes last would win."""
    for target, sources in case.targets.items():
        plain = [item for item in sources if item.index is None]
        if len(plain) > 1 or (plain and len(sources) > 1):
            names = [item.source for item in sources]
            yield _error(
                "FV105", f"{', '.join(names)} all go to {target}; the last one read would win", (*names, target)
            )


@_rule("FV106")
def incomplete(case: Case) -> Iterator[Finding]:
    """A merge needs all its parts: a group that never fills is dropped without a word."""
    for target, sources in case.targets.items():
        merges = [item for item in sources if item.index is not None]
        for count in sorted({item.count or 0 for item in merges}):
            have = {item.index for item in merges if item.count == count}
            lacking = [str(n) for n in range(count) if n not in have]
            if lacking:
                what = f"{target} is joined from {count} parts, and part {', '.join(lacking)} has no source"
                yield _error("FV106", what, (target, *(item.source for item in merges)))


@_rule("FV107")
def merge_indices(case: Case) -> Iterator[Finding]:
    """The parts of a merge are numbered 0 to n-1, each once, and all its rules say the same n."""
    for target, sources in case.targets.items():
        merges = [item for item in sources if item.index is not None]
        names = (target, *(item.source for item in merges))
        if len({item.count for item in merges}) > 1:
            counts = ", ".join(f"{item.source} says {item.count}" for item in merges)
            yield _error("FV107", f"{target}: the rules disagree on how many parts there are ({counts})", names)
        outside = [
            i for i in merges if not (isinstance(i.count, int) and isinstance(i.index, int) and 0 <= i.index < i.count)
        ]
        for item in outside:
            yield _error("FV107", f"{target}: part {item.index} of {item.count} is out of range", names)
        for index in sorted({i.index for i in merges if i not in outside and i.index is not None}):
            twice = [item.source for item in merges if item.index == index]
            if len(twice) > 1:
                yield _error("FV107", f"{target}: {' and '.join(twice)} are both part {index}", names)


@_rule("FV108")
def partial(case: Case) -> Iterator[Finding]:
    """A pattern must not stop inside a word or number, and must not replace in more than one place."""
    for position, rule in enumerate(case.rules.rules):
        taken = [item.source for item in case.taken(position)]
        cut = [name for name in taken if rule.form == "rename" and _cut(rule, name)]
        if cut:
            what = f"rule {rule.text} is not anchored and stops inside a word or number of {listing(cut, 4)}"
            yield _error("FV108", what, cut, rule)
        many = [name for name in taken if rule.form == "rename" and len(re.findall(rule.pattern, name)) > 1]
        many += [name for name in taken if rule.form == "stacked" and name.count(rule.pattern) > 1]
        if many:
            yield _error("FV108", f"rule {rule.text} replaces in more than one place of {listing(many, 4)}", many, rule)


def _cut(rule: Rule, name: str) -> bool:
    """The match ends between two characters of one word: the rest of the word would be glued to the new name."""
    match = re.match(rule.pattern, name)
    end = match.end() if match else 0
    return 0 < end < len(name) and bool(re.match(r"\w\w", name[end - 1 : end + 1]))


@_rule("FV109")
def identity(case: Case) -> Iterator[Finding]:
    """A rule that renames nothing could be a line in `mapping.passthrough`."""
    if case.rules.provenance == "inferred":
        return  # one exact rule a tensor, written by watching a load
    for position, rule in enumerate(case.rules.rules):
        taken = case.taken(position)
        if rule.form == "step" or rule.operations:
            continue
        if taken and rule.index is None and all(case.called[item.source] == item.target for item in taken):
            yield _note(
                "FV109", f"rule {rule.text} leaves {len(taken)} names as they are", [p.source for p in taken], rule
            )


@_rule("FV110")
def no_target(case: Case) -> Iterator[Finding]:
    """A key must go to a name that the native model has."""
    if case.native is None:
        return
    lost = {target: items for target, items in case.targets.items() if target not in case.native}
    if lost:
        first = next(iter(lost))
        near = did_you_mean(first, case.native)
        sources = [item.source for items in lost.values() for item in items]
        what = f"{len(lost)} targets are not in the native model: {listing(lost)} (from {listing(sources)}).{near}"
        yield _error("FV110", what, tuple(lost))


@_rule("FV111")
def no_source(case: Case) -> Iterator[Finding]:
    """Every native parameter and persistent buffer needs a source."""
    free = set(case.native_free)
    lacking = [name for name in case.native or {} if name not in case.targets and name not in free]
    if lacking:
        yield _error("FV111", f"{len(lacking)} native names have no source: {listing(lacking)}", lacking)


@_rule("FV112")
def order_matters(case: Case) -> Iterator[Finding]:
    """Where two rules could take one key, their order decides."""
    for position, rule in enumerate(case.rules.rules):
        taken = case.taken(position)
        for later in case.rules.rules[position + 1 :]:
            if later.form != rule.form or (rule.part and later.pattern == rule.pattern) or rule.form == "step":
                continue
            if rule.declared and rule.declared == later.declared:
                continue
            both = [p.source for p in taken if later.matches(case.called[p.source])]
            if both and len(both) < len(_matching(case, later)):
                what = f"{listing(both, 4)} would also match the later rule {later.text}; the order of the two decides"
                yield _note("FV112", what, both, rule)


@_rule("FV113")
def same_shape(case: Case) -> Iterator[Finding]:
    """Parts of one shape could be swapped and nothing but parity would show it."""
    yield from (_note("FV113", *item) for item in alike.same_shape(case))


@_rule("FV114")
def swapped(case: Case) -> Iterator[Finding]:
    """The names on both sides contradict each other: this looks swapped."""
    for message, names in swaps.swapped(case):
        yield _error("FV114", message, names)


@_rule("FV115")
def layers_reordered(case: Case) -> Iterator[Finding]:
    """Layers must keep their order."""
    for message, names in swaps.reordered(case):
        yield _error("FV115", message, names)


@_rule("FV116")
def idle_list(case: Case) -> Iterator[Finding]:
    """A declared pass-through or exclusion should concern some key."""
    for pattern in case.passthrough:
        if not any(not p.rules and concerns(pattern, p.source) for p in case.mapped.placed):
            yield _note("FV116", f"mapping.passthrough {pattern!r} concerns no key")
    for pattern, reason in case.exclude.items():
        names = case.native or {} if pattern.startswith(NATIVE) else case.shapes
        hit = [name for name in names if concerns(pattern.removeprefix(NATIVE), name)]
        if not hit:
            yield _note("FV116", f"mapping.exclude {pattern!r} concerns no key")
        elif not reason.strip():
            yield _error("FV116", f"mapping.exclude {pattern!r} leaves out {listing(hit, 4)} without a reason", hit)
        else:
            yield _note("FV116", f"left out: {listing(hit, 4)} ({reason})", hit)


@_rule("FV117")
def backtracks(case: Case) -> Iterator[Finding]:
    """A pattern must not backtrack badly: a name could keep the loader busy for ever."""
    for rule in case.rules.rules:
        why = regexcost.danger(rule.pattern) if rule.form != "stacked" else ""
        if why:
            yield _error("FV117", f"rule {rule.text}: {why}", rule=rule)
    for pattern in [*case.passthrough, *case.exclude]:
        why = regexcost.danger(pattern.removeprefix(NATIVE))
        if why:
            yield _error("FV117", f"the pattern {pattern!r} in port.toml: {why}")


@_rule("FV118")
def too_wide(case: Case) -> Iterator[Finding]:
    """A pattern must not take more than it means: a dot that is not escaped, a key whose target does not exist."""
    wild = wild_dots.of(case)
    for position, rule in enumerate(case.rules.rules):
        taken = [item for item in case.taken(position) if not item.skipped]
        if dots := wild.get(position, []):
            what = f"rule {rule.text}: a dot that is not escaped stands for another character of {listing(dots, 4)}"
            yield _error("FV118", what, dots, rule)
        native = case.native
        lost = [item.source for item in taken if native is not None and item.target not in native]
        if lost and len(lost) < len(taken):
            what = f"rule {rule.text} takes {listing(lost, 4)} as well, for which the native model has no place"
            yield _error("FV118", what, lost, rule)


@_rule("FV119")
def unfit(case: Case) -> Iterator[Finding]:
    """Operations and merges must fit the shapes they are given."""
    for target, items in case.targets.items():
        several = len(items) > 1 and all(item.index is not None for item in items)
        if not (several or any(item.operations for item in items)):
            continue
        try:
            made = produced(items, [Tensor("F32", tuple(case.shapes[item.source])) for item in items])
        except UsageError as error:
            yield _error("FV119", f"{target}: {error}", (target, *(item.source for item in items)))
            continue
        wanted = (case.native or {}).get(target)
        if wanted is not None and tuple(wanted) != made.shape:
            what = f"{target} would be {list(made.shape)}, the native model has {list(wanted)}"
            yield _error("FV119", what, (target, *(item.source for item in items)))


@_rule("FV120")
def lost_part(case: Case) -> Iterator[Finding]:
    """A tensor that is split must go somewhere with every part, and with each only once."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for item in case.mapped.placed:
        for step in item.operations:
            if step.name == "split" and len(step.arguments) == 3:
                sizes, index = step.arguments[1:]
                parts.setdefault(item.source, []).append((sizes if isinstance(sizes, int) else len(sizes), index))
    for source, found in parts.items():
        count = max(number for number, _ in found)
        have = [index for _, index in found]
        lacking = [str(n) for n in range(count) if n not in have]
        twice = sorted({str(n) for n in have if have.count(n) > 1})
        if lacking:
            yield _error(
                "FV120", f"{source} is split in {count}, and part {', '.join(lacking)} goes nowhere", (source,)
            )
        if twice:
            yield _error("FV120", f"{source} is split in {count}, and part {', '.join(twice)} is used twice", (source,))
