# SPDX-License-Identifier: Apache-2.0
"""torch.save files made without torch: a small writer of pickle opcodes, so that hostile ones can be made as well."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

WIDTHS = {"FloatStorage": 4, "HalfStorage": 2, "LongStorage": 8}


class Named(NamedTuple):
    """A global."""

    module: str
    name: str


class Call(NamedTuple):
    function: Any
    arguments: tuple[Any, ...]


class Held(NamedTuple):
    """A persistent id."""

    value: Any


class Raw(NamedTuple):
    """Opcodes as they are."""

    code: bytes


def opcodes(value: Any) -> bytes:
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return opcodes(value.function) + opcodes(value.arguments) + b"R"
    if isinstance(value, Held):
        return opcodes(value.value) + b"Q"
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return b"(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"d"
    end = {tuple: b"t", list: b"l"}[type(value)]
    return b"(" + b"".join(map(opcodes, value)) + end


def dumps(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def tensor(
    key: str,
    *shape: int,
    kind: str = "FloatStorage",
    offset: int = 0,
    stride: tuple[int, ...] | None = None,
    size: int = -1,
) -> Call:
    """What torch.save writes for a tensor of `shape` in the storage `key`."""
    steps, count = [], 1
    for length in reversed(shape):
        steps.insert(0, count)
        count *= length
    storage = Held(("storage", Named("torch", kind), key, "cpu", count if size < 0 else size))
    hooks = Call(Named("collections", "OrderedDict"), ())
    arguments = (storage, offset, shape, tuple(steps) if stride is None else stride, False, hooks)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), arguments)


def save_zip(path: Path, value: Any, storages: dict[str, int], order: bytes = b"little", pack: int = 0) -> Path:
    """A zip of today's form; `storages` gives each one's bytes, all zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = value if isinstance(value, bytes) else dumps(value)
    with zipfile.ZipFile(path, "w", pack) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", order)
        for key, size in storages.items():
            archive.writestr(f"archive/data/{key}", bytes(size))
    return path


def save_flat(path: Path, shapes: dict[str, tuple[int, ...]], nest: str = "") -> Path:
    """A state dict of float tensors, one storage each; under the key `nest` if given."""
    table: dict[str, Any] = {name: tensor(str(n), *shape) for n, (name, shape) in enumerate(shapes.items())}
    sizes = {}
    for n, shape in enumerate(shapes.values()):
        count = 1
        for length in shape:
            count *= length
        sizes[str(n)] = 4 * count
    return save_zip(path, {nest: table, "epoch": 3} if nest else table, sizes)


def save_legacy(path: Path, value: Any, storages: dict[str, tuple[int, int]]) -> Path:
    """The form before torch 1.6; `storages`: {key: (elements, bytes)}."""
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, value, list(storages)):
        stream.write(dumps(part))
    for count, size in storages.values():
        stream.write(struct.pack("<q", count) + bytes(size))
    path.write_bytes(stream.getvalue())
    return path
