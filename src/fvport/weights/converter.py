# SPDX-License-Identifier: Apache-2.0
"""`fvport convert`: a port's declared conversion, from the release to the tree that FastVideo loads.

    run(port)       release -> `converted_weights/<slug>.diffusers/` (official class names) -> the load tree
    require(port)   the tree is there, is what the declaration makes of this release, and was not changed since

Two trees, so that everything that reads a Diffusers release reads a converted one in the same way; the second links the
first's weights and names the port's classes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport import progress
from fvport.errors import BlockedError, FvportError
from fvport.weights import conversion, declaration, fill, show, tree
from fvport.weights.conversion import Conversion

if TYPE_CHECKING:
    from fvport.spec import Port

RUN = "Run: fvport convert"


@dataclass
class Converted:
    """What was done; `seconds` and `bytes` of this run only."""

    tree: str
    load_tree: str
    made: bool
    components: dict[str, dict[str, Any]]
    copied: list[str]
    skipped: dict[str, int]  # reason -> keys
    nan: list[str]
    resumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    retry: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def text(self) -> str:
        rows: list[tuple[str, ...]] = [("component", "tensors", "bytes", "computed", "files")]
        for name, entry in self.components.items():
            size = show.size(entry["bytes"])
            rows.append((name, str(entry["tensors"]), size, str(entry["computed"]), str(entry["files"])))
        what = f"{self.tree}: made in {self.seconds:.1f} s" if self.made else f"{self.tree}: as it should be already"
        lines = [what, show.table(rows), f"copied as they are: {', '.join(self.copied) or 'nothing'}"]
        lines += [f"went on from an earlier run: {', '.join(self.resumed)}"] if self.resumed else []
        lines += [f"left out: {count} keys, {reason}" for reason, count in self.skipped.items()]
        lines += [f"holds NaN: {name}" for name in self.nan]
        lines += self.notes
        return "\n".join([*lines, f"load tree: {self.load_tree}"])


def run(port: Port, options: fill.Options | None = None, retry: dict[str, Any] | None = None) -> Converted:
    """Convert what is not converted yet, then make the load tree. Twice changes nothing.

    Raises UsageError for a declaration that cannot be read, FvportError for one that leaves something open,
    BlockedError for what is missing or broken.
    """
    from fvport.weights import convert, prep, retries

    if not port.official.needs_conversion:
        what = f"a release in {port.official.layout} layout is loaded as it is: needs_conversion is false"
        raise FvportError(what, where=str(port.file), todo="The load tree is made by: fvport prep")
    prep.verify(port)
    declared = declaration.of_port(port)
    plan = conversion.plan(port.official_weights, declared)
    answered = retries.answer(plan, retry) if retry else {}
    started, options = time.monotonic(), options or fill.Options()
    with progress.Moved("convert") as moved:
        written = tree.write(plan, port.official_tree, options, moved.at)
    seconds = time.monotonic() - started
    load_tree = convert.build_load_tree(port, verify=False)
    reasons = list(plan.skipped.values())
    return Converted(
        str(port.official_tree.relative_to(port.root)),
        str(load_tree.relative_to(port.root)),
        written.made,
        {name: _component(plan, written, name) for name in plan.tensors},
        [name for name, part in declared.parts.items() if part.copied],
        {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        sorted(written.nan),
        written.resumed,
        written.notes,
        round(seconds, 3),
        answered,
    )


def of_variants(port: Port, options: fill.Options | None = None) -> dict[str, Converted]:
    """`run` for the release of each variant, by the same declaration."""
    from fvport import spec

    found = {}
    for view in port.views:
        with spec.seen_as(view):
            found[view.variant] = run(view, options)
    return found


def _component(plan: Conversion, written: fill.Written, name: str) -> dict[str, Any]:
    made = plan.tensors[name]
    files = [file for file in written.files if file.startswith(f"{name}/") and file.endswith(".safetensors")]
    return {
        "tensors": len(made),
        "bytes": sum(item.tensor.bits // 8 for item in made),
        "computed": sum(not item.moves_bytes for item in made),
        "files": len(files),
        "sources": sorted({source.file for item in made for source in item.sources}),
    }


# --- is it the right tree --------------------------------------------------------------------------------------------


def plan_of(port: Port) -> Conversion:
    """The port's conversion as it stands now."""
    return conversion.plan(port.official_weights, declaration.of_port(port))


def require(port: Port) -> Conversion:
    """BlockedError unless the converted tree is there and made from this release by this declaration.

    FvportError where a file of it was changed since: that is no conversion of ours any more.
    """
    plan, target = plan_of(port), port.official_tree
    held = tree.read_marker(target)
    where = str(target.relative_to(port.root))
    if not held:
        raise BlockedError("the release has not been converted", where=where, todo=RUN)
    if held.get("digest") != tree.digest(plan, fill.Options(link=bool(held.get("link")))):
        raise BlockedError("was made from another release, or by another declaration", where=where, todo=RUN)
    if name := tree.changed(target):
        raise FvportError(f"{name} was changed after the conversion", where=where, todo=RUN)
    return plan


def state(port: Port, component: str) -> list[str]:
    """What a record depends on: the component's declaration, and what was changed in its part of the tree."""
    try:
        declared = declaration.of_port(port)
    except FvportError as error:
        return [f"no declaration: {error.what}"]
    folder = port.components[component].weights or component if component in port.components else component
    name = tree.changed(port.official_tree) if port.official_tree.is_dir() else ""
    return [declared.digest(folder), *([f"changed: {name}"] if name else [])]


def main(file: str, argv: list[str] | None = None) -> None:
    """What a conversion script calls: convert SOURCE to TARGET by the declaration in `file`, without a port."""
    import argparse

    parser = argparse.ArgumentParser(description="Convert a release to Diffusers layout.")
    parser.add_argument("source", type=Path, help="the release")
    parser.add_argument("target", type=Path, help="folder to make")
    parser.add_argument("--link", action="store_true", help="link folders that are copied as they are")
    parser.add_argument("--sync", action="store_true", help="wait until everything is on the disk")
    parser.add_argument("--no-scan", action="store_true", help="do not look for NaN in what is moved")
    args = parser.parse_args(argv)
    try:
        plan = conversion.plan(args.source, declaration.load(Path(file)))
        options = fill.Options(args.link, args.sync, not args.no_scan)
        with progress.Moved("convert") as moved:
            written = tree.write(plan, args.target.absolute(), options, moved.at)
    except FvportError as error:
        print(f"{Path(file).name}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(f"{args.target}: {'made' if written.made else 'as it should be already'}, {show.size(plan.bytes)}")
    for name in sorted(written.nan):
        print(f"holds NaN: {name}")
    for note in written.notes:
        print(note)
