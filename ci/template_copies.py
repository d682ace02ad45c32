# SPDX-License-Identifier: Apache-2.0
"""Files that a port carries of ours: `python -m ci.template_copies` brings the template's up to date (a test compares).

Most are the same bytes. The workflow's `${{ }}` are guarded from jinja; port-gate.yml beside it calls it. The port's
Dockerfile installs fvport from FVPORT_SOURCE, because a port's tree does not hold it.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.model_slug}}"
FOLDER = "docker/alignment-gate"
SAME = (
    "docker/gate-cpu.lock",
    "docker/gate-cuda.lock",
    "ci/gate.sh",
    "ci/in-image.sh",
    "ci/plan.py",
    "ci/runners.toml",
    "ci/buildkite/pipeline.py",
    "ci/buildkite/step.sh",
)
WORKFLOW = ".github/workflows/alignment-gate.yml"
CALLER = ".github/workflows/port-gate.yml"  # the template's own: when a port's gate runs

DOCKER_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# The alignment gate's image: FastVideo, the official libraries and fvport, each locked. A port is
# mounted, never baked in. Built and run by in-image.sh beside it, on a laptop and in the workflow.
# FVPORT_SOURCE is an address, or a wheel beside this file.
"""
DOCKER_PACKAGE = """\
FROM env AS package
ARG FVPORT_SOURCE=""
WORKDIR /src
COPY . .
RUN set -eu; \\
    if [ -z "${FVPORT_SOURCE}" ]; then \\
      echo "FVPORT_SOURCE is not set: an address of the template at a tag, or a wheel in this folder" >&2; \\
      exit 2; \\
    fi; \\
    /opt/fvport/env/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist "${FVPORT_SOURCE}"

"""


def files() -> dict[str, bytes]:
    """Path in the template -> its content, made from ours."""
    made = {f"{FOLDER}/{Path(name).name}": (ROOT / name).read_bytes() for name in SAME}
    made[WORKFLOW] = workflow((ROOT / WORKFLOW).read_text(encoding="utf-8")).encode()
    made[f"{FOLDER}/Dockerfile"] = dockerfile((ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")).encode()
    return made


def workflow(text: str) -> str:
    """Our reusable workflow as a jinja template that renders to it."""
    return re.sub(r"\$\{\{(.*?)\}\}", r"${{ '{{' }}\1{{ '}}' }}", text)


def dockerfile(text: str) -> str:
    """Our Dockerfile for a context that is docker/alignment-gate of a port."""
    text = DOCKER_HEAD + text[text.index("# torch brings") :]
    start, end = text.index("FROM env AS package\n"), text.index("# --- what runs")
    text = text[:start] + DOCKER_PACKAGE + text[end:]
    return text.replace("COPY docker/gate-", "COPY gate-").replace(
        "COPY --chmod=0755 ci/gate.sh", "COPY --chmod=0755 gate.sh"
    )


def main() -> None:
    for name, content in files().items():
        target = TEMPLATE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)
            print(f"template: {name}")


if __name__ == "__main__":
    main()
