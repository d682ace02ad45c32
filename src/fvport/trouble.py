# SPDX-License-Identifier: Apache-2.0
"""How a command line ends when something goes wrong: one sentence, one exit code, and one JSON document with --json.

No exception that nobody foresaw may end with the exit code of a verdict: 1 says that a port is wrong, and only a check
that compared something says that. --debug (FVPORT_DEBUG=1) shows the traceback.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from fvport import manners, progress
from fvport.errors import BLOCKED, INTERNAL, USAGE, FvportError

INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal's number, as a shell says it


def run(app: Any) -> None:
    """Run a typer app so that its own complaints about the command line come here as exceptions."""
    code = app(standalone_mode=False)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing; a SIGTERM would end as a Ctrl-C, too
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Run the block; an exception ends the process with a sentence. SIGTERM ends it as Ctrl-C does, children too."""
    caught: list[int] = []
    _listen(caught)
    try:
        yield
    except FvportError as error:
        _debug(error)
        _end(str(error), error.exit_code, as_json, error)
    except KeyboardInterrupt:
        code = TERMINATED if caught else INTERRUPTED
        _end(f"{'ended by SIGTERM' if caught else 'interrupted'}; nothing half-written was kept", code, as_json)
    except BrokenPipeError:
        _silence()
        sys.exit(USAGE)
    except Exception as error:  # noqa: BLE001 - the last place that can turn it into a sentence
        _debug(error)
        _end(*_sentence(error), as_json)


def _listen(caught: list[int]) -> None:
    def stop(number: int, frame: Any) -> None:
        if not caught:  # the second one must not break into the cleaning up after the first
            caught.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _sentence(error: Exception) -> tuple[str, int]:
    """What to say, and the exit code."""
    if hasattr(error, "format_message"):  # the command line itself: click's exceptions, also typer's own copy of them
        usage = getattr(getattr(error, "ctx", None), "get_usage", None)
        said = (error.format_message() or "say what to do").strip()
        said += "" if said.endswith(("?", ".")) else "."
        return said if usage is None else f"{said} {' '.join(usage().split())}", USAGE
    if type(error).__name__ == "Abort":
        return "interrupted; nothing half-written was kept", INTERRUPTED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{said}: what was being written is not whole. Make room, then run again", BLOCKED
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{said}. Let this user read or write it, or name another place", USAGE
        return said, USAGE
    if isinstance(error, UnicodeError):
        return f"a file is not UTF-8 text ({error}), read {_place(error)}. Save it as UTF-8", USAGE
    from fvport.checks import mishap_words

    hint = "Please report this; --debug shows the whole traceback"
    return f"a fault of fvport itself: {mishap_words(error)}. {hint}", INTERNAL


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    return f"at {os.path.basename(frame[0].filename)}:{frame[0].lineno}" if frame else "somewhere"


def _debug(error: Exception) -> None:
    if os.environ.get("FVPORT_DEBUG") == "1":
        traceback.print_exception(error)


def _end(said: str, code: int, as_json: bool, error: FvportError | None = None) -> None:
    entry = _entry(error) if error else None
    if as_json:
        about = {"id": entry.id, "page": entry.to_json()["page"]} if entry else {}
        print(json.dumps({"error": said, "exit_code": code, **about}), flush=True)
    progress.clear()
    print(f"fvport: {said}{f' [{entry.id}]' if entry else ''}", file=sys.stderr, flush=True)
    if entry and manners.verbose():
        print(entry.text(), file=sys.stderr, flush=True)
    sys.exit(code)


def _entry(error: FvportError) -> Any:
    """The catalogue's entry, or None: a sentence that has none is still said."""
    from fvport import errors_catalogue

    with contextlib.suppress(OSError, ValueError, KeyError):
        return errors_catalogue.find(error)
    return None


def _silence() -> None:
    """Nobody reads our output any more; do not complain of that again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
