# SPDX-License-Identifier: Apache-2.0
"""LPIPS (AlexNet) of two frames, where its weights lie on this machine; they are never fetched.

FVPORT_LPIPS names a folder with torchvision's `alexnet*.pth` and the linear layers `alex.pth` of the package lpips 0.1.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError

VARIABLE = "FVPORT_LPIPS"
SMALLEST = 31  # pixels a side: AlexNet's last pooling needs them
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TAPS = (1, 4, 7, 9, 11)  # the outputs of AlexNet's five ReLUs


def weights() -> tuple[Path, Path]:
    """(AlexNet, linear layers). BlockedError says what is missing and where it is looked for."""
    folder = os.environ.get(VARIABLE, "")
    backbone = sorted(Path(folder).glob("alexnet*.pth")) if folder else []
    linear = Path(folder, "alex.pth")
    if not backbone or not linear.is_file():
        where = folder or f"${VARIABLE}"
        todo = f"Set {VARIABLE} to a folder with both, or take another measure"
        raise BlockedError("LPIPS's weights (alexnet*.pth, alex.pth) are not on this machine", where=where, todo=todo)
    return backbone[0], linear


def distance(a: Any, b: Any) -> float:
    """LPIPS of two uint8 frames (height, width, 3); 0 is equal."""
    import torch

    features, linear = _model(*weights())
    pair = torch.stack([torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 127.5 - 1 for frame in (a, b)])
    with torch.inference_mode():
        x = (pair - torch.tensor(SHIFT).reshape(3, 1, 1)) / torch.tensor(SCALE).reshape(3, 1, 1)
        total, tap = torch.zeros(()), 0
        for number, layer in enumerate(features):
            x = layer(x)
            if number in TAPS:
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                total = total + (linear[tap] * (unit[:1] - unit[1:]).square()).sum(1).mean()
                tap += 1
    return float(total)


@functools.cache
def _model(backbone: Path, linear: Path) -> tuple[Any, list[Any]]:
    import pickle

    import torch
    from torchvision.models import alexnet

    with torch.device("meta"):  # 60 million parameters of a classifier that is not used
        layers = alexnet(weights=None).features[: TAPS[-1] + 1].eval()
    try:
        state = torch.load(backbone, map_location="cpu", weights_only=True)
        own = {name: state[f"features.{name}"] for name in layers.state_dict()}
        layers.load_state_dict(own, assign=True)
        held = torch.load(linear, map_location="cpu", weights_only=True)
        rows = [held[f"lin{i}.model.1.weight"].float() for i in range(len(TAPS))]
    except (RuntimeError, KeyError, OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0]
        raise BlockedError(f"LPIPS's weights cannot be read ({first})", where=str(backbone.parent)) from None
    for layer in layers:
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = False
    return layers, rows
