# SPDX-License-Identifier: Apache-2.0
"""The contract and the walk on archetypes' real encoders, in one process: `python FILE OUT FOLDER [names]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import archetypes_encoders as encoders
import archetypes_support as support

STAGES = {  # faults of the archetypes' own table -> where the walk must stop
    "final norm skipped": "hidden-state selection",
    "mask inverted": "masks",
    "positions counted from one row": "positional ids",
    "pooled token": "hidden-state selection",
    "pooled from the last token": "hidden-state selection",
    "padding not silenced": "layers",  # padding moves the official answer too: only the trace can say more
    "sub-conditioners in another order": "output packing",
    "global conditioning in another order": "output packing",
}


def one(case: Any, folder: Path) -> dict[str, Any]:
    """{"points": [sentence], "compared", "walks": {fault: [stage, sentence]}} of one encoder."""
    import torch

    from fvport.contract import points, root
    from fvport.contract.red import Red
    from fvport.contract.walk import walk
    from fvport.models.native import forward_context
    from fvport.parity import record

    made = encoders.make(case, folder)
    sides, native = encoders.Sides(made), made.native()
    oracle, cases = sides.oracle, sides.cases
    built = getattr(oracle, f"build_{made.c.name}")(made.folder / made.case.kind, torch.float32)
    model, run = record.root_of(built), getattr(oracle, f"call_{made.c.name}")

    def watched(target: Any, ask: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        calls: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        for name, given in cases.items():
            seen: list[Any] = []
            with root.watched(target, seen), torch.no_grad():
                outputs[name] = ask(given)
            calls[name] = seen[-1]
        return calls, outputs

    def facts(target: Any, calls: dict[str, Any], chosen: str) -> dict[str, Any]:
        with forward_context():
            behaviour = root.behave(target, calls[chosen].given, calls[chosen].answer) if chosen else {}
        return {"cases": {n: root.about(c.answer) for n, c in calls.items()}, "behaviour": behaviour, "case": chosen}

    theirs, official = watched(model, lambda given: run(built, given))
    chosen = root.chosen({name: call.given for name, call in theirs.items()})
    official_facts = facts(model, theirs, chosen)
    mine, _ = watched(native, lambda given: sides.call(native, given))
    wrong, done = points.compare(facts(native, mine, chosen), official_facts, own=True)
    real = root.valid(root.mask_of(theirs[chosen].given)[1]) if chosen else None
    wanted = ["padding"] * (real is not None and not bool(real.all()))
    wanted += ["row 1 alone"] * (real is not None and len(real) > 1)
    found: dict[str, Any] = {"points": [p.sentence for p in wrong], "compared": done, "wanted": wanted, "walks": {}}
    for fault, (where, old, new) in encoders.FAULTS.items():
        if where != case.name or fault not in STAGES:
            continue
        broken = made.native((old, new if new is not None else encoders.OTHERWISE[fault]))
        _, outputs = watched(broken, lambda given, broken=broken: sides.call(broken, given))
        red = Red(
            "",
            broken,
            lambda name, broken=broken: sides.call(broken, cases[name]),
            official,
            outputs,
            {name: root.kept(call.given) for name, call in theirs.items()},
            official_facts["cases"],
            sides.floors,
            official_facts["behaviour"],
            chosen,
            {},
            forward_context,
        )
        red.case = next((name for name in red.cases if red.bad(name)), chosen)
        walked = walk(red, [])
        found["walks"][fault] = [walked.stage, walked.sentence, walked.unknown]
    return found


def main(argv: list[str]) -> int:
    from benchmarks.encoder_cases import CASES
    from fvport import fastvideo_api

    # A planted fault may be as long as what it replaces: no cached module may stand in for it.
    sys.dont_write_bytecode = True
    fastvideo_api.boot(support.SITE, "cpu")
    names = argv[2:] or list(dict.fromkeys([*encoders.FEW, *(encoders.FAULTS[fault][0] for fault in STAGES)]))
    found = {}
    for name in names:
        try:
            found[name] = one(CASES[name], Path(argv[1]))
        except Exception as error:  # noqa: BLE001 - said per case
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        print(name, json.dumps(found[name]), flush=True)
    Path(argv[0]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
