# SPDX-License-Identifier: Apache-2.0
"""Where references lie: a folder of the port, a hub dataset (hf://datasets/ORG/NAME), or any other fsspec address.

One interface for all of them: names relative to the store's top, bytes in, bytes out. What is wrong with the address,
the network or the credentials is one BlockedError.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError


class Store:
    """`address`: a folder (relative to `root`) or protocol://path. Nothing is opened before it is needed."""

    def __init__(self, address: str, root: Path | None = None) -> None:
        self.address = address
        self.remote = "://" in address
        self.folder = None if self.remote else (root or Path()).joinpath(address or ".")
        self._open: tuple[Any, str] | None = None

    def _fs(self) -> tuple[Any, str]:
        if self._open is None:
            import fsspec

            with self._told(self.address):
                place = self.address if self.remote else str(Path(self.folder or ".").absolute())
                fs, base = fsspec.core.url_to_fs(place)
                self._open = fs, base.rstrip("/")
        return self._open

    def find(self, prefix: str = "") -> list[str]:
        """Names of all files under a prefix, sorted; [] where there is no such folder."""
        fs, base = self._fs()
        with self._told(prefix):
            fs.invalidate_cache()
            top = f"{base}/{prefix}".rstrip("/")
            found = fs.find(top) if fs.exists(top) else []
        return sorted(name[len(base) :].lstrip("/") for name in found)

    def exists(self, name: str) -> bool:
        fs, base = self._fs()
        with self._told(name):
            return bool(fs.isfile(f"{base}/{name}"))

    def read(self, name: str) -> bytes:
        """BlockedError where there is no such file."""
        fs, base = self._fs()
        with self._told(name):
            return bytes(fs.cat_file(f"{base}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all in a local folder; elsewhere as whole as the store's own upload is."""
        fs, base = self._fs()
        with self._told(name):
            if self.folder is None:
                fs.pipe_file(f"{base}/{name}", data)
                return
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{uuid.uuid4().hex}.part")
            try:
                part.write_bytes(data)
                os.replace(part, file)
            finally:
                part.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        fs, base = self._fs()
        with self._told(name):
            fs.rm_file(f"{base}/{name}")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Whatever a file system says, as one sentence: there are as many kinds of errors as there are stores."""
        where = f"{self.address.rstrip('/')}/{name}" if name != self.address else name
        try:
            yield
        except FileNotFoundError:
            raise BlockedError("there is no such file in the store of references", where=where) from None
        except ImportError as error:
            todo = "Install what it names, or use a folder as [quality] store"
            raise BlockedError(
                f"this address needs a library that is not there ({error})", where=where, todo=todo
            ) from None
        except BlockedError:
            raise
        except Exception as error:  # noqa: BLE001 - every file system has errors of its own
            first = (str(error) or type(error).__name__).partition("\n")[0][:200]
            todo = "Look at the address ([quality] store), the network and your credentials"
            raise BlockedError(f"the store of references cannot be reached ({first})", where=where, todo=todo) from None
