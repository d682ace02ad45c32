# SPDX-License-Identifier: Apache-2.0
"""The native side of a reuse proof, in a child: `python -m fvport.models.native_reuse JOB OUT`.

JOB is `{"port": port.toml, "component", "native", "device"}`. Where `native` is the class of a component that is
reused, it is built as the production loader builds it; any other candidate on the official config, as FastVideo's
loaders update theirs. OUT is `{"facts": official_modules.facts, "rules": [names, stacked] or None, "schema"}` or
`{"error"}`.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]
LIMIT = 900.0


def main(argv: list[str]) -> int:
    from fvport import fastvideo_api, spec
    from fvport.models import forked

    forked.interrupt_on_sigterm()
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    port = spec.parse(Path(job["port"]))
    fastvideo_api.boot(port.root, job["device"], distributed=False, backend=port.fastvideo.attention_backend)

    def answer() -> Json:
        fastvideo_api.init_distributed()
        return of_component(port, job["component"], job["native"])

    with tempfile.TemporaryDirectory(prefix="fvport-reuse-") as logs:
        done = forked.run(answer, name=job["component"], log=Path(logs, "log"), timeout=LIMIT)
    data = done.value if done.status == "done" else {"error": done.message, "todo": done.todo}
    part = Path(f"{argv[1]}.part")
    part.write_text(json.dumps(data), encoding="utf-8")
    os.replace(part, argv[1])
    return 0


def of_component(port: Any, name: str, wanted: str) -> Json:
    """Facts of the native class; `rules` None where a watched load has to say them (a reused class)."""
    from fvport.models import native, native_answers, native_structures, official_modules

    component = port.component(name)
    if component.mode == "reuse" and wanted == component.native:
        module, _ = native.build_meta(port, component)
        schema = native_answers.answer_schema(port, component)
        return {"facts": official_modules.facts(module), "rules": None, "schema": schema}
    cls = native_structures.located(wanted)
    given = config_of(port.official_tree / (component.weights or name))
    module, config_class = native_structures.built(cls, given)
    config = getattr(module, "config", None)
    arch = getattr(config, "arch_config", None)
    schema = {
        "class": wanted,
        "file": native.shown(port, Path(inspect.getfile(cls))),
        "config_class": config_class,
        "arch": native_answers._fields(arch),
        "config": {k: v for k, v in native_answers._fields(config).items() if k != "arch_config"} if arch else {},
        "arguments": {} if arch else passed(cls, given, config_class),
    }
    return {"facts": official_modules.facts(module), "rules": native_structures.rules(module), "schema": schema}


def passed(cls: Any, given: Json, way: str) -> Json:
    """What the constructor was given of the official config, by the way that `native_structures.built` names.

    A field that the class does not take was dropped on the way: said here, it would be compared with itself.
    """
    from fvport.models import native_answers, native_structures

    clean = {key: value for key, value in given.items() if not key.startswith("_")}
    if way == "dict":
        return clean
    if way == "arguments":
        parameters = inspect.signature(cls.__init__).parameters
        return {key: value for key, value in clean.items() if key in parameters}
    config = native_structures.updated(native_structures.located(way), clean)
    return native_answers._fields(config.arch_config)


def config_of(folder: Path) -> Json:
    """The component's config.json; {} where it has none."""
    file = folder / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
