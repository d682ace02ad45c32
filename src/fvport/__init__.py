# SPDX-License-Identifier: Apache-2.0
"""fvport: port a diffusion model into FastVideo, and prove that the port equals the original."""

__version__ = "0.1.0"
