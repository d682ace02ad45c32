# SPDX-License-Identifier: Apache-2.0
"""What Makefile, noxfile, workflows and the image share."""
