# SPDX-License-Identifier: Apache-2.0
"""The official side of a census case: built tiny, every parameter drawn, written as the library writes it."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

from fvport.audit.case import Case


def cls_of(name: str) -> Any:
    """The class that `module:Class` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(case: Case) -> Any:
    """The official object in float32 with drawn weights."""
    import torch

    cls = cls_of(case.official)
    torch.manual_seed(case.seed)
    model = construct(cls, case.config)
    if isinstance(model, torch.nn.Module):
        randomise(model, torch.Generator().manual_seed(case.seed))
        model.eval()
    if case.adjust:
        case.adjust(model)
    return model


def construct(cls: Any, config: dict[str, Any]) -> Any:
    """A transformers class on its config class, else the class on keyword arguments."""
    if hasattr(cls, "config_class") and cls.config_class is not None:
        return cls(cls.config_class(**copy.deepcopy(config)))
    if hasattr(cls, "from_config"):
        return cls.from_config(copy.deepcopy(config))
    return cls(**copy.deepcopy(config))


def copied(case: Case, model: Any) -> Any:
    """A copy to convert: schedulers keep state, models are changed in place by `.to`."""
    return copy.deepcopy(model)


def save(case: Case, model: Any, folder: Path) -> None:
    """The library's own save_pretrained; with `names`, the same tensors under the release's names."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(str(folder))
    files = sorted(folder.glob("*.safetensors"))
    if case.names and files:
        tensors = {k: v for file in files for k, v in load_file(str(file)).items()}
        for file in files:
            file.unlink()
        renamed = {k: v.contiguous().clone() for k, v in case.names(tensors).items()}
        save_file(renamed, str(folder / "model.safetensors"), metadata={"format": "pt"})


def randomise(model: Any, generator: Any) -> None:
    """Every floating parameter and running statistic drawn: matrices at 1/sqrt(fan in), gains about 1, the rest 0.2.

    No parameter keeps a zero or a one that would hide what it is multiplied with.
    """
    import torch

    def draw(tensor: Any) -> Any:
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            if id(parameter) in embeddings:
                parameter.copy_(draw(parameter) * 0.7)
            elif parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) > 1:
                parameter.copy_(draw(parameter) / parameter[0].numel() ** 0.5)
            elif name.endswith(("_g", "original0")):
                parameter.mul_(1 + 0.2 * draw(parameter).clamp(-2, 2))
            elif float((parameter - 1).abs().max()) < 1e-6:
                parameter.copy_(1 + 0.2 * draw(parameter))
            else:
                parameter.copy_(0.2 * draw(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * draw(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator).to(buffer))
