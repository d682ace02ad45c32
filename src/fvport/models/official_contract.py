# SPDX-License-Identifier: Apache-2.0
"""The official tokenizers and preprocessors as data: `python -I official_contract.py JOB OUT`.

Run by its path in the oracle's environment; importing `fastvideo` or `fvport` raises there. Ids are those that the
official pipeline hands to its encoder (`official_facts`), settings those of the tokenizer in the release's folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def by_path(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def tokens(job: dict[str, Any], facts: Any, tokenizer: Any) -> dict[str, Any]:
    """{encoder: {"facts", "cases", "error"}}; the pipeline's trouble is `cases_error`, the tokenizer's own `error`."""
    from transformers import AutoTokenizer

    found: dict[str, Any] = {}
    for one in job["encoders"]:
        entry = found[one["name"]] = {"facts": {}, "cases": {}}
        try:
            entry["facts"] = tokenizer.facts(AutoTokenizer.from_pretrained(one["tokenizer"]))
        except Exception as error:  # noqa: BLE001 - a tokenizer may need anything; it is told
            entry["error"] = words(error)
    try:
        seen = facts.tokens(job)
        problem = "; ".join(job["errors"].values())
    except Exception as error:  # noqa: BLE001 - a pipeline of another form
        seen, problem = {}, words(error)
    for name, entry in found.items():
        entry["cases"] = seen.get(name) or {}
        entry["cases_error"] = "" if entry["cases"] else problem or "the official pipeline handed this encoder no ids"
    return found


def processors(job: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """{encoder: {"class", "cases"} or {"error"}} of the preprocessors of images and sound."""
    import transformers

    found: dict[str, Any] = {}
    for one in job["processors"]:
        try:
            wanted = getattr(transformers, one["class"], None)
            if wanted is None:
                wanted = transformers.AutoFeatureExtractor if one["sound"] else transformers.AutoImageProcessor
            made = wanted.from_pretrained(one["folder"])
            found[one["name"]] = {"class": type(made).__name__, "cases": tokenizer.processed(made)}
        except Exception as error:  # noqa: BLE001 - one that needs a library which is not there says so
            found[one["name"]] = {"error": words(error)}
    return found


def main(argv: list[str]) -> int:
    facts = by_path("_fvport_facts", HERE / "official_facts.py")
    tokenizer = by_path("_fvport_tokenizer", HERE.parent / "contract" / "tokenizer.py")
    sys.meta_path.insert(0, facts._Guard())
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    job["errors"] = {}
    sys.path[:0] = job.get("import_roots", [])
    facts.end_with_parent()
    answer = {"tokens": tokens(job, facts, tokenizer) if job["encoders"] else {}}
    answer["processors"] = processors(job, tokenizer) if job["processors"] else {}
    part = Path(argv[1]).with_suffix(".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part, argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
