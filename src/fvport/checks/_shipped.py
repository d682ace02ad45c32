# SPDX-License-Identifier: Apache-2.0
"""`pipeline` in the precision that ships: items of `parity.as_shipped`, and the rounding that it must see."""

from __future__ import annotations

from pathlib import Path

from fvport.errors import BlockedError, FvportError
from fvport.evidence import Item
from fvport.models import native_facts, precisions
from fvport.parity import as_shipped
from fvport.parity.walk_near import Finding
from fvport.spec import Port

ALWAYS = ("timesteps", "initial noise", "latents")
PLANTED = "planted: losses as shipped"
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
    return [*map(_name, ALWAYS), PLANTED]


def items(port: Port, device: str, official: Path, native: Path) -> list[Item]:
    """`official`, `native`: folders of the calls in float32."""
    try:
        own = native_facts.facts(port, device).get("pipeline_config") or {}
        dtype = precisions.coarsest(port, own) if own else ""
        if not dtype:
            return _all("blocked", "FastVideo did not say which precisions the pipeline config ships")
        if dtype == "float32":
            return _all("pass", "it ships in float32, in which everything is compared")
        name = as_shipped.call(port).name
        theirs = as_shipped.pair(official, as_shipped.official(port, device, dtype), name)
    except FvportError as error:  # nothing of the port's own pipeline ran
        return _all("blocked", str(error))
    if as_shipped.ignored(theirs):
        reason = (
            f"the official pipeline was asked for {dtype} and answered in float32: run_pipelines of oracle.py takes no "
        )
        return _all("blocked", f"{reason}notice of a call's dtype", "Have build_pipeline load what its dtype says")
    try:
        mine = as_shipped.pair(native, as_shipped.native(port, device), name)
        return _compared(theirs, mine, dtype)
    except BlockedError as error:
        return _all("blocked", str(error))
    except FvportError as error:
        return _all("fail", f"as it ships, the port does not generate: {error}")


def _compared(theirs: as_shipped.Pair, mine: as_shipped.Pair, dtype: str) -> list[Item]:
    findings = as_shipped.compare(theirs, mine, dtype)
    found = []
    for finding in findings:
        todo = "" if finding.ok else TODO[finding.stage]
        verdict = "pass" if finding.ok else "fail"
        reason = f"in {dtype}, {finding.reason}" if finding.reason else ""
        found.append(Item(_name(finding.stage), verdict, reason, finding.metrics, finding.tolerance, todo=todo))
    return [*found, _planted(theirs, mine, dtype, findings)]


def _planted(theirs: as_shipped.Pair, mine: as_shipped.Pair, dtype: str, findings: list[Finding]) -> Item:
    """A larger loss at each green stage is seen there. Where the official pipeline rounds too, a port may."""
    seen, rounded = [], []
    for finding in findings:
        if not finding.ok:
            continue
        by = 3 * float(finding.tolerance["rel_l2"])
        faulty = as_shipped.worse(mine, dtype, finding.stage, by)
        if faulty is None or as_shipped.worse(theirs, dtype, finding.stage, by) is None:
            rounded.append(finding.stage)
            continue
        red = [one.stage for one in as_shipped.compare(theirs, faulty, dtype) if not one.ok]
        if finding.stage not in red:
            reason = f"a larger loss of {finding.stage} was not seen: this comparison's pass proves nothing"
            return Item(PLANTED, "fail", reason)
        seen.append(finding.stage)
    return Item(PLANTED, "pass", "", {"seen_at": seen, "rounded_officially_or_exact": rounded})


def _name(stage: str) -> str:
    return f"as shipped: {stage}"


def _all(verdict: str, reason: str, todo: str = "") -> list[Item]:
    return [Item(name, verdict, reason, todo=todo) for name in names()]
