# SPDX-License-Identifier: Apache-2.0
"""The gate's workflow without GitHub: the jobs of alignment-gate.yml, step by step, as the file says them.

    nox -s ci_dry_run -- --port build/tiny_wan --weights build/official [--engine podman --image TAG]

Each job starts in a clone of its own of what the port holds now, committed or not; each `run:` goes to bash with the
environment that the workflow gives it; artifacts go from job to job through a folder. `--engine host` runs the entry
script without a container. Artifacts and summaries are left in the port's .fvport/dry-run/. The exit code is the
verdict's; nothing else of the port is changed.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ci import expressions

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "alignment-gate.yml"
SNAPSHOT = "refs/fvport/dry-run"
GITHUB_SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]  # what a step without `shell:` is run with


@dataclass
class Run:
    """One run of the workflow: what its expressions can see, where its files lie, what its jobs ended as."""

    scratch: Path
    port: Path
    commit: str
    variables: dict[str, str]
    shell: dict[str, str]  # environment of every step beside the workflow's own
    needs: dict[str, Any] = field(default_factory=dict)

    def context(self, **more: Any) -> dict[str, Any]:
        github = {"sha": self.commit, "run_id": "dry-run", "workflow": "dry-run", "ref": "dry-run", "event": {}}
        shared = {"github": github, "inputs": {}, "vars": self.variables, "needs": self.needs}
        return {**shared, "steps": {}, "matrix": {}, **more}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    port = options.port.resolve()
    if not (port / "noxfile.py").is_file():
        print(f"dry run: {port} is no port; run `make demo`, which makes one, or name yours: --port DIR")
        return 2
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    if options.scratch and not options.scratch.is_dir():
        print(f"dry run: --scratch {options.scratch} is no folder")
        return 2
    with tempfile.TemporaryDirectory(prefix="fvport-ci-", dir=options.scratch) as scratch:
        own = shell(options)
        variables = {"FVPORT_WEIGHTS": str(options.weights.resolve())} if options.weights else {}
        variables |= {"FVPORT_GATE_IMAGE": options.image} if options.image else {}
        run = Run(Path(scratch), port, snapshot(port), variables, own)
        try:
            return workflow(run, jobs, options.only)
        finally:
            git(port, "update-ref", "-d", SNAPSHOT)
            keep(run)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ci.dry_run", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=Path, default=ROOT / "build" / "tiny_wan")
    parser.add_argument("--weights", type=Path, default=None, help="folder that holds SLUG/ (FVPORT_WEIGHTS)")
    parser.add_argument("--engine", default="host", help="docker, podman, or host: without a container")
    parser.add_argument("--image", default="", help="image of the gate (FVPORT_GATE_IMAGE)")
    parser.add_argument("--only", default="", help="checks to run, by comma; the verdict then misses the others")
    parser.add_argument("--scratch", type=Path, default=None, help="folder to work in, removed from it at the end")
    return parser.parse_args(argv)


def shell(options: argparse.Namespace) -> dict[str, str]:
    """What a runner's machine has of its own: the engine, and no identity of a user's."""
    if options.engine != "host":
        return {"DOCKER": options.engine}
    options.image = options.image or "host"
    return {"DOCKER": str(ROOT / "ci" / "host_engine.py"), "FVPORT_ENV": str(Path(sys.executable).parent.parent)}


# --- jobs ------------------------------------------------------------------------------------------------------------


def workflow(run: Run, jobs: Mapping[str, Any], only: str) -> int:
    """plan, check (one a row of the matrix), verdict. Gives the exit code: 0 only where the verdict job ends well.

    `say` writes to GitHub and judges nothing, so it is left out, by name: a job that nobody knows here is an error.
    """
    if set(jobs) != {"plan", "check", "verdict", "say"}:
        raise SystemExit(f"dry run: the workflow has the jobs {', '.join(jobs)}, and this driver knows others")
    outputs: dict[str, str] = {}
    plan_ok = job(run, "plan", jobs["plan"], {}, outputs)
    run.needs["plan"] = {"result": _word(plan_ok), "outputs": outputs}
    rows = expressions.fill(jobs["check"]["strategy"]["matrix"], run.context())["include"] if plan_ok else []
    wanted = [row for row in rows if not only or row["check"] in only.split(",")]
    results = [job(run, f"{row['slug']} {row['check']}", jobs["check"], row) for row in wanted]
    run.needs["check"] = {"result": _word(bool(results) and all(results) and len(wanted) == len(rows)), "outputs": {}}
    verdict = job(run, "verdict", jobs["verdict"], {})
    print(f"dry run: {sum(results)} of {len(rows)} check jobs green, verdict {_word(verdict)} (no comment is written)")
    if len(wanted) < len(rows):
        print(
            f"dry run: --only left {len(rows) - len(wanted)} checks out, so the verdict is red whatever the others say"
        )
    return 0 if verdict else 1


def _word(good: bool) -> str:
    return "success" if good else "failure"


def job(run: Run, name: str, spec: Mapping[str, Any], matrix: dict[str, Any], outputs: Any = None) -> bool:
    """Run one job in a folder of its own. After a step that failed, only those that always run do."""
    folder, started, good = run.scratch / name.replace(" ", "-"), time.monotonic(), True
    temp, steps = folder / "temp", {}
    temp.mkdir(parents=True)
    context = run.context(matrix=matrix, runner={"temp": str(temp)}, steps=steps)
    if not expressions.fill(spec.get("if", True), context):
        return False
    print(f"{name} ...", flush=True)
    for number, step in enumerate(spec["steps"]):
        if not _wanted(step, good, context):
            continue
        ended, said = one_step(run, step, spec, folder, context)
        steps[step.get("id", str(number))] = {"outputs": said}
        if not ended:
            print(f"  {name}: step '{step.get('name', step.get('uses', number))}' is red", flush=True)
        good = good and ended
    if outputs is not None:
        outputs |= expressions.fill(spec.get("outputs", {}), context)
    print(f"{name}: {_word(good)} ({time.monotonic() - started:.0f} s)", flush=True)
    return good


def _wanted(step: Mapping[str, Any], good: bool, context: dict[str, Any]) -> bool:
    """A step runs while all before it are well, or always; and only where its own condition holds."""
    told = str(step.get("if", ""))
    condition = told.removeprefix("${{").removesuffix("}}").strip()
    return (good or "always()" in told) and (not condition or bool(expressions.evaluate(condition, context)))


def one_step(
    run: Run, step: Mapping[str, Any], spec: Mapping[str, Any], folder: Path, context: dict[str, Any]
) -> tuple[bool, dict[str, str]]:
    """(whether it ended well, what it wrote to $GITHUB_OUTPUT)."""
    if "uses" in step:
        return action(run, step["uses"].partition("@")[0], expressions.fill(step.get("with", {}), context), folder), {}
    env = {**expressions.fill(spec.get("env", {}), context), **expressions.fill(step.get("env", {}), context)}
    files = {name: folder / "temp" / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    given = {key: expressions.text(value) for key, value in env.items()}
    given |= {"RUNNER_TEMP": str(folder / "temp"), **{name: str(path) for name, path in files.items()}}
    files["GITHUB_OUTPUT"].write_text("", encoding="utf-8")
    where = folder / "tree" if (folder / "tree").is_dir() else folder
    done = subprocess.run(
        [*GITHUB_SHELL, step["run"]], cwd=where, env={**os.environ, **run.shell, **given}, check=False
    )
    lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
    return done.returncode == 0, dict(line.split("=", 1) for line in lines if "=" in line)


def action(run: Run, name: str, given: Mapping[str, Any], folder: Path) -> bool:
    """Whether one of the three actions that the workflow uses went well. Another one is an error: none is left out."""
    store = run.scratch / "artifacts"
    if name == "actions/checkout":
        git(folder, "clone", "-q", "--no-checkout", str(run.port), "tree")
        git(folder / "tree", "fetch", "-q", "origin", SNAPSHOT)
        git(folder / "tree", "checkout", "-q", "--detach", "FETCH_HEAD")
    elif name == "actions/upload-artifact":
        if not any(file.is_file() for file in Path(given["path"]).rglob("*")):
            print(f"  nothing to upload at {given['path']}", flush=True)
            return given.get("if-no-files-found", "warn") != "error"
        shutil.copytree(given["path"], store / given["name"])
    elif name == "actions/download-artifact":
        for found in store.iterdir() if store.is_dir() else ():
            if fnmatch.fnmatch(found.name, given["pattern"]):
                shutil.copytree(found, Path(given["path"]) / found.name)
    else:
        raise SystemExit(f"dry run: the workflow uses {name}, which this driver does not know")
    return True


def keep(run: Run) -> None:
    """What GitHub would show of the run: artifacts, and each job's summary as JOB.md, in place of the last run's."""
    place = run.port / ".fvport" / "dry-run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / ".gitignore").write_text("*\n", encoding="utf-8")  # a clone of a port does not leave .fvport out by itself
    if (run.scratch / "artifacts").is_dir():
        shutil.copytree(run.scratch / "artifacts", place, dirs_exist_ok=True)
    for summary in run.scratch.glob("*/temp/github_step_summary"):
        shutil.copyfile(summary, place / f"{summary.parent.parent.name}.md")
    print(f"dry run: artifacts and summaries are in {place}", flush=True)


# --- the port as it is now -------------------------------------------------------------------------------------------


def snapshot(port: Path) -> str:
    """A commit of what the port holds now: HEAD where all is committed, else one that no branch has.

    It is made with an index of its own: branch, index and files stay as they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "GIT_INDEX_FILE": str(Path(folder, "index"))}
        git(port, "read-tree", "HEAD", env=env)
        git(port, "add", "--all", env=env)
        tree = git(port, "write-tree", env=env)
    commit = git(port, "rev-parse", "HEAD")
    if tree != git(port, "rev-parse", "HEAD^{tree}"):
        commit = _uncommitted(port, tree)
        print(f"dry run: gates what is not committed too, as {commit[:12]}, which is on no branch")
    git(port, "update-ref", SNAPSHOT, commit)
    return commit


def _uncommitted(port: Path, tree: str) -> str:
    who = ["-c", "user.name=dry run", "-c", "user.email=dry-run@localhost"]
    return git(port, *who, "commit-tree", tree, "-p", "HEAD", "-m", "What the dry run gates")


def git(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, env=dict(env or os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"dry run: git {words[0]} in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
