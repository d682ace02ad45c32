# SPDX-License-Identifier: Apache-2.0
"""What the official side's modules were given and answered, recorded apart and kept like its results."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import fastvideo_api
from fvport.models import kept
from fvport.parity import oracle, probe
from fvport.parity.oracle import RUNNER, SEED
from fvport.spec import Port

TRACE_LIMIT = 512 << 20  # bytes of exact activations (and of parameters) that a trace may leave on disk


@dataclass(frozen=True)
class Activations:
    """What the official side's modules were given and answered, case by case."""

    folder: Path
    meta: dict[str, Any]  # modules {name: {class, file, line, params, attributes, children}}, params, exact
    seconds: float = 0.0

    @property
    def modules(self) -> dict[str, Any]:
        return dict(self.meta["modules"])

    def case(self, name: str) -> tuple[dict[str, Any], Any]:
        """({modules, order, complete, drift, local}, its store of sketches and exact tensors)."""
        slot = f"case{self.meta['cases'].index(name):03d}"
        found = json.loads((self.folder / f"{slot}.json").read_text(encoding="utf-8"))
        return found, probe.Store.open(self.folder / f"{slot}.bin")

    def params(self) -> Any:
        """The store of official parameters, None where they did not fit."""
        return probe.Store.open(self.folder / "params.bin") if self.meta.get("params") else None


def record(
    port: Port,
    name: str,
    cases: list[str],
    *,
    device: str = "auto",
    dtype: str = "float32",
    exact: str | list[str] = "all",
    limit: int = TRACE_LIMIT,
) -> Activations:
    """Record the official side of these cases; kept like `results`, by everything that it depends on and these."""
    component = port.component(name)
    folder = oracle.official_folder(port, component)
    device = fastvideo_api.resolve_device(device)
    place = oracle.results(port, name, device=device).folder
    files = [ev.blake3(RUNNER.with_name(f"{n}.py").read_bytes()) for n in ("probe", "record", "oracle_trace")]
    whole = {"of": place.name, "cases": cases, "dtype": dtype, "exact": exact, "limit": limit, "code": files}
    digest = ev.blake3(ev.canonical(whole)).partition(":")[2][:32]
    kept_at = port.state / "cache" / "trace" / f"{name}.{digest}"
    kept_at.parent.mkdir(parents=True, exist_ok=True)
    clock = time.monotonic()
    with kept.alone(kept_at):
        if not kept.hold(kept_at):
            config = oracle._config(oracle.config_folder(port, component))
            job = {"what": "trace", "component": name, "folder": str(folder), "config": config, "seed": SEED}
            job |= {
                "device": device,
                "place": str(place),
                "cases": cases,
                "dtype": dtype,
                "exact": exact,
                "limit": limit,
            }
            oracle._settled(port, job, name, kept_at)
    meta = json.loads((kept_at / "meta.json").read_text(encoding="utf-8"))
    return Activations(kept_at, meta, time.monotonic() - clock)
