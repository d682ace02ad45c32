# SPDX-License-Identifier: Apache-2.0
"""Writes the files that depend on the port's components, links the local checkpoint, prints the next steps.

The values come as JSON data, never as code. Nothing is deleted and nothing is fetched; fvport.scaffold.finish does it.
"""

import json
import sys
from pathlib import Path

BAKE = json.loads(
    r"""
{{ bake | tojson }}
"""
)

if __name__ == "__main__":
    sys.path.insert(0, BAKE["package_path"])
    from fvport.scaffold import finish

    sys.exit(finish.run(BAKE, Path.cwd()))
