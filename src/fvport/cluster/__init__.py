# SPDX-License-Identifier: Apache-2.0
"""The gate's checks as jobs: on Slurm through submitit, or on this machine by the same path.

    plan.py    which jobs: a check each (parity: a component each), with its needs and what it waits for
    tree.py    the port's tree in the shared folder, once for each content; evidence back
    job.py     what runs on a node
    runner.py  submit, watch, requeue what the machine lost, cancel on Ctrl-C

Nothing is scheduled here: Slurm does that. The verdict is `gate.decide`'s, from the records that came back.
"""
