# SPDX-License-Identifier: Apache-2.0
"""Mist: a small text-to-video model with modules of its own. A reference to port from; the weights are made by code."""

from mist.denoiser import MistDenoiser
from mist.sampler import MistSampler
from mist.text import MistTextEncoder

__all__ = ["MistDenoiser", "MistSampler", "MistTextEncoder"]
