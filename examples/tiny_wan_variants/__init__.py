# SPDX-License-Identifier: Apache-2.0
"""A tiny Wan in two releases, the base and a distilled one, as one port."""
