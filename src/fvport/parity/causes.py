# SPDX-License-Identifier: Apache-2.0
"""What kind of fault it is: each family is a test, run on the faulty module with official inputs, and taken back.

A cause is named only where its test makes the module's output equal to the official one, or as equal as rounding lets
it. What was tried in vain is not reported as a cause.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fvport.parity import record
from fvport.parity.pairs import kind

EPS_VALUES = (1e-6, 1e-5, 1e-8, 1e-12, 1e-3, 1e-7)
ACTIVATIONS = ("gelu", "silu", "relu", "tanh", "sigmoid", "quickgelu", "newgelu", "swish", "mish")
GAIN = 20.0  # a test that makes the error this many times smaller, down to rounding, names the cause


@dataclass
class Cause:
    """`words` says what makes it equal; `before` and `after` are rel_l2 against the official output."""

    family: str
    words: str
    before: float
    after: float


@dataclass
class Case:
    """The faulty module with its official inputs and outputs. `tensors`: official parameters of each native one."""

    root: Any
    name: str
    arguments: tuple[Any, dict[str, Any]]
    outputs: list[tuple[str, Any]]
    inner: set[str]  # its submodules that are pairs of their own (judged apart), by full name
    official: dict[str, Any]  # what the record says of the official module: attributes, params, class
    tensors: dict[str, list[Any]]
    around: Callable[[], Any]  # forward context
    budget: float = 1e-6

    @property
    def module(self) -> Any:
        return self.root.get_submodule(self.name)

    def scope(self) -> list[tuple[str, Any]]:
        """The module and its submodules that have no partner of their own."""
        prefix = f"{self.name}." if self.name else ""
        return [(n, m) for n, m in self.module.named_modules() if not n or prefix + n not in self.inner]

    def error(self, change: Callable[[Any], Any] | None = None) -> float:
        """rel_l2 of the module's output as it is now. `change` is applied to the output; 1e9 where it cannot run."""
        import torch

        args, kwargs = _copied(self.arguments)
        try:
            with self.around(), torch.no_grad():
                output = self.module(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a wrong guess may not even run
            return 1e9
        matched, _ = record.match(record.probe.flatten(output, "out"), self.outputs)
        if not matched:
            return 1e9
        return max(record._measure(change(own) if change else own, other)["rel_l2"] for _, own, other in matched)


Test = tuple[str, str, Any]  # family, words, context under which the module is run again


def find(case: Case) -> list[Cause]:
    """Every family whose test makes the module equal, the most complete one first; empty where none does."""
    before = case.error()
    found = []
    if before <= case.budget:
        return []
    for family, words, context in itertools.chain(*(make(case) for make in MAKERS)):
        with contextlib.suppress(Exception), context as change:
            after = case.error(change)
            if after <= max(10 * case.budget, before / 1e4) and after <= before / GAIN:
                found.append(Cause(family, words, before, after))
    return sorted(found, key=lambda cause: cause.after > case.budget)


# --- tests -----------------------------------------------------------------------------------------------------------


def _weights(case: Case) -> Iterator[Test]:
    """Each own parameter against the official tensors it should hold; all that differ at once."""
    import torch

    wrong = []
    for path, module in case.scope():
        for name, parameter in module.named_parameters(recurse=False):
            parts = case.tensors.get(".".join(word for word in (case.name, path, name) if word))
            if not parts:
                continue
            whole = torch.cat(parts, 0) if len(parts) > 1 else parts[0]
            if whole.numel() != parameter.numel():
                continue
            right = whole.reshape(parameter.shape).to(parameter)
            if not bool(right.eq(parameter).all()):
                family, words = weight_words(parameter.detach(), parts, right, case)
                wrong.append((family, f"{'.'.join(w for w in (path, name) if w)} {words}", parameter, right))
    if wrong:
        context = contextlib.ExitStack()
        for _, _, parameter, right in wrong:
            context.enter_context(_value(parameter, right))
        words = ", ".join(words for _, words, _, _ in wrong[:3])
        yield wrong[0][0], f"{words}; with the official values it is equal", _entered(context)


@contextlib.contextmanager
def _entered(stack: contextlib.ExitStack) -> Iterator[None]:
    with stack:
        yield None


def weight_words(own: Any, parts: list[Any], right: Any, case: Case) -> tuple[str, str]:
    """(family, what it holds instead of the official values)."""
    import torch

    def same(other: Any) -> bool:
        return other.shape == own.shape and bool(other.to(own).eq(own).all())

    if len(parts) > 1:
        for order in itertools.permutations(range(len(parts))):
            if same(torch.cat([parts[i] for i in order], 0)):
                return "swap", f"holds its {len(parts)} parts in the order {list(order)}"
    if own.dim() == 2 and own.shape[0] == own.shape[1] and same(right.t()):
        return "layout", "is transposed"
    if not bool(own.any()):
        return "missing bias" if own.dim() == 1 else "missing weight", "is zero"
    if bool((own == 1).all()):
        return "norm affine", "is one everywhere"
    for full, others in case.tensors.items():
        if len(others) == 1 and others[0].shape == own.shape and same(others[0]):
            return "swap", f"holds what belongs to {full}"
    for dtype in (torch.bfloat16, torch.float16):
        if same(right.to(dtype).to(own.dtype)):
            return "dtype", f"is rounded to {str(dtype).removeprefix('torch.')}"
    if own.dim() and bool(right.flatten().sort().values.eq(own.flatten().sort().values).all()):
        return "layout", "has the official values in another order"
    ratio = float((own * right).sum() / (right * right).sum().clamp_min(1e-30))
    if bool(torch.allclose(own, right * ratio, rtol=1e-4, atol=1e-7)):
        return "scale", f"is {ratio:.6g} times the official values"
    return "weight", "holds other values"


def _eps(case: Case) -> Iterator[Test]:
    told = [v for k, v in case.official.get("attributes", {}).items() if "eps" in k.lower()]
    for path, module in case.scope():
        for key, value in list(vars(module).items()):
            if "eps" not in key.lower() or not isinstance(value, float):
                continue
            for other in dict.fromkeys([*told, *EPS_VALUES]):
                if isinstance(other, float) and other != value:
                    where = ".".join(word for word in (path, key) if word)
                    yield "eps", f"{where} is {value:g}; with {other:g} it is equal", _attribute(module, key, other)


def _scales(case: Case) -> Iterator[Test]:
    official = case.official.get("attributes", {})
    for path, module in case.scope():
        for key, value in list(vars(module).items()):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or key.startswith("_") or not value:
                continue
            if "scal" in key.lower():
                options = [official.get(key), 1.0, math.sqrt(abs(value)), 1 / math.sqrt(abs(value)), 1 / value]
                for other in dict.fromkeys(o for o in options if isinstance(o, (int, float)) and o != value):
                    where = ".".join(word for word in (path, key) if word)
                    yield "scale", f"{where} is {value:g}; with {other:g} it is equal", _attribute(module, key, other)
            elif key in official and type(official[key]) is type(value) and official[key] != value:
                words = f"{key} is {value!r}; with the official {official[key]!r} it is equal"
                yield "setting", words, _attribute(module, key, official[key])


def _activations(case: Case) -> Iterator[Test]:
    import torch.nn.functional as F

    choices: dict[str, Callable[[Any], Any]] = {
        "gelu (erf)": F.gelu,
        "gelu (tanh)": functools.partial(F.gelu, approximate="tanh"),
        "silu": F.silu,
        "relu": F.relu,
        "quick gelu": lambda x: x * (1.702 * x).sigmoid(),
        "tanh": lambda x: x.tanh(),
        "no activation": lambda x: x,
    }
    for path, module in case.module.named_modules():
        if kind(type(module).__name__).replace("activation", "") in ACTIVATIONS or "act" in path.rpartition(".")[2]:
            for words, function in choices.items():
                where = path or type(module).__name__
                yield "activation", f"with {words} in place of {where} it is equal", _forward(module, function)
    for wrong in ("gelu", "silu"):
        for words, function in choices.items():
            yield "activation", f"with {words} in place of {wrong} it is equal", _function(F, wrong, function)


def _attention(case: Case) -> Iterator[Test]:
    import torch.nn.functional as F

    original = F.scaled_dot_product_attention

    def attention(change: Callable[[Any, dict[str, Any]], None]) -> Any:
        def other(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            for name, item in zip(("attn_mask", "dropout_p", "is_causal", "scale"), args, strict=False):
                kwargs[name] = item
            change(query, kwargs)
            return original(query, key, value, **kwargs)

        return _function(F, "scaled_dot_product_attention", other)

    def scaled(power: float) -> Callable[[Any, dict[str, Any]], None]:
        return lambda query, kwargs: kwargs.update(scale=float(query.shape[-1]) ** power)

    def inverted(query: Any, kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attn_mask")
        if mask is not None and not mask.is_floating_point():
            kwargs["attn_mask"] = ~mask

    for power, words in ((-0.5, "1/sqrt(d)"), (0.0, "1"), (-1.0, "1/d"), (0.5, "sqrt(d)")):
        yield "scale", f"with a softmax scale of {words} it is equal", attention(scaled(power))
    yield "mask", "without the attention mask it is equal", attention(lambda q, k: k.update(attn_mask=None))
    yield "mask", "with the attention mask inverted it is equal", attention(inverted)
    for flag in (True, False):
        words = f"with is_causal={flag} it is equal"
        yield "mask", words, attention(lambda q, k, flag=flag: k.update(is_causal=flag))  # type: ignore[misc]


def _arguments(case: Case) -> Iterator[Test]:
    """Masks left out or inverted, rotary tensors exchanged or turned."""
    import torch

    args, kwargs = case.arguments
    named = record.bound(case.module, args, kwargs)
    for key, value in named.items():
        if torch.is_tensor(value) and ("mask" in key or value.dtype == torch.bool):
            yield "mask", f"without {key} it is equal", _given(case, {key: None})
            flipped = ~value if value.dtype == torch.bool else 1 - value
            yield "mask", f"with {key} inverted it is equal", _given(case, {key: flipped})
        if isinstance(value, tuple) and len(value) == 2 and all(torch.is_tensor(v) for v in value):
            one, two = value
            for words, other in (
                ("with its two tensors exchanged", (two, one)),
                ("with the second negated", (one, -two)),
                ("in halves, not interleaved", tuple(_halves(v) for v in value)),
                ("interleaved, not in halves", tuple(_interleaved(v) for v in value)),
            ):
                yield "rope", f"{key} {words} it is equal", _given(case, {key: other})


def _outputs(case: Case) -> Iterator[Test]:
    """A constant factor, a constant vector, or a lower precision explains the difference."""
    import torch

    args, kwargs = _copied(case.arguments)
    with case.around(), torch.no_grad():
        output = case.module(*args, **kwargs)
    matched, _ = record.match(record.probe.flatten(output, "out"), case.outputs)
    if not matched:
        return
    _, own, right = matched[0]
    own64, right64 = own.double(), right.double().to(own.device)
    ratio = float((own64 * right64).sum() / (own64 * own64).sum().clamp_min(1e-300))
    if abs(ratio - 1) > 1e-4:
        yield "scale", f"its output times {ratio:.6g} is equal", _output(lambda t: t * ratio)
    offset = (right64 - own64).flatten(0, -2).mean(0) if own.dim() > 1 else right64 - own64
    if own.dim() > 1 and own[..., 0].numel() > 4:
        words = "one vector added to every token's output makes it equal"
        yield "missing bias", words, _output(lambda t: t + offset.to(t))
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        if own.dtype != dtype and bool(own.to(dtype).to(own.dtype).eq(own).all()):
            words = f"every output value is one of {name}'s, and the official output rounded to {name} is as near"
            yield "dtype", words, _output(lambda t, d=dtype: _nearest(t, right, d))
    for dim in range(own.dim()):
        yield "layout", f"its output turned round along dimension {dim} is equal", _output(lambda t, d=dim: t.flip(d))
    if own.shape[-1] % 2 == 0:
        yield "layout", "the halves of its output exchanged make it equal", _output(lambda t: _exchanged(t))


MAKERS = (_weights, _eps, _scales, _activations, _attention, _arguments, _outputs)


# --- what a test changes, and takes back -----------------------------------------------------------------------------


@contextlib.contextmanager
def _value(parameter: Any, right: Any) -> Iterator[None]:
    kept = parameter.detach().clone()
    try:
        parameter.data.copy_(right)
        yield None
    finally:
        parameter.data.copy_(kept)


@contextlib.contextmanager
def _attribute(owner: Any, key: str, value: Any) -> Iterator[None]:
    kept = vars(owner)[key]
    vars(owner)[key] = value
    try:
        yield None
    finally:
        vars(owner)[key] = kept


@contextlib.contextmanager
def _forward(module: Any, function: Any) -> Iterator[None]:
    had = "forward" in vars(module)
    kept = vars(module).get("forward")
    vars(module)["forward"] = lambda x, *args, **kwargs: function(x)
    try:
        yield None
    finally:
        if had:
            vars(module)["forward"] = kept
        else:
            del vars(module)["forward"]


@contextlib.contextmanager
def _function(owner: Any, name: str, function: Any) -> Iterator[None]:
    kept = getattr(owner, name)

    def other(x: Any, *args: Any, **kwargs: Any) -> Any:
        return function(x, *args, **kwargs) if name.startswith("scaled") else function(x)

    setattr(owner, name, other)
    try:
        yield None
    finally:
        setattr(owner, name, kept)


@contextlib.contextmanager
def _given(case: Case, changes: dict[str, Any]) -> Iterator[None]:
    kept = case.arguments
    named = record.bound(case.module, *kept)
    case.arguments = ((), {**named, **changes})
    try:
        yield None
    finally:
        case.arguments = kept


@contextlib.contextmanager
def _output(change: Any) -> Iterator[Any]:
    yield change


def _copied(arguments: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    import torch

    def copy(value: Any) -> Any:
        if torch.is_tensor(value):
            return value.clone()
        if type(value) in (tuple, list):
            return type(value)(copy(item) for item in value)
        return {k: copy(v) for k, v in value.items()} if type(value) is dict else value

    return copy(arguments[0]), copy(arguments[1])


def _nearest(own: Any, right: Any, dtype: Any) -> Any:
    """The official values where ours are within one rounding step of `dtype` of them."""
    import torch

    near = (own - right.to(own)).abs() <= right.to(own).abs() * torch.finfo(dtype).eps
    return torch.where(near, right.to(own), own)


def _halves(t: Any) -> Any:
    import torch

    return torch.cat([t[..., 0::2], t[..., 1::2]], -1)


def _interleaved(t: Any) -> Any:
    import torch

    one, two = t.chunk(2, -1)
    return torch.stack([one, two], -1).flatten(-2)


def _exchanged(t: Any) -> Any:
    import torch

    return torch.cat(list(reversed(t.chunk(2, -1))), -1)
