# SPDX-License-Identifier: Apache-2.0
"""A converted tree against the release: every tensor made again from the official bytes, and compared bit for bit.

What the writer does with ranges and tiles is done here with plain numpy on whole tensors, so that one mistake cannot
make both sides agree. Only tensors above LIMIT are compared by the writer's own ranges, or computed in tiles.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.weights import arithmetic, manifest
from fvport.weights.conversion import Conversion, Made
from fvport.weights.fill import copied_files, model_index
from fvport.weights.manifest import TensorInfo
from fvport.weights.operations import Operation
from fvport.weights.stream import Copier, ranges
from fvport.weights.values import Fault

LIMIT = 1 << 28  # bytes
PIECE = 1 << 24


@dataclass
class Verified:
    """One component: how much was compared, what is wrong, which tensors hold NaN {name: how many}."""

    compared: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    nan: dict[str, int] = field(default_factory=dict)


def headers(plan: Conversion, tree: Path, component: str) -> tuple[dict[str, tuple[Path, TensorInfo]], list[Fault]]:
    """({name: where it lies in the tree}, what names, shapes and dtypes differ from the plan). No tensor is read."""
    weights, planned = manifest.read_weights(tree / component), {made.name: made for made in plan.tensors[component]}
    there = {
        name: (tree / component / file, info) for file, table in weights.files.items() for name, info in table.items()
    }
    extra = "is in the converted tree, and nothing is declared to become it"
    faults = [Fault(name, "unexpected", f"{name} {extra}") for name in there if name not in planned]
    for name, made in planned.items():
        if name not in there:
            what = f"{name} (from {made.said}) is not in the converted tree"
            faults.append(Fault(name, "missing", what, _keys(made)))
            continue
        info, tensor = there[name][1], made.tensor
        if (info.dtype, info.shape) != (tensor.dtype, tensor.shape):
            gives = f"{made.said} gives {tensor.dtype} {list(tensor.shape)}"
            faults.append(Fault(name, "shape", f"{name} is {info.dtype} {list(info.shape)}, {gives}", _keys(made)))
    return there, faults


def _keys(made: Made) -> tuple[str, ...]:
    return tuple(source.key for source in made.sources)


def component(plan: Conversion, tree: Path, name: str) -> Verified:
    """Every tensor of one component by value."""
    there, faults = headers(plan, tree, name)
    result = Verified(faults=faults)
    wrong = {fault.name for fault in faults}
    for made in plan.tensors[name]:
        if made.name in wrong:
            continue
        file, info = there[made.name]
        result.compared += 1
        result.bytes += info.nbytes
        fault, nan = _one(plan, made, file, info, tree.parent)
        if fault:
            result.faults.append(fault)
        if nan:
            result.nan[made.name] = nan
    return result


def _one(plan: Conversion, made: Made, file: Path, info: TensorInfo, scratch: Path) -> tuple[Fault | None, int]:
    size = max([info.nbytes, *(source.info.nbytes for source in made.sources)])
    if size <= LIMIT:
        want = outputs(plan, made)[made.output].tobytes()
        have = _read(file, info.start, info.end)
        return (None if want == have else _fault(plan, made, have)), _nan(have, made.tensor.dtype)
    if made.moves_bytes:
        return _large_move(plan, made, file, info)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix=".verify.") as room:
        os.posix_fallocate(room.fileno(), 0, info.nbytes)
        bench = arithmetic.Workbench(plan.root, scratch)
        nan = arithmetic.compute(bench, made, Path(room.name), 0)
        for at in range(0, info.nbytes, PIECE):
            stop = min(at + PIECE, info.nbytes)
            if _read(Path(room.name), at, stop) != _read(file, info.start + at, info.start + stop):
                return _differs(made, ""), nan
    return None, nan


def _large_move(plan: Conversion, made: Made, file: Path, info: TensorInfo) -> tuple[Fault | None, int]:
    copier, at, nan = Copier(plan.root), info.start, 0
    try:
        for piece in ranges(made):
            for start in range(piece.start, piece.stop, PIECE):
                stop = min(start + PIECE, piece.stop)
                want = os.pread(copier.source(piece.file), stop - start, start)
                if want != _read(file, at, at + stop - start):
                    return _differs(made, ""), nan
                nan += _nan(want, made.tensor.dtype)
                at += stop - start
    finally:
        copier.close()
    return None, nan


def outputs(plan: Conversion, made: Made) -> list[Any]:
    """All that the operations make of the sources, as numpy arrays (bf16 as its bits), whole and plainly."""
    import numpy as np

    dtype = made.sources[0].info.dtype
    held = []
    for source in made.sources:
        data = _read(plan.root / source.file, source.info.start, source.info.end)
        if source.info.dtype not in arithmetic.NUMPY:  # of less than a byte: whole tensors only, as bytes
            return [np.frombuffer(data, np.uint8)]
        held.append(np.frombuffer(data, arithmetic.NUMPY[source.info.dtype]).reshape(source.info.shape))
    for operation in made.operations:
        held, dtype = plainly(operation, held, dtype)
    return held


def plainly(operation: Operation, held: Sequence[Any], dtype: str) -> tuple[list[Any], str]:
    """(what one operation makes of whole arrays, their dtype after it), with plain numpy; bf16 as its bits."""
    import numpy as np

    words = operation.arguments
    if operation.name == "split":
        parts = words[1] if isinstance(words[1], int) else np.cumsum(words[1])[:-1]
        pieces = np.split(held[0], parts, axis=words[0])
        return (pieces if len(words) == 2 else [pieces[words[2]]]), dtype
    if operation.name == "fuse":
        order = words[1] if len(words) == 2 else range(len(held))
        return [np.concatenate([held[number] for number in order], axis=words[0])], dtype
    if operation.name == "transpose":
        return [np.transpose(array, words[0]) for array in held], dtype
    if operation.name == "reshape":
        return [np.ascontiguousarray(array).reshape(words[0]) for array in held], dtype
    after = operation.dtype if operation.name == "cast" else dtype
    return [arithmetic.computed(array, dtype, [operation]) for array in held], after


def _read(file: Path, start: int, stop: int) -> bytes:
    try:
        with open(file, "rb") as stream:
            stream.seek(start)
            data = stream.read(stop - start)
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    if len(data) != stop - start:
        raise BlockedError("is shorter than its header says", where=str(file), todo="Fetch the file again")
    return data


def _nan(data: bytes, dtype: str) -> int:
    import numpy as np

    if dtype not in arithmetic.LARGEST:
        return 0
    return arithmetic.count_nan(np.frombuffer(data, arithmetic.NUMPY[dtype]), dtype)


def _fault(plan: Conversion, made: Made, have: bytes) -> Fault:
    """What the wrong tensor holds instead, where that can be told."""
    if not any(have):
        return _differs(made, "; it is all zeros")
    for number, other in enumerate(outputs(plan, made)):
        if number != made.output and other.tobytes() == have:
            return _differs(made, f"; it holds part {number} of it, and should hold part {made.output}")
    for items in plan.tensors.values():
        for item in items:
            if item is not made and item.tensor == made.tensor and item.moves_bytes and _same(plan, item, have):
                return _differs(made, f"; it holds what {item.name} should hold")
    want = outputs(plan, made)[made.output].tobytes()
    wrong = sum(a != b for a, b in zip(want[:PIECE], have[:PIECE], strict=True))
    return _differs(made, f": {wrong} of its {len(have)} bytes differ" if len(have) <= PIECE else "")


def _same(plan: Conversion, item: Made, have: bytes) -> bool:
    at = 0
    for piece in ranges(item):
        size = piece.stop - piece.start
        if _read(plan.root / piece.file, piece.start, piece.stop) != have[at : at + size]:
            return False
        at += size
    return True


def _differs(made: Made, more: str) -> Fault:
    return Fault(made.name, "differs", f"{made.name} does not hold what {made.said} gives{more}", _keys(made))


def texts(plan: Conversion, tree: Path) -> list[Fault]:
    """Configs, model_index.json and copied files against the plan and the release."""
    from fvport.weights.fill import config_name

    faults = []
    wanted = {"model_index.json": model_index(plan)}
    for name, part in plan.declaration.parts.items():
        if not part.copied or part.config is not None:
            wanted[f"{name}/{config_name(part)}"] = plan.config(part)
        for file in copied_files(plan, part):
            if not _same_file(plan.root / part.folder / file, tree / name / file):
                what = f"{name}/{file} is not a copy of {part.folder}/{file}"
                faults.append(Fault(f"{name}/{file}", "copy", what, (f"{part.folder}/{file}",)))
    for path, value in wanted.items():
        try:
            if manifest.read_json(tree / path) == value:
                continue
            what = f"{path} is not what the declaration says"
        except BlockedError as error:
            what = f"{path} {error.what}"
        faults.append(Fault(path, "config", what))
    return faults


def _same_file(a: Path, b: Path) -> bool:
    try:
        with open(a, "rb") as first, open(b, "rb") as second:
            while True:
                one, two = first.read(PIECE), second.read(PIECE)
                if one != two:
                    return False
                if not one:
                    return True
    except OSError:
        return False
