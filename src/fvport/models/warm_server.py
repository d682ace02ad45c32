# SPDX-License-Identifier: Apache-2.0
"""The booted process of `warm`: imports FastVideo, then forks one child a connection.

`python -m fvport.models.warm_server SOCKET PORT_TOML DEVICE`. It ends when the session's owner is gone, when its socket
is removed, or when nobody asked for a while; children that are at work then finish.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

IDLE = 180.0  # seconds without a call
PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL


def main(argv: list[str]) -> int:
    from fvport import fastvideo_api, spec

    address, file, device = Path(argv[0]), argv[1], argv[2]
    port = spec.parse(Path(file))
    fastvideo_api.boot(port.root, device, distributed=False, backend=port.fastvideo.attention_backend)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children here
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        address.unlink(missing_ok=True)  # of one that ended: whoever starts this holds the lock of its key
        listener.bind(str(address))
        listener.listen()
        try:
            serve(listener, address)
        finally:
            address.unlink(missing_ok=True)
    return 0


def serve(listener: socket.socket, address: Path) -> None:
    """Answer until nobody can ask any more. Never returns in a child."""
    last, children = time.monotonic(), list[int]()
    while address.exists() and not _owner_gone(address.parent) and time.monotonic() - last < IDLE:
        ready = select.select([listener], [], [], 1.0)[0]
        children = [pid for pid in children if _lives(pid)]
        if children:
            last = time.monotonic()
        if not ready:
            continue
        link, _ = listener.accept()
        pid = os.fork()
        if pid == 0:
            listener.close()
            _supervise(link)
        link.close()
        children.append(pid)
        last = time.monotonic()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _owner_gone(folder: Path) -> bool:
    try:
        with open(folder / "owner", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _supervise(link: socket.socket) -> None:
    """Fork the child of one request, tell its exit code; end it when the caller goes away."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        request, files = _receive(link)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            link.close()
            _become(request, files, parent)
        for number in files:
            os.close(number)
        code = _watch(link, pid)
        link.sendall(str(code).encode())
    except OSError:
        traceback.print_exc()
    finally:
        os._exit(0)


def _receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, files, _, _ = socket.recv_fds(link, 8, 2)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise ConnectionError("the caller went away before it had asked")
        data += part
    return json.loads(data), files


def _watch(link: socket.socket, pid: int) -> int:
    """Wait for the child or for the caller's end, whichever comes first."""
    handle = os.pidfd_open(pid)
    try:
        files: list[Any] = [link, handle]
        if handle not in select.select(files, [], [])[0]:  # the caller is gone, or asks for the end
            for ender, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, ender)
                if select.select([handle], [], [], patience)[0]:
                    break
    finally:
        os.close(handle)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it left behind
    return code


def _become(request: dict[str, Any], files: list[int], parent: int) -> None:
    """Be `python -m MODULE ARGV...`: environment, folder, files and signals as a fresh process has them."""
    from fvport.models import cpu_platform

    code = 1
    try:
        os.setsid()
        cpu_platform.end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for given, target in zip(files, (1, 2), strict=True):
            os.dup2(given, target)
            os.close(given)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = [request["module"], *request["argv"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
