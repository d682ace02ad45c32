# SPDX-License-Identifier: Apache-2.0
"""Whether a regular expression can backtrack without end, told from its structure and from counted steps, not by time.

Structure: a repeat without an end inside another, where one text can be split among their rounds in more than one way
(`(a+)+`, `(.*)*`), or alternatives that overlap under a repeat (`(a|a.)*`), take exponential time; four or more repeats
in a row that can share text take n^4. Steps: a small matcher counts what the engine would try on texts made to fail.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

_parser: Any = getattr(re, "_parser", None) or __import__("sre_parse")
MANY = 30  # a repeat that may go on longer than this counts as endless
IN_A_ROW = 4  # endless repeats that share text: n^4 for a name of n characters
STEPS = 60_000  # tries on one text, before a pattern is refused
LONG = 24  # characters of such a text: n^3 stays under STEPS, 2^n does not
ALPHABET = [chr(code) for code in range(33, 127)] + ["\n"]
Chars = frozenset[str]


@functools.cache
def danger(pattern: str) -> str:
    """What is wrong with the pattern in a few words, or nothing. `re.error` for what is no pattern."""
    if not any(sign in pattern for sign in "*+{"):
        return ""
    parsed = _parser.parse(pattern)
    if _harmless(parsed):
        return ""
    found = _nested(parsed) or _in_a_row(parsed)
    if found:
        return found
    for text in _attacks(parsed):
        if steps(parsed, text) > STEPS:
            return f"it takes more than {STEPS:,} steps on {text[:12]!r}... of {len(text)} characters"
    return ""


def _harmless(parsed: Any) -> bool:
    """At most two endless repeats, of single characters, none inside a repeat: n^2 at worst."""
    repeats = [value for name, value in _nodes(parsed) if name in ("MAX_REPEAT", "MIN_REPEAT")]
    plain = all(
        len(value[2]) == 1 and str(value[2][0][0]) in ("LITERAL", "ANY", "IN", "NOT_LITERAL") for value in repeats
    )
    return plain and sum(value[1] > MANY for value in repeats) <= 2


# --- structure -------------------------------------------------------------------------------------------------------


def _nested(parsed: Any) -> str:
    for name, value in _nodes(parsed):
        if name not in ("MAX_REPEAT", "MIN_REPEAT") or value[1] <= MANY:
            continue
        body = value[2]
        inner = [v for n, v in _nodes(body) if n in ("MAX_REPEAT", "MIN_REPEAT") and v[1] > MANY]
        first, last = _first(body), _last(body)
        if inner and any(_first(v[2]) & (first | last) and _loose(body, v) for v in inner):
            return "an endless repeat stands inside another, and they can share one text in many ways"
        for kind, branch in _nodes(body):
            if kind == "BRANCH" and _overlap(branch[1]):
                return "alternatives that can match the same text stand inside an endless repeat"
    return ""


def _loose(body: Any, inner: Any) -> bool:
    """Nothing but the inner repeat has to be there, or what has to is text that the repeat itself would take."""
    must = [chars for chars, needed in _pieces(body, inner) if needed]
    return all(chars & _all(inner[2]) for chars in must)


def _pieces(body: Any, inner: Any) -> Iterator[tuple[Chars, bool]]:
    for op, value in body:
        name = str(op)
        if name == "SUBPATTERN":
            yield from _pieces(value[3], inner)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            if value is not inner:
                yield _all(value[2]), value[0] > 0
        elif name != "AT":
            yield _chars(op, value), True


def _overlap(branches: list[Any]) -> bool:
    starts = [_first(branch) for branch in branches]
    return any(starts[i] & starts[j] for i in range(len(starts)) for j in range(i + 1, len(starts)))


def _in_a_row(parsed: Any) -> str:
    """Endless repeats between which nothing stands that the repeats cannot take themselves."""
    run = 0
    shared: Chars = frozenset(ALPHABET)
    for chars, endless in _flat(parsed):
        if endless and chars & shared:
            run, shared = run + 1, chars & shared
        elif endless:
            run, shared = 1, chars
        elif not chars & shared:
            run, shared = 0, frozenset(ALPHABET)
        if run >= IN_A_ROW:
            return f"{run} endless repeats can share one text: a name of n characters takes n^{run} steps"
    return ""


def _flat(parsed: Any) -> Iterator[tuple[Chars, bool]]:
    for op, value in parsed:
        name = str(op)
        if name == "SUBPATTERN":
            yield from _flat(value[3])
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            yield _all(value[2]), value[1] > MANY
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            yield _chars(op, value), False


def _nodes(parsed: Any) -> Iterator[tuple[str, Any]]:
    """Every operation of a parsed pattern, the inner ones after theirs."""
    for op, value in parsed:
        yield str(op), value
        for part in _inside(str(op), value):
            yield from _nodes(part)


def _inside(name: str, value: Any) -> list[Any]:
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return [value[2]]
    if name == "SUBPATTERN":
        return [value[3]]
    if name == "BRANCH":
        return list(value[1])
    if name in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    return [value] if name == "ATOMIC_GROUP" else []


@functools.cache
def _set(text: str) -> Chars:
    compiled = re.compile(text, re.DOTALL)
    return frozenset(char for char in ALPHABET if compiled.fullmatch(char))


CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
}
CATEGORIES |= {"CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W"}


def _chars(op: Any, value: Any) -> Chars:
    """Characters that one step may take (all printable ones where that is not known)."""
    name = str(op)
    if name == "LITERAL":
        return frozenset(chr(value))
    if name == "NOT_LITERAL":
        return frozenset(ALPHABET) - {chr(value)}
    if name == "ANY":
        return frozenset(ALPHABET) - {"\n"}
    if name == "IN":
        return _class(value)
    inside = _inside(name, value)
    return frozenset[str]().union(*(_all(part) for part in inside)) if inside else frozenset(ALPHABET)


def _class(items: Any) -> Chars:
    found: set[str] = set()
    negated = False
    for op, value in items:
        name = str(op)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            found.add(chr(value))
        elif name == "RANGE":
            found |= {char for char in ALPHABET if value[0] <= ord(char) <= value[1]}
        else:
            found |= _set(CATEGORIES.get(str(value), "."))
    return frozenset(ALPHABET) - found if negated else frozenset(found)


def _all(parsed: Any) -> Chars:
    return frozenset[str]().union(*(_chars(op, value) for op, value in parsed)) if len(parsed) else frozenset()


def _first(parsed: Any) -> Chars:
    found: set[str] = set()
    for op, value in parsed:
        name = str(op)
        if name in ("AT", "ASSERT", "ASSERT_NOT"):
            continue
        inside = _inside(name, value)
        found |= frozenset[str]().union(*(_first(part) for part in inside)) if inside else _chars(op, value)
        if not (name.endswith("REPEAT") and value[0] == 0):
            break
    return frozenset(found)


def _last(parsed: Any) -> Chars:
    found: set[str] = set()
    for op, value in reversed(list(parsed)):
        name = str(op)
        if name in ("AT", "ASSERT", "ASSERT_NOT"):
            continue
        found |= _chars(op, value)
        if not (name.endswith("REPEAT") and value[0] == 0):
            break
    return frozenset(found)


# --- steps -----------------------------------------------------------------------------------------------------------


def _attacks(parsed: Any) -> list[str]:
    """Texts that a repeat takes for long and that then fail: each repeat's characters, many times, and a line feed."""
    heads = "".join(chr(value) for op, value in _literals(parsed))
    found = []
    for name, value in _nodes(parsed):
        if name in ("MAX_REPEAT", "MIN_REPEAT") and value[1] > MANY:
            taken = sorted(_all(value[2]) - {"\n"})
            for char in dict.fromkeys([*(c for c in ".0a_" if c in taken), *taken[:1]]):
                found += [char * LONG + "\n", heads + char * LONG + "\n"]
    return found[:12]


def _literals(parsed: Any) -> Iterator[tuple[Any, int]]:
    for op, value in parsed:
        if str(op) == "LITERAL":
            yield op, value
        elif str(op) != "AT":
            return


class _Enough(Exception):
    pass


def steps(parsed: Any, text: str, limit: int = STEPS) -> int:
    """How many places a backtracking matcher tries on `text`; `limit` + 1 where it would be more."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count > limit:
            raise _Enough

    try:
        for _ in _match(list(parsed), 0, text, step):
            break
    except (_Enough, RecursionError):
        return limit + 1
    return count


def _match(ops: list[Any], at: int, text: str, step: Callable[[], None]) -> Iterator[int]:
    """Ends of every way to match the operations from `at` on."""
    step()
    if not ops:
        yield at
        return
    (op, value), rest = ops[0], ops[1:]
    name = str(op)
    if name == "AT":
        edge = len(text) if str(value) in ("AT_END", "AT_END_STRING") else 0
        if at == edge or "BOUNDARY" in str(value):
            yield from _match(rest, at, text, step)
    elif name in ("MAX_REPEAT", "MIN_REPEAT"):
        for end in _repeat(value, at, text, step, 0):
            yield from _match(rest, end, text, step)
    elif name in ("SUBPATTERN", "BRANCH", "ATOMIC_GROUP"):
        for part in _inside(name, value):
            for end in _match(list(part), at, text, step):
                yield from _match(rest, end, text, step)
    elif name in ("ASSERT", "ASSERT_NOT", "GROUPREF", "GROUPREF_EXISTS", "POSSESSIVE_REPEAT"):
        yield from _match(rest, at, text, step)
    elif at < len(text) and text[at] in _chars(op, value):
        yield from _match(rest, at + 1, text, step)


def _repeat(value: Any, at: int, text: str, step: Callable[[], None], rounds: int) -> Iterator[int]:
    least, most, body = value
    if rounds < most:
        for end in _match(list(body), at, text, step):
            if end > at:
                yield from _repeat(value, end, text, step, rounds + 1)
    if rounds >= least:
        yield at
