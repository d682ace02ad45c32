# SPDX-License-Identifier: Apache-2.0
"""A module on disk: `config.json` with its constructor's arguments, `weights.safetensors` with its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


class OnDisk(torch.nn.Module):
    """Saves and loads a module whose constructor takes plain values only."""

    config: dict[str, Any]

    def save(self, folder: Path | str) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Any:
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = cls(**config)
        model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        return model.to(dtype).eval().requires_grad_(False)
