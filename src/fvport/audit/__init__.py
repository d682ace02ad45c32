# SPDX-License-Identifier: Apache-2.0
"""The parity census: every native class of the installed FastVideo that has an official twin, at tiny size.

    case.py            what a case is
    cases_*.py         the cases, as data and short calls
    leftout.py         classes without a case, each with its reason
    inventory.py       which native classes there are, read from the installed tree
    run.py             one boot, one fork a case
    judge.py           inside the fork: both sides, the port's own comparison, the finding's patch tried
    strength.py        faults planted in every equal case (strength_case.py: inside its fork)
    findings.py        what differs, where on both sides, and why
    show.py, page.py   terminal, JSON, HTML, docs/census.md

A case uses the comparison of a port's parity check (`parity/compare.py`, calibrated, factor 3). A difference is never
made to fit: it is a finding whose patch was tried, or it is listed as unexplained.
"""
