# SPDX-License-Identifier: Apache-2.0
"""Releases from the hub: huggingface_hub's own code against a small server on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from prep_support import REPO, SHA, files_of, serve
from weights_support import PORT, make_port, release

from fvport import evidence as ev
from fvport import spec
from fvport.errors import BlockedError
from fvport.weights import fetch, lockfile, prep

HUB_PORT = PORT.replace('weights = "official_weights/demo"', f'weights = "{REPO}"')
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the release of the demo port on it, which huggingface_hub takes for the real one."""
    import huggingface_hub.file_download
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 128)  # what the client writes at once: the files are small
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)
    with serve(files_of(release(tmp_path / "hub"))) as found:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, found.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        yield found


@pytest.fixture
def port(tmp_path, hub):
    made = make_port(tmp_path / "port", HUB_PORT)
    shutil.rmtree(tmp_path / "port/official_weights")
    return made


def change(port: spec.Port, old: str, new: str) -> spec.Port:
    port.file.write_text(port.file.read_text("utf-8").replace(old, new), "utf-8")
    return spec.load(port.root)


def test_a_release_is_fetched_hashed_as_it_streams_and_locked(hub, port, monkeypatch):
    """Every file arrives, none is read a second time for its hash, and the lock says which commit it was."""
    monkeypatch.setattr(lockfile, "blake3", lambda *_: pytest.fail("read again"))
    result = prep.run(port)
    assert files_of(port.official_weights).items() >= hub.files.items()
    lock = ev.lock(port)
    assert lock["source"] == {
        "kind": "hub", "id": REPO, "revision": "main", "commit": SHA, "allow": [], "ignore": []
    }  # fmt: skip
    assert result.load_tree == "converted_weights/demo"
    monkeypatch.undo()
    locked = {file["name"]: file["blake3"] for entry in lock["components"].values() for file in entry["files"]}
    assert locked == {name: lockfile.blake3(port.official_weights / name, name) for name in locked}


def test_the_second_run_needs_no_network(hub, port):
    """What is fetched is fetched: another run asks the hub nothing."""
    prep.run(port)
    hub.log.clear()
    assert prep.run(port).changed == []
    assert hub.log == []


def test_a_cut_line_is_taken_up_again(hub, port):
    """A connection that ends halfway is continued from that byte, and the hash is that of the whole file."""
    hub.cuts[WEIGHTS] = 2
    prep.run(port)
    spans = hub.gets(WEIGHTS)
    assert spans[0] == ""
    assert len(spans) == 3
    assert all(span.startswith("bytes=") for span in spans[1:])
    assert (port.official_weights / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    lockfile.Hashes(port).path.unlink()  # read all of it again
    prep.verify(port)


def test_an_interrupted_run_is_continued(hub, port):
    """What a failed run had is kept: the next one fetches the rest of the file and no file twice."""
    hub.cuts[WEIGHTS] = 100
    with pytest.raises(BlockedError, match=r"kept.*fvport prep") as caught:
        prep.run(port)
    assert caught.value.exit_code == 3
    assert not port.official_weights.exists()
    kept = sum(f.stat().st_size for f in port.official_weights.parent.rglob("*.incomplete"))
    assert 0 < kept < len(hub.files[WEIGHTS])
    hub.cuts.clear()
    hub.log.clear()
    prep.run(port)
    assert hub.gets(WEIGHTS) == [f"bytes={kept}-"]
    assert (port.official_weights / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not list(port.official_weights.parent.rglob("*.incomplete"))
    lockfile.Hashes(port).path.unlink()
    prep.verify(port)


def test_a_part_of_another_file_is_not_continued(hub, port):
    """When the file has changed on the hub, its part is left behind, not appended to."""
    hub.cuts[WEIGHTS] = 100
    with pytest.raises(BlockedError):
        prep.run(port)
    hub.cuts.clear()
    hub.files[WEIGHTS] = hub.files[WEIGHTS][:-1] + b"\x01"
    prep.run(port)
    assert (port.official_weights / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_server_that_cannot_resume(hub, port):
    """A server that ignores Range sends the file again from its beginning, and the hash begins again too."""
    hub.ranges, hub.cuts[WEIGHTS] = False, 1
    prep.run(port)
    assert (port.official_weights / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    lockfile.Hashes(port).path.unlink()
    prep.verify(port)


def test_allow_and_ignore(hub, port):
    """Only what the patterns leave is fetched; wider patterns later fetch what is missing and nothing else."""
    hub.files |= {"extra/big.bin": b"x" * 99, "notes.md": b"n"}
    port = change(port, f'weights = "{REPO}"', f'weights = "{REPO}"\nignore = ["extra/*", "*.md"]')
    prep.run(port)
    assert "extra/big.bin" not in files_of(port.official_weights)
    assert "extra/big.bin" not in {path.partition("/resolve/")[2] for _, path, _, _ in hub.log}
    hub.log.clear()
    port = change(port, 'ignore = ["extra/*", "*.md"]', 'ignore = ["*.md"]')
    prep.run(port)
    assert {path.rpartition("/resolve/")[2] for m, path, _, _ in hub.log if m == "GET" and "/resolve/" in path} == {
        f"{SHA}/extra/big.bin"
    }
    assert ev.lock(port)["source"]["ignore"] == ["*.md"]


def test_patterns_that_leave_nothing(hub, port):
    """Patterns that no file fits are told, not an empty release made."""
    port = change(port, f'weights = "{REPO}"', f'weights = "{REPO}"\nallow = ["nothing/*"]')
    with pytest.raises(BlockedError, match=r"official\.allow and official\.ignore leave none"):
        prep.run(port)
    assert not port.official_weights.exists()


REFUSALS = {
    "gated": ((403, "GatedRepo"), r"is gated, and no token is set.*HF_TOKEN.*hf download org/name --revision main"),
    "unknown": ((404, "RepoNotFound"), r"is not on the hub, or is private.*HF_TOKEN"),
    "unauthorised": ((401, ""), r"(is not on the hub|refused).*HF_TOKEN"),
    "forbidden": ((403, ""), r"refused .*403.*HF_TOKEN"),
    "broken": ((500, ""), r"could not be fetched \(HfHubHTTPError 500\).*fvport prep.*hf download"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_told(hub, port, name):
    """Each refusal is one sentence with its cause, what to set by name, and the command; nothing is left half-made."""
    hub.refuse, words = REFUSALS[name]
    with pytest.raises(BlockedError, match=words) as caught:
        prep.run(port)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not port.official_weights.exists()


def test_a_token_without_access(hub, port, monkeypatch):
    """With a token the sentence names the variable that it came from, and never its value."""
    monkeypatch.setenv("HF_TOKEN", "hf_plantedplantedplanted")
    hub.refuse = (403, "GatedRepo")
    with pytest.raises(BlockedError, match="the token in HF_TOKEN has no access") as caught:
        prep.run(port)
    assert "planted" not in str(caught.value)
    assert hub.log[0][3] == "Bearer hf_plantedplantedplanted"  # it was sent, by the hub's client


def test_a_variable_that_the_client_does_not_read_is_named(hub, port, monkeypatch):
    """HF_API_KEY is in use elsewhere; huggingface_hub does not read it, which is said in place of a riddle."""
    monkeypatch.setenv("HF_API_KEY", "hf_plantedplantedplanted")
    hub.refuse = (403, "GatedRepo")
    with pytest.raises(BlockedError, match=r'huggingface_hub does not read HF_API_KEY: export HF_TOKEN="\$HF_API_KEY"'):
        prep.run(port)


def test_a_missing_revision(hub, port):
    """A revision that the hub does not have is named."""
    with pytest.raises(BlockedError, match=r'org/name has no revision "v9".*official\.revision'):
        prep.run(change(port, f'weights = "{REPO}"', f'weights = "{REPO}"\nrevision = "v9"'))


def test_offline(hub, port, monkeypatch):
    """HF_HUB_OFFLINE, and a hub that nobody answers for: exit 3, and the command to run where there is a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BlockedError, match=r"HF_HUB_OFFLINE is set.*hf download org/name"):
        prep.run(port)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BlockedError, match=r"could not be fetched \(Connect\w+\).*hf download org/name"):
        prep.run(port)


def test_the_lock_pins_a_revision_that_moves(hub, port):
    """`main` has moved since the lock was made: another machine gets the locked commit, not the new one."""
    prep.run(port)
    shutil.rmtree(port.official_weights)
    hub.revisions["main"] = "b" * 40
    hub.log.clear()
    prep.run(port)
    assert {path.split("/revision/")[1] for _, path, _, _ in hub.log if "/revision/" in path} == {SHA}
    assert ev.lock(port)["source"]["commit"] == SHA


def test_another_commit_is_not_put_over_a_release(hub, port):
    """A folder that holds one commit of a release is not mixed with another one."""
    prep.run(port)
    hub.revisions["v2"] = "c" * 40
    port = change(port, f'weights = "{REPO}"', f'weights = "{REPO}"\nrevision = "v2"')
    with pytest.raises(BlockedError, match=f"holds org/name at {SHA}.*Move it away"):
        prep.run(port)
    assert (port.official_weights / WEIGHTS).is_file()


@pytest.mark.parametrize("name", ["../outside.bin", "/absolute.bin", ".cache/fvport/fetched.json", "a\\..\\b"])
def test_a_file_that_would_lie_outside(hub, port, name):
    """A listing that names a place outside the release's folder is refused before anything is written."""
    hub.files[name] = b"x"
    with pytest.raises(BlockedError, match="outside its folder"):
        prep.run(port)
    assert not (port.root / "official_weights/outside.bin").exists()


def test_no_room(hub, port, monkeypatch):
    """Too small a disk is told with figures before the first byte."""
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(BlockedError, match=r"needs [\d.]+ K?B more, and the disk has 1\.0 KB free"):
        prep.run(port)
    assert hub.gets(WEIGHTS) == []


def test_the_token_stays_with_the_hub(hub, port, monkeypatch):
    """Bytes that another host serves are fetched without the token."""
    monkeypatch.setenv("HF_TOKEN", "hf_plantedplantedplanted")
    hub.elsewhere = hub.address.replace("127.0.0.1", "localhost")
    prep.run(port)
    served = [auth for method, path, _, auth in hub.log if method == "GET" and path.startswith("/elsewhere/")]
    assert served
    assert set(served) == {""}


def test_a_wrong_length_is_not_kept(hub, port, monkeypatch):
    """Bytes that are more or fewer than the hub's metadata says are not taken for the file."""
    import huggingface_hub.file_download

    real = huggingface_hub.file_download.http_get

    def short(url, stream, **more):
        real(url, stream, **more)
        stream.write(b"more")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", short)
    with pytest.raises(BlockedError, match=r"came with \d+ bytes, the hub says \d+"):
        prep.run(port)
    assert not port.official_weights.exists()


def test_a_folder_of_the_users_own_is_taken_as_it_is(hub, port, tmp_path):
    """A link to a local copy where the hub's release would go: recorded in place, nothing is fetched."""
    port.official_weights.parent.mkdir(parents=True)
    port.official_weights.symlink_to(release(tmp_path / "mine"))
    meta = tmp_path / "mine/.cache/huggingface/download/model_index.json.metadata"
    meta.parent.mkdir(parents=True)
    meta.write_text(f"{'d' * 40}\netag\n1.0\n")  # as `hf download --local-dir` leaves it
    prep.run(port)
    assert hub.log == []
    assert ev.lock(port)["source"]["commit"] == "d" * 40
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(BlockedError, match="link to a folder that is not there"):
        prep.run(port)


def test_the_marker_says_what_was_fetched(hub, port):
    """The folder itself records hub id, revision, commit and patterns, in a hidden place that no lock counts."""
    prep.run(port)
    marker = json.loads((port.official_weights / fetch.MARKER).read_text("utf-8"))
    assert marker == {"hub_id": REPO, "revision": "main", "commit": SHA, "allow": [], "ignore": []}
    names = [file["name"] for entry in ev.lock(port)["components"].values() for file in entry["files"]]
    assert not any(Path(name).parts[0].startswith(".") for name in names)
