# SPDX-License-Identifier: Apache-2.0
"""What a bake says of the checks that run whole pipelines: which calls they went through, which nobody tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fvport.scaffold import facts

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

# Denoisers whose generated pipeline passed a whole gate.
PROVEN = "Wan's image to video and video to video, Stable Diffusion 3's image to image"
TRIED = ("", "WanTransformer3DModel", "SD3Transformer2DModel", "StableAudioDiTModel")


def say(p: PortContext) -> None:
    """A workload that the media checks cannot run yet is said at once, not after a day's work."""
    if p.scheduler and p.scheduler.official_class == "CosineDPMSolverMultistepScheduler":
        p.unknown.append(
            "The scheduler draws its noise with torchsde on both sides, and neither diffusers nor FastVideo brings it: "
            "the gate's locks do, and an environment of your own (FVPORT_ENV) must have it."
        )
    if p.is_generated:
        _say_what_is_untried(p)
        return
    if p.workload == "t2i":
        p.unknown.append(
            "The checks pipeline, ssim and example are proven on text to video, Wan's image to video and Stable "
            "Diffusion 3 with three text encoders; other text to image is untried."
        )
        return
    if p.is_audio:
        _say_of_sound(p)
        return
    takes = "image" if p.takes_image else "video"
    p.unknown.append(
        f"The checks pipeline, ssim and example cover text to video, {PROVEN}, not {p.workload} of "
        f"{p.official_pipeline or 'this pipeline'} yet: both sides are given the {takes}, and no stage of the "
        "generated pipeline uses it, so they cannot pass before it is written."
    )
    p.decisions.append(f"which stages make the {takes} of a call into conditioning: the pipeline's file says where")


def _say_of_sound(p: PortContext) -> None:
    """Sound of another kind than Stable Audio's; from a video, diffusers has no pipeline to take stages from."""
    why = "no stage of the generated pipeline makes sound of this kind"
    if p.takes_video:
        version = facts.pipelines()["version"]
        why = f"diffusers {version} has no pipeline from video to audio, so no stage is known that makes sound of one"
        p.decisions.append(
            "what runs officially: a repository's code (official_repo) behind run_pipeline in oracle.py, which hands "
            "it the call's video"
        )
    p.unknown.append(
        f"The checks pipeline, ssim and example cover text to video, not {p.workload} ({why}): they cannot pass, and "
        "the gate stays shut. Components, mapping, keys, config and conversion are checked as for any workload."
    )
    shown = "FastVideo's own MMAudio pipeline shows" if p.takes_video else "Stable Audio's show"
    p.decisions.append(f"which stages make the sound: the pipeline's file says where, {shown} how")


def _say_what_is_untried(p: PortContext) -> None:
    """Text to video of another transformer than those tried: the stage calls it as Wan's is called."""
    cls = p.dit.official_class if p.dit else ""
    if cls not in TRIED:
        p.unknown.append(
            f"The denoising stage hands latents (batch, channels, frames, height, width), a timestep and text to {cls} "
            "as Wan's text to video does, on which the checks pipeline, ssim and example are proven; what takes packed "
            "tokens, sizes or more needs them made in that stage first."
        )
