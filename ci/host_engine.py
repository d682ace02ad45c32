#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A container engine's words, without a container: `run` calls gate.sh here with the environment it was given.

For a dry run on a machine without an engine. What a container adds (no network, a read-only root, another user) is not
there, and its first line says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    if words[:2] == ["image", "inspect"]:
        return 0
    if words[:1] != ["run"]:
        print(f"host engine: does not know {' '.join(words[:2])}", file=sys.stderr)
        return 2
    env, where, rest = dict(os.environ), os.getcwd(), words[1:]
    while rest and rest[0].startswith("-"):
        name, _, value = rest.pop(0).partition("=")
        if name == "--env" and "=" in value:
            env.update([value.split("=", 1)])
        elif name == "--workdir":
            where = value
    print("host engine: no container, so no isolation", file=sys.stderr)
    os.chdir(where)
    os.execvpe("bash", ["bash", str(Path(where, "docker", "alignment-gate", "gate.sh")), *rest[1:]], env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
