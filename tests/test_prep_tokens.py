# SPDX-License-Identifier: Apache-2.0
"""No token is ever said or kept: they are planted, every way of failing is walked, all words and files are searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prep_support import REPO, files_of, repository, serve
from weights_support import PORT, make_port, release

from fvport.redact import redact

PLANTED = {
    "HF_TOKEN": "hf_PLANTEDplantedPLANTEDplanted",
    "HUGGING_FACE_HUB_TOKEN": "hf_SECONDsecondSECONDsecond",
    "HF_API_KEY": "hf_THIRDthirdTHIRDthird",
    "GITHUB_TOKEN": "ghp_FOURTHfourthFOURTHfourthFOURTHfour",
    "WANDB_API_KEY": "fifthFIFTHfifth/FIFTH+fifth",
    "UV_INDEX_PRIVATE_PASSWORD": "sixthSIXTHsixth",
}
ADDRESS_SECRET = "seventhSEVENTHseventh"
SECRETS = [*PLANTED.values(), "fifthFIFTHfifth%2FFIFTH%2Bfifth", ADDRESS_SECRET]
LEAKY = """import os, sys
for name, value in os.environ.items():
    print(name, value)
    print(name, value, file=sys.stderr)
raise ValueError(" ".join(os.environ.values()) + " https://user:seventh" "SEVENTHseventh@example.org/x?token=y")
"""


def run(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """fvport in a process of its own, with every planted token in its environment."""
    command = [sys.executable, "-m", "fvport.cli", *words, "--port", str(root)]
    return subprocess.run(command, env=os.environ | PLANTED | env, capture_output=True, text=True, check=False)


def nothing_said(done: subprocess.CompletedProcess[str], root: Path) -> None:
    """No planted secret in the output, nor in any file below the port."""
    said = {"stdout": done.stdout, "stderr": done.stderr}
    for file in root.rglob("*"):
        if file.is_file():
            said[str(file)] = file.read_bytes().decode("utf-8", errors="replace")
    found = [(where, secret[:4]) for where, text in said.items() for secret in SECRETS if secret in text]
    assert found == []


def port_at(root: Path, old: str = "", new: str = "") -> Path:
    return make_port(root, PORT.replace(old, new)).root


HUB = ('weights = "official_weights/demo"', f'weights = "{REPO}"')


def from_hub(root: Path) -> Path:
    """A port whose release has to be fetched."""
    port_at(root, *HUB)
    (root / "official_weights").rename(root.parent / f"away-{root.name}")
    return root


REFUSALS = {
    "gated": (403, "GatedRepo"),
    "wrong token": (401, ""),
    "private": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "broken": (500, ""),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_hub_that_repeats_the_token(tmp_path, name):
    """The hub refuses and its answer repeats the Authorization header: exit 3, one sentence, no token."""
    root = from_hub(tmp_path / "port")
    with serve({"a": b"x"}) as hub:
        hub.refuse = REFUSALS[name]
        done = run(root, "prep", HF_ENDPOINT=hub.address)
        assert any(PLANTED["HF_TOKEN"] in auth for _, _, _, auth in hub.log)  # it was really sent
    assert done.returncode == 3, done.stderr
    assert "HF_TOKEN" in done.stderr or name in ("no revision", "broken")
    nothing_said(done, root)


def test_a_release_that_arrives(tmp_path):
    """A fetch that succeeds, with --json: one document, the variable's name in the handoff block, no value anywhere."""
    root = from_hub(tmp_path / "port")
    with serve(files_of(release(tmp_path / "hub"))) as hub:
        done = run(root, "prep", "--json", HF_ENDPOINT=hub.address)
    assert done.returncode == 3, done.stderr  # diffusers has no class FlowScheduler: the import check says so
    assert (root / "official_weights/demo/model_index.json").is_file()
    again = run(root, "handoff", "prep", "--json")
    assert json.loads(again.stdout)["hf_token_env"] == "HF_TOKEN"
    nothing_said(done, root)
    nothing_said(again, root)


def test_offline(tmp_path):
    """Nobody answers, and offline mode: exit 3 without a token."""
    root = from_hub(tmp_path / "port")
    for env in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        done = run(root, "prep", **env)
        assert done.returncode == 3
        assert f"hf download {REPO}" in done.stderr
        nothing_said(done, root)


def test_git_that_is_told_a_token(tmp_path):
    """git's configuration puts a token into the address (insteadOf), and git repeats it in its complaint."""
    official = f'repo = "https://code.invalid/m"\ncommit = "{"1" * 40}"'
    root = port_at(tmp_path / "port", 'library = "diffusers"', official)
    rewrite = f"url.http://user:{ADDRESS_SECRET}@127.0.0.1:9/.insteadOf"
    done = run(root, "prep", GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0=rewrite, GIT_CONFIG_VALUE_0="https://code.invalid/")
    assert done.returncode == 3
    assert "could not be cloned" in done.stderr
    nothing_said(done, root)


def test_official_code_that_prints_its_environment(tmp_path):
    """The official code prints all it sees when imported, and raises with it: neither is kept nor shown."""
    commit = repository(tmp_path / "leaky", {"leaky.py": LEAKY})
    root = port_at(tmp_path / "port", 'library = "diffusers"', f'repo = "../leaky"\ncommit = "{commit}"')
    (root / "tests/local_tests/demo/oracle.py").write_text("import leaky\n")
    done = run(root, "prep")
    assert done.returncode == 3
    assert "leaky.py:5: ValueError" in done.stderr
    nothing_said(done, root)


def test_uv_that_is_told_a_token(tmp_path):
    """The oracle's lock names an index with a password, which uv repeats in its complaint."""
    root = port_at(tmp_path / "port", 'library = "diffusers"', 'library = "diffusers"\nrequirements = "own.lock"')
    address = f"http://user:{ADDRESS_SECRET}@127.0.0.1:9/simple"
    (root / "own.lock").write_text("nothing-like-it==1\n")
    done = run(root, "prep", UV_DEFAULT_INDEX=address, UV_HTTP_TIMEOUT="1", UV_HTTP_RETRIES="0")
    assert done.returncode == 3
    assert "uv could not make" in done.stderr
    nothing_said(done, root)


WORDS = {
    "a value": ("it said hf_PLANTEDplantedPLANTEDplanted twice", "it said $HF_TOKEN twice"),
    "quoted": ("?k=1 fifthFIFTHfifth%2FFIFTH%2Bfifth", "?k=1 $WANDB_API_KEY"),
    "an address": ("at https://u:p@x.org/a/b?token=1&x=2 now", "at https://x.org/a/b?... now"),
    "a user alone": ("git@x.org:a/b and ssh://me@x.org/a", "git@x.org:a/b and ssh://x.org/a"),
    "another's token": ("hf_abcdefghijkl", "hf_..."),
    "plain": ("a word, a path/to.py:3", "a word, a path/to.py:3"),
}


@pytest.mark.parametrize("name", WORDS)
def test_redacted_words(monkeypatch, name):
    """What is taken out of other programs' words, and that the rest stays."""
    for key, value in PLANTED.items():
        monkeypatch.setenv(key, value)
    given, wanted = WORDS[name]
    assert redact(given) == wanted
