# SPDX-License-Identifier: Apache-2.0
"""Tiny twins: the official architecture at a size that runs on a CPU in seconds, with the official names and layout.

`release` reads a folder, `rules` say what a key of a config means and what it may become, `structure` says whether two
models are built alike, `shrink` applies rules and checks each, `values` draws parameters, `write` makes the folder.
"""
