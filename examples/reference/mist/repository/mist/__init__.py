# SPDX-License-Identifier: Apache-2.0
"""Mist: a small text-to-video model with modules of its own. A reference to port from; the weights are made by code."""

from mist.denoiser import MistDenoiser
from mist.pipeline import MistPipeline
from mist.text import MistTextEncoder

__all__ = ["MistDenoiser", "MistPipeline", "MistTextEncoder"]
