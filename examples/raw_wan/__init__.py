# SPDX-License-Identifier: Apache-2.0
"""A raw release of the tiny Wan, and the port of it."""
