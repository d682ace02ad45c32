# SPDX-License-Identifier: Apache-2.0
"""Hidden-state selection: which layer's state an output is, whether the final norm is in it, whose token is pooled."""

from __future__ import annotations

import contextlib
from typing import Any

from fvport.contract import Point, root
from fvport.contract.red import NEAR, Red, error
from fvport.parity.compare import series

STAGE = "hidden-state selection"


def look(red: Red) -> Point | None:
    """Outputs that are another layer's, another token's, or stand on the other side of a norm."""
    bad = red.bad(red.case)
    return _shifted(red, bad) or _layer(red, bad) or _norm(red, bad) or _pooled(red, bad)


def _shifted(red: Red, bad: list[str]) -> Point | None:
    """A series of states that is the official one, moved by a number of layers."""
    mine, theirs = red.native[red.case], red.official[red.case]
    for name in dict.fromkeys(series(n)[0] for n in theirs if series(n)[1] is not None):
        ours = {i: t for n, t in mine.items() for s, i in [series(n)] if s == name and i is not None}
        official = {i: n for n in theirs for s, i in [series(n)] if s == name and i is not None}
        if (wrong := [i for i, n in official.items() if n in bad]) and (by := _by(red, official, ours, wrong)):
            first = next(i for i in official if i + by in ours)
            layers = f"{abs(by)} layer{'s' if abs(by) > 1 else ''} {'late' if by < 0 else 'early'}"
            words = f"the native {name} begin {layers}: official index {first} is native index {first + by}"
            words += f" ({len(ours)} states, officially {len(official)})" if len(ours) != len(official) else ""
            return Point(STAGE, "layer off", words)
    return None


def _by(red: Red, official: dict[int, str], ours: dict[int, Any], wrong: list[int]) -> int:
    """How many places further the native side has every official state; 0 where no number fits."""

    def at(i: int, to: int) -> bool:
        return to in ours and red.equal(red.case, official[i], ours[to], red.official[red.case][official[i]])

    for by in (1, -1, 2, -2):
        # The last one may be normed, which none of its neighbours is.
        inner = [i for i in official if i + by in ours and i != max(official)]
        exchanged = any(at(i, i - by) for i in wrong)  # both ways: a swap, which is packing
        if inner and all(at(i, i + by) for i in inner) and not exchanged:
            return by
    return 0


def _layer(red: Red, bad: list[str]) -> Point | None:
    """An output that the native side has as the state of another layer."""
    mine, theirs = red.native[red.case], red.official[red.case]
    for name in bad:
        if series(name)[1] is not None or name not in mine:
            continue
        for other, state in mine.items():
            where = series(other)
            if where[1] is not None and red.equal(red.case, name, state, theirs[name]):
                same = next((n for n, t in mine.items() if n != name and _equal(t, mine[name])), "")
                has = f"it is the native {same}" if same else "it is none of the native states"
                return Point(
                    STAGE, "layer off", f"the official {name} is the native {other}, and {has} that is returned"
                )
    if found := _norm_of_another(red, bad):
        return found
    for name in bad:  # the right state is not among the outputs: is the one returned another layer's?
        if series(name)[1] is not None or mine.get(name) is None or norm_between(red, mine[name], theirs[name]):
            continue
        for other, state in theirs.items():
            if series(other)[1] is not None and other != name and red.equal(red.case, other, mine[name], state):
                return Point(STAGE, "layer off", f"the native {name} is the official {other}")
    return None


def _norm_of_another(red: Red, bad: list[str]) -> Point | None:
    """An output that is the norm of another layer's state than the official one."""
    mine, theirs = red.native[red.case], red.official[red.case]
    for name in bad:
        if mine.get(name) is None or mine[name].shape != theirs[name].shape or mine[name].dim() < 2:
            continue
        states = {n: t for n, t in mine.items() if series(n)[1] is not None and t.shape == mine[name].shape}
        right = next((n for n, t in states.items() if norm_between(red, t, theirs[name])), "")
        wrong = next((n for n, t in states.items() if right and norm_between(red, t, mine[name])), "")
        if right and wrong and right != wrong:
            words = f"{name} is the normed {wrong}, officially the normed {right}"
            return Point(STAGE, "layer off", words)
    return None


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.is_floating_point() and error(a, b) <= NEAR


def _norms(red: Red, width: int) -> list[tuple[str, Any]]:
    """Norm modules over this width, the last of them first."""
    found = [
        (name, module)
        for name, module in red.model.named_modules()
        if "norm" in (name + type(module).__name__).lower()
        and not list(module.children())
        and any(p.dim() == 1 and len(p) == width for p in module.parameters(recurse=False))
    ]
    return found[::-1]


def norm_between(red: Red, given: Any, wanted: Any) -> str:
    """The native norm that makes `wanted` of `given`, or ''."""
    import torch

    if given is None or given.shape != wanted.shape or not given.is_floating_point():
        return ""
    for name, module in _norms(red, given.shape[-1]):
        made: Any = None
        with contextlib.suppress(Exception), red.around(), torch.no_grad():  # a norm may want more than one argument
            made = module(given.to(next(module.parameters()).device))
        made = made[0] if isinstance(made, (tuple, list)) else made
        if torch.is_tensor(made) and made.shape == wanted.shape and error(made.cpu(), wanted) <= 10 * NEAR:
            return name
    return ""


def _norm(red: Red, bad: list[str]) -> Point | None:
    """The final norm is left out, or is where the official side has none."""
    mine, theirs = red.native[red.case], red.official[red.case]
    for name in bad:
        given = mine.get(name)
        if given is None or given.dim() < 2:
            continue
        if norm := norm_between(red, given, theirs[name]):
            return Point(STAGE, "final norm", f"{norm} is skipped: the native {name} becomes the official one by it")
        if norm := norm_between(red, theirs[name], given):
            return Point(STAGE, "final norm", f"{norm} is applied to {name}, and officially it is not")
    return None


def _pooled(red: Red, bad: list[str]) -> Point | None:
    """A pooled output made of another token."""
    call = red.call(red.case)
    if call is None:
        return None
    states = root.main_field(call.answer)
    if states is None or states.dim() != 3:
        return None
    for name in bad:
        wanted, mine = red.official[red.case][name], red.native[red.case].get(name)
        if mine is None or wanted.dim() != 2 or wanted.shape != mine.shape or wanted.shape[0] != states.shape[0]:
            continue
        found = _token(red, states, mine, wanted)
        if found is not None:
            words = f"{name} is made of {found[1]}, officially of {found[0]}"
            return Point(STAGE, "pooled token", words)
    return None


def _token(red: Red, states: Any, mine: Any, wanted: Any) -> tuple[str, str] | None:
    """(official, native) tokens that a pooled output is made of, through whatever modules follow the choice."""
    rows, length = states.shape[:2]
    for head in _heads(red, states, mine):
        made = [head(states[:, at]) for at in range(length)]
        official = [next((a for a in range(length) if _row(made[a], wanted, r)), None) for r in range(rows)]
        native = [next((a for a in range(length) if _row(made[a], mine, r)), None) for r in range(rows)]
        if None not in official and official != native:
            return _words(official, length), _words(native, length)
    return None


def _row(made: Any, wanted: Any, row: int) -> bool:
    return made is not None and made.shape == wanted.shape and error(made[row], wanted[row]) <= 10 * NEAR


def _words(at: list[Any], length: int) -> str:
    if None in at:
        return "no token of the last state"
    if set(at) == {0}:
        return "the first token"
    if set(at) == {length - 1}:
        return "the last place, padding or not"
    return f"tokens {', '.join(map(str, at))} (by row)"


def _heads(red: Red, states: Any, mine: Any) -> list[Any]:
    """Ways from one token's state (rows, width) to the pooled output: none, one module, or two in a row."""
    import torch

    def through(*modules: Any) -> Any:
        def run(x: Any) -> Any:
            try:
                with red.around(), torch.no_grad():
                    for module in modules:
                        x = module(x)
                        x = x[0] if isinstance(x, (tuple, list)) else x
                return x.cpu()
            except Exception:  # noqa: BLE001 - a module that is given another thing
                return None

        return run

    children = [m for n, m in red.model.named_modules() if n and _leafy(m)]
    tops = [m for m in red.model.modules() if m is not red.model and _pool_like(m)]
    singles = [*tops, *children[::-1]][:12]
    return [through(), *(through(m) for m in singles), *(through(m, torch.tanh) for m in singles)]


def _leafy(module: Any) -> bool:
    return not list(module.children()) and any(p.dim() <= 2 for p in module.parameters(recurse=False))


def _pool_like(module: Any) -> bool:
    return any(word in type(module).__name__.lower() for word in ("pool", "projection", "head"))
