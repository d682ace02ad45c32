# SPDX-License-Identifier: Apache-2.0
"""Can the official side be imported? Asked of a child process; stand-ins for what nobody outside has."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from prep_support import repository
from weights_support import PORT, make_port

from fvport import spec
from fvport.errors import BlockedError, UsageError
from fvport.models import official_import
from fvport.parity import oracle
from fvport.report import handoff
from fvport.weights import prep
from fvport.workspace import oracle_env, tree, upstream

PRIVATE = {
    "model/__init__.py": "from model.net import Net\n",
    "model/net.py": """import json
import inhouse_kernels as ik
from inhouse_logging.pretty import log
from model.layers import Layer

try:
    import fancy_extra
except ImportError:
    fancy_extra = None


@ik.fuse
class Net(ik.Module):
    KIND = ik.kinds["net"] | None

    @log.timed(level=3)
    def forward(self, x):
        import lazy_one
        return x


def hello():
    return "hello"
""",
    "model/layers.py": "from model.secret_part import secret\n\n\nclass Layer:\n    pass\n",
}
OFFICIAL = 'official = "diffusers:WanTransformer3DModel"'
PARTS = ('official = "diffusers:FlowScheduler"', 'official = "oracle:build_scheduler"')


def make(root: Path, files: dict[str, str], oracle_text: str, more: str = "") -> spec.Port:
    """A port with official code in a repository; nothing of the port imports diffusers, so that a child is quick."""
    commit = repository(root / "model_repo_source", files)
    text = PORT.replace('library = "diffusers"', f'repo = "../model_repo_source"\ncommit = "{commit}"{more}')
    text = text.replace(OFFICIAL, 'official = "oracle:build_transformer"').replace(*PARTS)
    port = make_port(root / "port", text)
    (port.folder / "oracle.py").write_text(oracle_text, encoding="utf-8")
    for name in ("PORT_STATUS.md", "README.md"):
        block = "prep" if name.startswith("PORT") else "environment"
        words = f"# x\n\n<!-- fvport:begin {block} -->\nold\n<!-- fvport:end {block} -->\n\nkept\n"
        (port.folder / name).write_text(words, encoding="utf-8")
    return port


def test_code_that_imports(tmp_path):
    """imports_ok: the clone is on the path, an optional package that is missing is not missing."""
    files = {"model.py": "try:\n    import fancy_extra\nexcept ImportError:\n    fancy_extra = None\n"}
    port = make(tmp_path, files, "def build():\n    from model import fancy_extra\n    import json\n")
    result = prep.whole(port)
    assert result.official_env["status"] == "imports_ok"
    assert result.official_env["versions"]["model"][1].endswith("model_repo_source/model.py")
    assert not upstream.file_of(port).exists()
    assert "| status | imports_ok |" in (port.folder / "README.md").read_text()
    assert "| official_env_status | imports_ok |" in (port.folder / "PORT_STATUS.md").read_text()
    assert (port.folder / "README.md").read_text().endswith("\nkept\n")
    assert handoff.block(port, "prep")["official_env_status"] == "imports_ok"


def test_every_missing_module_is_found(tmp_path):
    """Not only the first: two packages and one part of the clone, each with its place; stand-ins are written."""
    port = make(tmp_path, PRIVATE, "from model import Net\n")
    env = prep.whole(port).official_env
    assert env["status"] == "private_deps_need_stubs"
    assert {entry["module"]: entry["where"] for entry in env["missing"]} == {
        "inhouse_kernels": "model/net.py:2",
        "inhouse_logging": "model/net.py:3",
        "model.secret_part": "model/layers.py:1",
    }
    assert env["late"] == [{"module": "lazy_one", "where": "model/net.py:18"}]
    assert env["added"] == ["inhouse_kernels", "inhouse_logging", "model.secret_part"]
    helper = upstream.file_of(port)
    assert '    "inhouse_kernels",  # model/net.py:2\n' in helper.read_text()
    assert helper.relative_to(port.root).as_posix() in tree.port_files(port)
    block = handoff.block(port, "prep")
    assert block["official_env_status"] == "private_deps_need_stubs"
    assert "tests/local_tests/helpers/demo_upstream.py" in str(block["dependency_changes"])
    again = prep.whole(port).official_env
    assert (again["status"], again["missing"], again["added"]) == ("private_deps_need_stubs", [], [])
    assert again["stood_in"] == ["inhouse_kernels", "inhouse_logging", "model.secret_part"]


def test_a_helper_file_keeps_what_people_wrote(tmp_path):
    """Lines are added to the table; nothing else of the file changes, and a file without a table is told."""
    port = make(tmp_path, PRIVATE, "from model import Net\n")
    helper = upstream.file_of(port)
    helper.parent.mkdir(parents=True)
    helper.write_text(upstream.SOURCE.replace("STUBS = (\n", 'STUBS = (\n    "mine",  # by hand\n') + "\n# my words\n")
    prep.whole(port)
    assert upstream.names(helper) == ["mine", "inhouse_kernels", "inhouse_logging", "model.secret_part"]
    assert helper.read_text().endswith("\n# my words\n")
    helper.write_text("NAMES = ()\n")
    with pytest.raises(UsageError, match="no readable table STUBS"):
        prep.whole(port)


def test_a_stand_in_never_computes(tmp_path):
    """Decorators and base classes pass while importing; whatever runs afterwards raises with the module's name."""
    port = make(tmp_path, PRIVATE, "from model import Net\n")
    prep.whole(port)
    script = f"""
import sys, runpy
sys.path[:0] = [{str(port.import_root)!r}]
runpy.run_path({str(upstream.file_of(port))!r})["install"]()
import inhouse_kernels, model, model.net
assert model.net.hello() == "hello"
log = model.net.log
for use in (lambda: inhouse_kernels.matmul(1), lambda: model.Net(), lambda: bool(log), lambda: log[0], lambda: log(1)):
    try:
        use()
    except RuntimeError as error:
        assert "not installed" in str(error), error
    else:
        raise SystemExit("a stand-in was used")
print("held")
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "held\n", done.stderr


BLOCKED = {
    "a name that is gone": ("from json import nothing_like_it\n", "", r"ImportError: cannot import name"),
    "an error at import": ("import model\n", "raise ValueError('no GPU found')\n", r"model.py:1: ValueError: no GPU"),
    "a syntax error": ("import model\n", "def (\n", r"SyntaxError"),
    "fastvideo": ("import model\n", "import fastvideo\n", r"must not import fastvideo"),
    "a part of an installed package": ("import json.part_of_a_newer_json\n", "", r"json.*no such part"),
    "the official package itself": (
        "def build():\n    import not_installed_at_all\n",
        "",
        r"not_installed_at_all.*oracle",
    ),
    "an exit": ("import model\n", "import os\nos._exit(7)\n", r"ended the process with code 7"),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_code_that_does_not_import(tmp_path, name):
    """What no stand-in can help is `blocked`: the cause and the place in one sentence, exit 3, the lock written."""
    oracle_text, model, words = BLOCKED[name]
    port = make(tmp_path, {"model.py": model or "A = 1\n"}, oracle_text)
    with pytest.raises(BlockedError, match=words) as caught:
        prep.refuse_blocked(prep.whole(port))
    assert caught.value.exit_code == 3
    assert (port.folder / "port.lock.json").is_file()
    assert not upstream.file_of(port).exists()


def test_an_answer_holds_until_something_changes(tmp_path, monkeypatch):
    """An answer is kept by what decides it: another line of the clone asks again."""
    port = make(tmp_path, {"model.py": "A = 1\n"}, "import model\n")
    prep.whole(port)
    monkeypatch.setattr(official_import, "_ask", lambda *_: pytest.fail("asked again"))
    assert prep.whole(port).official_env["status"] == "imports_ok"
    (port.folder / "oracle.py").write_text("import model, json\n")
    assert official_import.remembered(port) is None


def test_secrets_do_not_reach_the_child(tmp_path, monkeypatch):
    """Somebody else's code is imported without tokens in its environment, and its words are cleaned of them."""
    monkeypatch.setenv("HF_TOKEN", "hf_plantedplanted")
    code = "import os\nraise ValueError(os.environ.get('HF_TOKEN', 'none there') + ' https://u:pw123456@x.org/a')\n"
    port = make(tmp_path, {"model.py": code}, "import model\n")
    env = prep.whole(port).official_env
    assert "none there https://x.org/a" in env["problems"][0]["words"]


@pytest.mark.slow
def test_the_oracle_uses_the_stand_ins(tmp_path):
    """oracle.py runs with the same stand-ins: it imports, what needs none of them works, the rest raises by name."""
    text = "from model import Net\nfrom model.net import hello\n\n\ndef greet():\n    return hello()\n\n\n"
    port = make(tmp_path, PRIVATE, text + "def build():\n    return Net()\n")
    prep.whole(port)
    assert oracle.call(port, "greet", []) == "hello"
    with pytest.raises(Exception, match="has a base class that is not installed"):
        oracle.call(port, "build", [])


# --- an environment of the oracle's own ------------------------------------------------------------------------------


def wheel(folder: Path, version: str) -> Path:
    """The smallest package that uv installs: one module."""
    path = folder / f"official_dep-{version}-py3-none-any.whl"
    info = f"official_dep-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("official_dep.py", f"VERSION = {version!r}\n")
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: official-dep\nVersion: {version}\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    return path


def test_an_environment_of_the_oracles_own(tmp_path, monkeypatch):
    """Built by uv from its lock, once; the import check runs in it; another lock builds it again."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    made = make(tmp_path, {"model.py": "import official_dep\n"}, "import model\n", '\nrequirements = "official.lock"')
    lock = made.root / "official.lock"
    with pytest.raises(UsageError, match=r"official\.lock is not there"):
        prep.run(made)
    lock.write_text(f"{wheel(tmp_path / 'wheels', '1.0')}\n")
    result = prep.whole(made)
    assert any("made now from official.lock" in note for note in result.notes)
    assert result.official_env["status"] == "imports_ok"
    assert "official_dep-1.0.dist-info" in str(list((made.state / "oracle-env/lib").rglob("*.dist-info")))
    assert "already made" in oracle_env.ensure(made)
    lock.write_text(f"{wheel(tmp_path / 'wheels', '2.0')}\n")
    assert "made now" in oracle_env.ensure(made)
    assert [p.name for p in (made.state / "oracle-env/lib").rglob("official_dep-*")] == ["official_dep-2.0.dist-info"]


def test_an_environment_that_cannot_be_made(tmp_path, monkeypatch):
    """uv's own words and the commands; without uv the commands alone; a folder of another kind is left alone."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    port = make(tmp_path, {"model.py": ""}, "import model\n", '\nrequirements = "official.lock"')
    (port.root / "official.lock").write_text("no-such-package-anywhere==9.9\n")
    with pytest.raises(
        BlockedError, match=r"uv could not make .*no-such-package-anywhere.*uv venv \.fvport/oracle-env"
    ):
        prep.run(port)
    monkeypatch.setattr(oracle_env.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BlockedError, match=r"needs uv, which is not installed.*uv pip install"):
        prep.run(port)
    other = port.state / "oracle-env"
    if other.exists():
        other.rename(tmp_path / "away")
    other.mkdir()
    (other / "mine").write_text("x")
    with pytest.raises(BlockedError, match="is there and is no environment"):
        prep.run(port)
    assert (other / "mine").read_text() == "x"
