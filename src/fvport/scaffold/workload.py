# SPDX-License-Identifier: Apache-2.0
"""What goes in and what comes out: read from the answer, the official call, or the words of a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fvport.scaffold import facts

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

# (workload, words in a name that say it, whether the official call must make a video (None: whatever it makes)). The
# last two are read only where no call is known.
WORKLOAD_WORDS: tuple[tuple[str, str, bool | str | None], ...] = (
    ("v2a", r"(?i:video-?(to|2)-?audio)|V2A|v2a", False),
    ("t2a", r"(?i:audio)|T2A|t2a", False),
    ("v2v", r"(?i:video-?(to|2)-?video)|V2V|v2v", None),
    ("i2v", r"(?i:image-?(to|2)-?video|img2vid)|I2V|i2v", None),
    ("i2i", r"(?i:img2img|image-?(to|2)-?image|kontext)|Edit|I2I|i2i", False),
    ("t2v", r"(?i:video)|T2V|t2v", "guess"),
    ("t2i", r"(?i:image|flux)|T2I|t2i", "guess"),
)
SIBLINGS = {  # what loads the same release and begins from the call's own video or image
    ("WanPipeline", "v2v"): "WanVideoToVideoPipeline",
    ("StableDiffusion3Pipeline", "i2i"): "StableDiffusion3Img2ImgPipeline",
}


def choose(p: PortContext, answer: str) -> None:
    """The answer; else what the pipeline's class and call say; names that people gave only where those say nothing."""
    if answer != "auto":
        p.workload = answer
        _sibling(p)
        return
    known = facts.pipeline(p.official_pipeline)
    if known:
        video = "num_frames" in known["call"]
        takes_image = known["inputs"][:1] == ["image"]
        plain = ("i2v" if takes_image else "t2v") if video else "t2i"
        p.workload = _said(p.official_pipeline, video) or plain
        p.inferred.append(f"workload {p.workload}: read from the name and the call of {p.official_pipeline}")
        return
    sources = ((p.official_pipeline, "the class"), (p.hub_id, "the hub id"), (p.model, "the model's name"))
    for text, where in sources:
        if found := _said(text, None):
            p.workload = found
            p.inferred.append(f"workload {found}: read from {where} {text}")
            return
    p.workload = "t2v"
    p.unknown.append(
        "The workload t2v is assumed: neither a pipeline class nor a name says what goes in and comes out."
    )


def _sibling(p: PortContext) -> None:
    """A release names the pipeline that it was published with; the answer may ask for another one of the same parts."""
    other = SIBLINGS.get((p.official_pipeline, p.workload), "")
    if other:
        p.inferred.append(
            f"{other} for {p.workload}: the release names {p.official_pipeline}, which has the same parts"
        )
        p.official_pipeline = other


def _said(text: str, video: bool | None) -> str:
    """The workload that the words of a name say, or ''. `video`: what the call says of the output; None: nothing."""
    for workload, pattern, needs in WORKLOAD_WORDS:
        fits = needs is None or needs == video or video is None
        if fits and re.search(pattern, text):
            return workload
    return ""
