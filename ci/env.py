# SPDX-License-Identifier: Apache-2.0
"""Build this repository's environment: a venv, uv from its lock, the locked packages, fvport from this checkout.

Run by `make env` with whatever `python3` there is, so this file needs the standard library only and must be readable by
an old Python, which is told in one sentence that it is too old. Skipped when nothing it was built from has changed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 11), (3, 12)
PIP = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r"]
BEAT = 15  # seconds between signs of life where the output is no terminal


def main(argv=None):
    """0 when the environment stands, 2 when this machine cannot hold it, else what the failing step returned."""
    options = arguments(argv)
    problem = unfit(sys.version_info[:2])
    if problem:
        return say("make env: " + problem, 2)
    stamp = os.path.join(options.venv, ".built-from")
    wanted = digest(options)
    if read(stamp) == wanted and os.path.exists(python(options.venv)):
        return 0
    say(f"Building {options.venv} (the first time, several GB are downloaded; later about a minute)")
    start = time.time()
    for number, (words, command) in enumerate(steps(options), 1):
        say(f"[{number}/4] {words}")
        code = run(command)
        if code:
            return say("make env: this step failed ({}): {}".format(code, " ".join(command)), code)
    with open(stamp, "w") as file:
        file.write(wanted)
    return say(f"Environment ready in {time.time() - start:.0f} s: {options.venv}", 0)


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", default=os.path.join(ROOT, ".venv"))
    parser.add_argument("--lock", default=os.path.join(ROOT, "docker", "gate-cpu.lock"))
    return parser.parse_args(argv)


def unfit(version):
    """One sentence that says why this Python will not do, or nothing."""
    if OLDEST <= tuple(version) <= NEWEST:
        return ""
    return "Python {}.{} will not do; 3.11 or 3.12 is needed; then: make PYTHON=python3.12".format(*version)


def steps(options):
    uv = os.path.join(options.venv, "bin", "uv")
    install = [uv, "pip", "install", "--python", python(options.venv)]
    return [
        ("virtual environment", [sys.executable, "-m", "venv", "--clear", options.venv]),
        ("uv", [python(options.venv), *PIP, os.path.join(ROOT, "docker", "uv.lock")]),
        (
            "packages of " + os.path.basename(options.lock),
            # Compiled once: where Python may not write bytecode, FastVideo takes twice as long to import every time.
            [
                uv,
                "pip",
                "sync",
                *([] if sys.stderr.isatty() else ["-q"]),  # no list of 200 packages in a log; `run` says it is at it
                "--compile-bytecode",
                "--python",
                python(options.venv),
                "--require-hashes",
                options.lock,
            ],
        ),
        ("fvport from this checkout", [*install, "-q", "--no-deps", "--no-build-isolation", "--editable", ROOT]),
    ]


def python(venv):
    return os.path.join(venv, "bin", "python")


def digest(options):
    """What the environment is built from: the locks, the package's declaration, this script, the interpreter."""
    total = hashlib.sha256(sys.version.encode())
    for path in (options.lock, os.path.join(ROOT, "docker", "uv.lock"), os.path.join(ROOT, "pyproject.toml"), __file__):
        with open(path, "rb") as file:
            total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()


def run(command):
    """Run one step; where nobody sees uv's progress bars, say every 15 seconds that it still works."""
    env = index_settings(dict(os.environ))
    env.setdefault("UV_HTTP_TIMEOUT", "300")
    try:
        process = subprocess.Popen(command, env=env)
    except OSError as error:
        return say(str(error), 1)
    start = time.time()
    while True:
        try:
            return process.wait(timeout=None if sys.stderr.isatty() else BEAT)
        except subprocess.TimeoutExpired:
            say(f"      ... {time.time() - start:.0f} s")
        except KeyboardInterrupt:
            process.wait()
            return say("interrupted; the next make env starts afresh", 130)


def index_settings(env):
    """uv reads no pip.conf: hand it pip's index and certificates, where pip has any and uv has not."""
    for option, theirs in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        if theirs in env or (theirs == "UV_DEFAULT_INDEX" and "UV_INDEX_URL" in env):
            continue
        value = env.get("PIP_" + option.upper().replace("-", "_")) or pip_option("global." + option, env)
        if value:
            env[theirs] = value
    return env


def pip_option(name, env):
    if not shutil.which("pip3"):
        return ""
    done = subprocess.run(
        ["pip3", "config", "get", name], check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    )
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def say(text, code=None):
    print(text, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
