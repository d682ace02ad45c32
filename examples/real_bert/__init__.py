# SPDX-License-Identifier: Apache-2.0
"""A port of a real BERT encoder, from a file that a package holds."""
