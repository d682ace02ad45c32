# SPDX-License-Identifier: Apache-2.0
"""Bakes that must fail: one sentence, the right exit code, nothing written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bake_helpers import REPO, WAN, answers, bake, release

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.scaffold import facts, new, validate

SLUGS = {
    "../evil": "no slug",
    "/evil": "no slug",
    "My-Model": "no slug",
    "": "no slug",
    "x": "no slug",
    "a__b": "no slug",
    "_a": "no slug",
    "9lives": "no slug",
    "a" * 41: "no slug",
    "sl\nug": "no slug",
    "münchen": "no slug",
    "{{ 7*7 }}": "no slug",
    "class": "Python keyword",
    "match": "Python keyword",
    "wan": 'model family "wan"',
    "hunyuan": 'model family "hunyuan"',
    "wanvideo": 'module "wanvideo"',
    "causal_wan": "CausalWanTransformer3DModel",
}


def refused(out: Path, kind: type[FvportError], words: str, **given: str) -> str:
    """Assert that a bake is refused with these words and that nothing was written; the sentence."""
    with pytest.raises(kind) as error:
        bake(out, **given)
    assert words in str(error.value)
    assert not out.exists() or not list(out.iterdir())
    return str(error.value)


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(release(tmp_path_factory.mktemp("official") / "wan"))


@pytest.mark.parametrize("slug", SLUGS)
def test_bad_slug(tmp_path: Path, wan: str, slug: str) -> None:
    """A slug that cannot name files, or that FastVideo has, is refused before anything is written."""
    sentence = refused(tmp_path / "out", UsageError, SLUGS[slug], model_slug=slug, official_weights=wan)
    assert sentence.startswith("model_slug: ")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"components": "transformer=prot"}, 'Did you mean "port"?'),
        ({"components": "transfromer=port"}, 'Did you mean "transformer"?'),
        ({"components": "transformer"}, "name=mode"),
        ({"components": "vae=port,vae=reuse"}, "two modes"),
        ({"components": "tokenizer=port"}, "it is copied"),
        ({"model_name": "  "}, "model_name: is empty"),
        ({"official_commit": "abc1234"}, "without official_repo"),
        ({"official_repo": "https://example.org/x", "official_commit": "main"}, "is no commit"),
        ({"fastvideo": "latest"}, "no version, path or URL"),
        ({"workload_type": "t2x"}, "Did you mean"),
        ({"gate_device": "cudo"}, 'Did you mean "cuda"?'),
    ],
)
def test_bad_answer(tmp_path: Path, wan: str, given: dict[str, str], words: str) -> None:
    """A wrong value is named with its key, and a near word is suggested."""
    refused(tmp_path / "out", UsageError, words, **{"official_weights": wan, **given})


def test_reuse_of_what_fastvideo_has_not(tmp_path: Path) -> None:
    """`reuse` is refused where FastVideo registers no class of that name."""
    parts = {**WAN, "transformer": ("diffusers", "NewTransformer3DModel", {"a": 1}, {"a": (1,)})}
    folder = release(tmp_path / "w", components=parts)
    given = {"official_weights": str(folder), "components": "transformer=reuse"}
    refused(
        tmp_path / "out",
        UsageError,
        "FastVideo registers no class with a config for diffusers:NewTransformer3DModel",
        **given,
    )


@pytest.mark.parametrize("path", ["./nothing", "no_such_folder", "a/b/c", "/nowhere/at/all", "x/inspection.json"])
def test_missing_checkpoint_is_blocked(tmp_path: Path, path: str) -> None:
    """A path-like value with nothing there is a missing asset (exit 3), not a hub id."""
    refused(tmp_path / "out", BlockedError, "there is no checkpoint", official_weights=path)


def test_a_folder_that_is_there_makes_the_rest_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`build/nothing` is a path where `build` is a folder, and a hub id elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    refused(tmp_path / "out", BlockedError, "there is no checkpoint", official_weights="build/nothing")
    assert validate.weights("build/nothing", tmp_path / "out") == ("build/nothing", None)


def test_broken_checkpoint_is_named(tmp_path: Path) -> None:
    """A truncated safetensors file is named in one sentence."""
    folder = release(tmp_path / "w")
    file = folder / "transformer" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FvportError, match="safetensors"):
        bake(tmp_path / "out", official_weights=str(folder))
    assert not (tmp_path / "out").exists()


def test_not_an_inspection(tmp_path: Path) -> None:
    """A JSON file that is no inspection is refused as such."""
    (tmp_path / "inspection.json").write_text("{}")
    refused(tmp_path / "out", UsageError, "is not an inspection", official_weights=str(tmp_path / "inspection.json"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["modle_slug=x"], 'unknown key "modle_slug"'),
        (["modle_slug=x"], 'Did you mean "model_slug"?'),
        (["model_name"], "is not key=value"),
        (["model_name=a", "model_name=b"], "given twice"),
        (["__prefix=Evil"], "unknown key"),
        (["_extensions=x"], "unknown key"),
    ],
)
def test_words_that_are_no_answers(words: list[str], sentence: str) -> None:
    """`fvport new` refuses what is no key of the template, private keys too."""
    with pytest.raises(UsageError) as error:
        new.parse(words)
    assert sentence in str(error.value)


def test_existing_folder_is_never_overwritten(tmp_path: Path, wan: str) -> None:
    """A second bake at the same place stops and leaves the first as it is."""
    root = bake(tmp_path, official_weights=wan)
    (root / "Makefile").write_text("mine\n")
    with pytest.raises(UsageError, match="already exists"):
        bake(tmp_path, official_weights=wan)
    assert (root / "Makefile").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [(["model_slug=../evil"], 2), (["modle=x"], 2), (["official_weights=./nothing"], 3), (["model_slug=wan"], 2)],
)
def test_exit_codes_and_same_words(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, words: list[str], code: int
) -> None:
    """The command line ends with the contract's exit code, says one sentence, and cookiecutter says the same words."""
    command = [sys.executable, "-m", "fvport.cli", "new", "--no-input", "--output-dir", "out", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    if words[0].startswith("modle"):
        return  # cookiecutter itself ignores unknown keys
    other = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", "-o", "out", str(REPO), *words]
    home = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    plain = subprocess.run(other, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
    assert plain.returncode == 1
    assert re.sub(r" \[E\d{4}\]$", "", done.stderr.strip().removeprefix("fvport: ")) in plain.stdout
    assert not list(tmp_path.iterdir())


def test_json_error(tmp_path: Path) -> None:
    """With --json the refusal is a JSON document."""
    command = [sys.executable, "-m", "fvport.cli", "new", "--no-input", "--json", "model_slug=wan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["exit_code"] == 2


def test_every_family_is_refused() -> None:
    """Every family and module of FastVideo's tree is refused as a slug."""
    known = facts.fastvideo()
    for name in {*known["families"], *known["modules"]}:
        with pytest.raises(UsageError):
            validate.slug(name)


def test_answers_are_complete() -> None:
    """The template's public questions are the ones that the validator knows."""
    assert tuple(new.keys()) == (*validate.KEYS, *validate.GIVEN)
    assert dict(word.split("=", 1) for word in answers())["gate_device"] == "cpu"
