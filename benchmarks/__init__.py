# SPDX-License-Identifier: Apache-2.0
"""How fast, and how much memory: `python -m benchmarks NAME [--quick] [--save]`."""
