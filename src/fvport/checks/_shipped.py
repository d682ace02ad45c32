# SPDX-License-Identifier: Apache-2.0
"""`pipeline` in the precision that ships: items of `parity.as_shipped`, and the rounding that it must see."""

from __future__ import annotations

from pathlib import Path

from fvport.errors import BlockedError, FvportError
from fvport.evidence import Item
from fvport.models import native_facts, precisions
from fvport.parity import as_shipped
from fvport.spec import Port

ALWAYS = ("timesteps", "initial noise", "latents")
PLANTED = "planted: timesteps rounded as shipped"
TODO = {
    "timesteps": "Look at what casts timesteps or sigmas before the denoiser: stages, and the scheduler's dtype",
    "initial noise": "Draw the noise in the official dtype: FastVideo's LatentPreparationStage takes that of the "
    "prompt's embeddings",
    "conditioning": "Look at what casts, cuts or normalizes in less than the official pipeline does, after encoding",
    "latents": "Look at the dtype in which the denoising stage keeps the latents, and hands them to the scheduler",
    "media": "Look at the precision of the VAE, and at what comes after it",
}


def names() -> list[str]:
    """Items that every port has."""
    return [_name(stage) for stage in ALWAYS]


def items(port: Port, device: str, official: Path, native: Path) -> list[Item]:
    """`official`, `native`: folders of the calls in float32."""
    try:
        own = native_facts.facts(port, device).get("pipeline_config") or {}
        dtype = precisions.lowest(port, own) if own else ""
        if not dtype:
            return _all("blocked", "FastVideo did not say which precisions the pipeline config ships")
        if dtype == "float32":
            return _all("pass", "it ships in float32, in which everything is compared")
        return _compared(port, device, official, native, dtype)
    except BlockedError as error:
        return _all("blocked", str(error))
    except FvportError as error:
        return _all("fail", f"as it ships, the port does not generate: {error}")


def _compared(port: Port, device: str, official: Path, native: Path, dtype: str) -> list[Item]:
    name = as_shipped.call(port).name
    theirs = as_shipped.pair(official, as_shipped.official(port, device, dtype), name)
    if as_shipped.ignored(theirs):
        reason = (
            f"the official pipeline was asked for {dtype} and answered in float32: run_pipelines of oracle.py takes no "
        )
        return _all("blocked", f"{reason}notice of a call's dtype", "Have build_pipeline load what its dtype says")
    mine = as_shipped.pair(native, as_shipped.native(port, device), name)
    found = []
    for finding in as_shipped.compare(theirs, mine, dtype):
        todo = "" if finding.ok else TODO[finding.stage]
        verdict = "pass" if finding.ok else "fail"
        reason = f"in {dtype}, {finding.reason}" if finding.reason else ""
        found.append(Item(_name(finding.stage), verdict, reason, finding.metrics, finding.tolerance, todo=todo))
    return found + _planted(theirs, mine, dtype)


def _planted(theirs: as_shipped.Pair, mine: as_shipped.Pair, dtype: str) -> list[Item]:
    """Timesteps rounded to the shipped dtype are seen; no item where the official pipeline rounds them itself."""
    faulty = as_shipped.rounded(mine, dtype)
    officially = as_shipped.rounded(theirs, dtype)
    if faulty is None or officially is None:
        return []
    seen = [finding.stage for finding in as_shipped.compare(theirs, faulty, dtype) if not finding.ok]
    if "timesteps" in seen:
        return [Item(PLANTED, "pass", "", {"seen_at": "timesteps"})]
    return [Item(PLANTED, "fail", "rounded timesteps were not seen: this comparison's pass proves nothing")]


def _name(stage: str) -> str:
    return f"as shipped: {stage}"


def _all(verdict: str, reason: str, todo: str = "") -> list[Item]:
    return [Item(_name(stage), verdict, reason, todo=todo) for stage in ALWAYS]
