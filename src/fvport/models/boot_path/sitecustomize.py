# SPDX-License-Identifier: Apache-2.0
"""Put on PYTHONPATH by `fvport.fastvideo_api.child_environment`: the CPU adaptation reaches child processes.

Only an import hook is set here. A sitecustomize that was there before runs as well.
"""


def _chain() -> None:
    import importlib.machinery
    import importlib.util
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    file = os.path.join(os.path.dirname(here), "cpu_platform.py")
    spec = importlib.util.spec_from_file_location("_fvport_cpu_platform", file)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.install_from_environment()


_chain()
