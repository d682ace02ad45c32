# SPDX-License-Identifier: Apache-2.0
from fastvideo.pipelines.basic.{{ p.slug }}.stages.denoising import {{ p.prefix }}DenoisingStage

__all__ = ["{{ p.prefix }}DenoisingStage"]
