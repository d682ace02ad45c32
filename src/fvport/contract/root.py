# SPDX-License-Identifier: Apache-2.0
"""What goes into an encoder and comes out of it, and how it behaves when masks, rows and padding change.

Both sides are watched and tried by this one file: the oracle's process loads it by its path (standard library and torch
only). Nothing is compared here.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PARTS = ("mask", "position")  # words in the names of arguments whose values are kept


@dataclass
class Call:
    """One call of the model: arguments by the names of `forward`, the answer as it came, autocast at its start."""

    given: dict[str, Any]
    answer: Any = None
    autocast: str = ""
    low: list[str] = field(default_factory=list)  # submodules that answered in less than the model's own precision
    inside: list[str] = field(default_factory=list)  # submodules that ran under autocast


def names_of(model: Any) -> set[str]:
    """Parameters that `forward` takes by name."""
    try:
        return set(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return set()


def bound(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments by name; positional ones without a name by their number."""
    try:
        found = inspect.signature(model.forward).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    flat: dict[str, Any] = {}
    for name, value in found.arguments.items():
        kind = found.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            flat |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            flat |= {f"*{i}": item for i, item in enumerate(value)}
        else:
            flat[name] = value
    return flat


@contextlib.contextmanager
def watched(model: Any, calls: list[Call], swap: dict[str, Any] | None = None, deep: bool = False) -> Iterator[None]:
    """Every call of `model` is put into `calls`; `swap` replaces arguments by name (None takes one away).

    `deep` looks at each submodule too: the dtype of its answer, and whether it ran under autocast.
    """
    import torch

    handles = []

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        given = bound(module, args, kwargs)
        calls.append(Call(given, autocast=autocast()))
        if not swap:
            return None
        plain = {name: value for name, value in given.items() if not name.startswith("*")}
        plain |= {name: value.clone() if torch.is_tensor(value) else value for name, value in swap.items()}
        return (), {name: value for name, value in plain.items() if not (name in swap and value is None)}

    def after(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        calls[-1].answer = output

    def inner(name: str) -> Any:
        def look(module: Any, args: Any, output: Any) -> None:
            if not calls:
                return
            dtype = _dtype(output)
            if dtype in (torch.float16, torch.bfloat16):
                calls[-1].low.append(f"{name}: {str(dtype).removeprefix('torch.')}")
            if autocast() and not calls[-1].autocast:
                calls[-1].inside.append(name)

        return look

    try:
        handles.append(model.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(model.register_forward_hook(after, with_kwargs=True))
        for name, module in model.named_modules() if deep else ():
            if name:
                handles.append(module.register_forward_hook(inner(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def autocast() -> str:
    """The dtype of autocast where it is on, for the CPU or a GPU; ''."""
    import torch

    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return ""


def _dtype(output: Any) -> Any:
    import torch

    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output.dtype if torch.is_tensor(output) else None


# --- an answer as fields ----------------------------------------------------------------------------------------------


def fields(answer: Any) -> dict[str, Any]:
    """{field: tensor or tuple of tensors} of an output object, a tuple or a bare tensor; without what is None."""
    import dataclasses

    import torch

    if torch.is_tensor(answer):
        return {"": answer}
    if isinstance(answer, dict):  # also the outputs of transformers and diffusers, which are dicts
        found = dict(answer.items())
    elif dataclasses.is_dataclass(answer):
        found = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    elif isinstance(answer, (tuple, list)):
        found = {str(i): value for i, value in enumerate(answer)}
    else:
        found = {k: v for k, v in getattr(answer, "__dict__", {}).items() if not k.startswith("_")}
    return {k: v for k, v in found.items() if torch.is_tensor(v) or (isinstance(v, (tuple, list)) and v)}


def about(answer: Any) -> dict[str, Any]:
    """`{"container", "home", "fields": {name: [dtype, shape] or "3 of [dtype, shape]"}}`."""
    import torch

    shown: dict[str, Any] = {}
    for name, value in fields(answer).items():
        if torch.is_tensor(value):
            shown[name] = [str(value.dtype).removeprefix("torch."), list(value.shape)]
        else:
            tensors = [item for item in value if torch.is_tensor(item)]
            first = [str(tensors[0].dtype).removeprefix("torch."), list(tensors[0].shape)] if tensors else []
            shown[name] = {"count": len(value), "first": first}
    return {"container": type(answer).__name__, "home": type(answer).__module__, "fields": shown}


def main_field(answer: Any) -> Any:
    """The answer for each token: `last_hidden_state`, else the first floating tensor with a row for each; or None."""
    import torch

    found = fields(answer)
    chosen = found.get("last_hidden_state")
    if chosen is not None:
        return chosen
    several = [v for v in found.values() if torch.is_tensor(v) and v.is_floating_point() and v.dim() >= 2]
    return several[0] if several else None


def kept(given: dict[str, Any]) -> dict[str, Any]:
    """Masks and positions: the arguments whose values say what the others mean."""
    import torch

    return {n: v for n, v in given.items() if torch.is_tensor(v) and any(part in n for part in PARTS)}


def mask_of(given: dict[str, Any]) -> tuple[str, Any]:
    """(name, tensor) of the mask over tokens, (rows, tokens) or wider; ('', None)."""
    import torch

    for name, value in given.items():
        if "mask" in name and torch.is_tensor(value) and value.dim() >= 2:
            return name, value
    return "", None


def valid(mask: Any) -> Any:
    """(rows, tokens) bool of a plain mask of any dtype; None for one of another form."""
    if mask is None or mask.dim() != 2:
        return None
    if mask.is_floating_point() and bool((mask < 0).any()):
        return mask == 0
    return mask.bool()


def forms(mask: Any) -> dict[str, Any]:
    """The same mask as other code may write it."""
    import torch

    real = valid(mask)
    if real is None:
        return {}
    low = torch.zeros(real.shape, device=real.device).masked_fill(~real, -1e9)
    found = {"bool": real, "int64": real.long(), "float": real.float(), "additive": low}
    return {name: value for name, value in found.items() if value.dtype != mask.dtype or name == "additive"}


# --- behaviour --------------------------------------------------------------------------------------------------------


def behave(model: Any, given: dict[str, Any], answer: Any) -> dict[str, Any]:
    """How the answer for real tokens moves: figures in relative L2, or words where a call was refused.

    again         the same once more; where that is refused or not finite, nothing else is tried
    padding       other content under the mask
    row 1 alone   the second row without the others around it
    mask.FORM     the same mask written otherwise ("refused: ..." where it raises)
    mask rows     the mask of all rows but the first opened: 1.0 and more says that each row's own is read
    states off    `output_hidden_states=False`
    """
    import math

    import torch

    given = {n: v for n, v in given.items() if not n.startswith("*")}
    base = main_field(answer)
    found: dict[str, Any] = {}
    name, mask = mask_of(given)
    real = valid(mask)
    if base is None or base.dim() < 2:
        return found

    def moved(new: dict[str, Any], rows: slice = slice(None)) -> Any:
        try:
            with torch.no_grad():
                other = main_field(model(**new))
        except Exception as error:  # noqa: BLE001 - refusing is an answer
            return f"refused: {type(error).__name__}"
        return _apart(other, base[rows], None if real is None or base.dim() < 3 else _scaled(real, base.shape[1])[rows])

    found["again"] = moved(given)
    if not isinstance(found["again"], float) or not math.isfinite(found["again"]):
        return found
    if real is not None and not bool(real.all()):
        changed = _under_mask(given, name, real)
        if changed:
            found["padding"] = moved({**given, **changed})
        if real.shape[0] > 1 and not bool(real[1:].all()):
            opened = mask.clone()
            opened[1:] = mask[real][0]
            found["mask rows"] = moved({**given, name: opened}, slice(None))
        for form, other in forms(mask).items():
            found[f"mask.{form}"] = moved({**given, name: other})
    if base.shape[0] > 1:
        alone = _rows(given, slice(1, 2), base.shape[0])
        found["row 1 alone"] = moved(alone, slice(1, 2))
    if given.get("output_hidden_states"):
        found["states off"] = moved({**given, "output_hidden_states": False})
    return found


def mask_moves(model: Any, given: dict[str, Any], left: bool = False) -> dict[str, float]:
    """How far the answer moves when half of the tokens are masked away: `real` at the others, `all` everywhere.

    `left`: padding is on the left. {} where it cannot be told (no ids of two tokens and more, or a refused call).
    """
    import math

    import torch

    names, given = names_of(model), {n: v for n, v in given.items() if not n.startswith("*")}
    ids = next((v for n, v in given.items() if torch.is_tensor(v) and v.dim() == 2 and "ids" in n), None)
    name = mask_of(given)[0] or next((n for n in names if "mask" in n), "")
    if ids is None or ids.shape[1] < 2 or (not name and "kwargs" in names):
        return {}
    if not name:
        return {"real": 0.0, "all": 0.0}  # `forward` takes no mask
    whole, half = torch.ones_like(ids, dtype=torch.int64), torch.ones_like(ids, dtype=torch.int64)
    middle = ids.shape[1] // 2
    half[:, slice(0, middle) if left else slice(middle, None)] = 0
    try:
        with torch.no_grad():
            a, b = (main_field(model(**{**given, name: mask})) for mask in (half, whole))
    except Exception:  # noqa: BLE001 - a mask of another form, say: then it cannot be told
        return {}
    if a is None or b is None:
        return {}
    found = {"real": _apart(a, b, half.bool()), "all": _apart(a, b, None)}
    return {n: v for n, v in found.items() if isinstance(v, float) and math.isfinite(v)}


def _rows(given: dict[str, Any], rows: slice, count: int) -> dict[str, Any]:
    import torch

    return {n: v[rows] if torch.is_tensor(v) and v.dim() and v.shape[0] == count else v for n, v in given.items()}


def _under_mask(given: dict[str, Any], mask_name: str, real: Any) -> dict[str, Any]:
    """What stands at padding, replaced by what stands at real tokens; masks and positions stay."""
    import torch

    changed = {}
    for name, value in given.items():
        if name == mask_name or any(part in name for part in PARTS) or "type" in name or not torch.is_tensor(value):
            continue
        if value.shape[:2] != real.shape:
            continue
        pool, other = value[real], value.clone()
        count = int((~real).sum())
        other[~real] = pool[torch.arange(count, device=pool.device) % len(pool)]
        changed[name] = other
    return changed


def _scaled(real: Any, length: int) -> Any:
    """A mask over samples as one over fewer frames: those that lie well within the valid samples of their row."""
    import torch

    if real.shape[1] <= length:
        return real
    ends = (real.sum(1) * length // real.shape[1] - 2).clamp(min=1)
    return torch.arange(length, device=real.device)[None] < ends[:, None]


def _apart(a: Any, b: Any, real: Any) -> Any:
    """Relative L2 of `a` to `b`, of real tokens where a mask says which."""
    if a is None or a.shape != b.shape:
        return "another shape"
    if real is not None and a.shape[:2] == real.shape:
        a, b = a[real], b[real]
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / (b.norm() or 1.0))


def chosen(trees: dict[str, dict[str, Any]]) -> str:
    """The case whose behaviour says most: several rows, padding, the fewest tokens; '' where none has several rows."""
    import torch

    def rank(case: str) -> tuple[int, int]:
        given = trees[case]
        _, mask = mask_of(given)
        real = valid(mask)
        padded = real is not None and real.shape[0] > 1 and not bool(real.all())
        size = max((v.numel() for v in given.values() if torch.is_tensor(v)), default=0)
        return (0 if padded else 1, size)

    rows = {
        c: g for c, g in trees.items() if any(torch.is_tensor(v) and v.dim() > 1 and len(v) > 1 for v in g.values())
    }
    return min(rows, key=rank) if rows else ""
