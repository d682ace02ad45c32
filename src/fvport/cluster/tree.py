# SPDX-License-Identifier: Apache-2.0
"""The port in a folder that all nodes see: copied once for each content, read from there, evidence brought back.

Weights do not travel: links to them are made absolute and read where they lie.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fvport import evidence as ev
from fvport import spec
from fvport.errors import BlockedError
from fvport.spec import Port

LINKED = ("official_weights", "converted_weights")  # trees of links to what is large
SKIP = {".fvport", "__pycache__", "outputs"}


def place(port: Port, shared: Path | None) -> Port:
    """The port where the nodes read it: itself without `shared`, else its copy there, made beside and renamed."""
    if shared is None or port.root.is_relative_to(shared.resolve()):
        return port
    target = shared.resolve() / f"{port.slug}-{digest(port.root)}"
    if not target.is_dir():
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copytree(port.root, part, symlinks=True, ignore=lambda _, names: SKIP & set(names))
            for name in LINKED:
                _absolute(port.root / name, part / name)
            os.replace(part, target)
        except OSError as error:
            if not target.is_dir():  # another run may have been quicker with the same content
                what = f"the port could not be copied there ({error.strerror or error})"
                raise BlockedError(what, where=str(shared)) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return spec.load(target)


def digest(root: Path) -> str:
    """Sixteen digits of what the tree holds (names, bytes, links), without state, caches and history."""
    import blake3

    total = blake3.blake3()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIP - {".git"})
        for name in sorted([*files, *(f for f in folders if Path(folder, f).is_symlink())]):
            path = Path(folder, name)
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            total.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return str(total.hexdigest())[:16]


def _absolute(original: Path, copy: Path) -> None:
    """Links that leave the tree, pointing to the same files from their new place."""
    pairs = [(original, copy)] if original.is_symlink() else []
    for folder, folders, files in os.walk(copy):
        pairs += [(original / Path(folder, name).relative_to(copy), Path(folder, name)) for name in (*folders, *files)]
    for old, new in pairs:
        if new.is_symlink():
            target = old.resolve()
            new.unlink()
            new.symlink_to(target)


def bring_back(origin: Port, used: Port) -> None:
    """Records and what they name, from where they were made to the port. Old ones are replaced whole, never half."""
    if used.root == origin.root:
        return
    for there, here in zip((used, *used.views), (origin, *origin.views), strict=True):
        for file in sorted(ev.folder(there).glob("*.json")):
            record = ev.read(there, file.stem)
            for artifact in record.artifacts if record else []:
                _bring(there.root / artifact, here.root / artifact)
            _bring(file, ev.folder(here) / file.name)


def _bring(source: Path, target: Path) -> None:
    """A file, a link, or a folder of them; what lies here under the same name is replaced whole."""
    if source.is_dir() and not source.is_symlink():
        for child in source.iterdir():
            _bring(child, target / child.name)
        return
    if not source.is_file():  # a link to what is not there, or nothing
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)  # of a run that was killed here, with this number
    if source.is_symlink():
        part.symlink_to(os.readlink(source))
    elif target.is_file() and source.samefile(target):
        return
    else:
        shutil.copyfile(source, part)
    os.replace(part, target)
