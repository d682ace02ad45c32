# SPDX-License-Identifier: Apache-2.0
"""Whether a class that FastVideo already has can serve an official one.

proof       an official class against one native class, aspect by aspect, as data on both sides
structure   how alike two tables of names and shapes are, and what differs
commands    `fvport reuse COMPONENT` and `fvport reuse --find`: who is asked, what is kept
"""
