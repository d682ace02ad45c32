# SPDX-License-Identifier: Apache-2.0
"""Files that a port carries as copies of ours; `python -m ci.template_copies` brings them up to date."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.model_slug}}"
COPIES = {
    "docker/gate-cpu.lock": "docker/alignment-gate/gate-cpu.lock",
    "docker/gate-cuda.lock": "docker/alignment-gate/gate-cuda.lock",
    "ci/gate.sh": "docker/alignment-gate/gate.sh",
}


def main() -> None:
    for ours, theirs in COPIES.items():
        target = TEMPLATE / theirs
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != (ROOT / ours).read_bytes():
            target.write_bytes((ROOT / ours).read_bytes())
            target.chmod((ROOT / ours).stat().st_mode & 0o755)
            print(f"{ours} -> {theirs}")


if __name__ == "__main__":
    main()
