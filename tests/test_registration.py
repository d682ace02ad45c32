# SPDX-License-Identifier: Apache-2.0
"""Registration: edits that keep a file's form, can be taken back to the byte, and are judged without an import."""

from __future__ import annotations

import ast
import importlib
import shutil
from pathlib import Path

import pytest
from workspace_helpers import INVENTORY, MATRIX, MKDOCS, make_port, small_fastvideo, snapshot, wheel_file

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.spec import Port
from fvport.workspace import docedit, names, pyedit, registration

REGISTRY = "fastvideo/registry.py"
LISTS = [
    b'__all__ = ["A"]\n',
    b'__all__ = ["A",]\n',
    b'__all__ = ["A", ]\n',
    b'__all__ = [ "A", "B" ]\n',
    b"__all__ = []\n",
    b'__all__ = [\n    "A",\n    "B",\n]\n',
    b'__all__ = [\n    "A",  # first\n    "B",  # last\n]\n',
    b'__all__ = [\n    "A", "B"\n]\n',
    b'__all__ = [\n    "A",\n    "B"  # no comma\n]\n',
    b'__all__ = [\n    "A",\n    "B"  # no comma\n    # the end\n]\n',
    b'__all__ = [\r\n    "A",\r\n    "B",\r\n]\r\n',
    b'__all__ = [\r\n    "A", "B"\r\n]\r\n',
    b'__all__ = (\n    "A",\n)',
    b'__all__ = ("A", )\n',
    b'__all__: list[str] = ["A"] # odd\n',
    b"\xef\xbb\xbf__all__ = [\n\t'A',\n]\n",
    b"__all__ = [\n" + b'    "' + b"A" * 108 + b'"\n]\n',
]


@pytest.fixture
def port(tmp_path: Path) -> Port:
    """A hand-made port on a small FastVideo tree."""
    small_fastvideo(tmp_path)
    return make_port(tmp_path)


def registry(port: Port) -> str:
    return (port.root / REGISTRY).read_text()


def whats(port: Port) -> list[str]:
    return [str(problem) for problem in registration.check(port.root, port)]


def change(port: Port, old: str, new: str, file: str = REGISTRY) -> None:
    path = port.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("data", LISTS)
def test_list_element_comes_and_goes_in_every_layout(data: bytes) -> None:
    """Elements are added to a list of any layout, and taking them back in any order gives the exact bytes."""
    one, two = pyedit.Element("__all__", '"One"'), pyedit.Element("__all__", '"Two"')
    first = pyedit.apply(one, data, "f")
    assert pyedit.apply(one, first, "f") == first
    both = pyedit.apply(two, first, "f")
    node = ast.parse(both.decode("utf-8-sig")).body[0]
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert list(ast.literal_eval(node.value))[-2:] == ["One", "Two"]  # type: ignore[arg-type]
    assert two.remove(both, "f") == first
    assert two.remove(one.remove(both, "f"), "f") == data
    assert (b"\r" in both) == (b"\r" in data)
    assert both.count(b"\n") == both.count(b"\r\n") or b"\r\n" not in data


@pytest.mark.parametrize(
    "data",
    [
        b"from pkg.a import A\nfrom pkg.b import (\n    B,\n)  # b\n\nx = 1\n",
        b'"""Doc."""\r\nfrom pkg.a import A\r\n',
        b"from pkg.a import A",
        b"from pkg.a import A\n# end",
    ],
)
def test_import_goes_after_the_last_of_its_kind(data: bytes) -> None:
    """The import lands on a line of its own after the last import of the package, and goes without a trace."""
    edit = pyedit.Import("pkg.mine", "Mine", r"pkg\.\w+")
    new = pyedit.apply(edit, data, "f")
    assert b"from pkg.mine import Mine" in new
    assert edit.remove(new, "f") == data


def test_long_import_is_wrapped() -> None:
    """An import beyond 120 columns is put in brackets."""
    edit = pyedit.Import("pkg." + "m" * 90, "N" * 30, r"pkg\.\w+")
    assert all(len(line) <= 120 for line in pyedit.apply(edit, b"from pkg.a import A\n", "f").splitlines())


def test_merged_import_is_not_torn_apart() -> None:
    """An import that a person merged with others is left alone with a clear sentence."""
    with pytest.raises(FvportError, match="merged with others"):
        pyedit.Import("pkg.a", "A", "pkg").remove(b"from pkg.a import A, B\n", "f.py")


def test_everything_is_registered_and_taken_back(port: Port) -> None:
    """Apply edits all files, a second apply edits none, check is content, and undo restores every byte."""
    before = snapshot(port.root)
    changes = registration.apply(port.root, port)
    assert not changes.notes
    assert len(changes.files) == 7
    assert not whats(port)
    after = snapshot(port.root)
    assert registration.apply(port.root, port).files == []
    assert snapshot(port.root) == after
    assert registration.undo(port.root, port).files == changes.files
    assert snapshot(port.root) == before
    assert registration.undo(port.root, port).files == []


def test_undo_works_without_the_record(port: Port) -> None:
    """A fresh clone of the branch has no record; the edits are found in the files themselves."""
    before = snapshot(port.root)
    registration.apply(port.root, port)
    shutil.rmtree(port.root / ".fvport")
    registration.undo(port.root, port)
    assert snapshot(port.root) == before


def test_two_ports_in_any_undo_order(port: Port) -> None:
    """A second port registers beside the first; undoing the first leaves the second whole, undoing both the bytes."""
    other = make_port(port.root, "big_wan")
    before = snapshot(port.root)
    registration.apply(port.root, port)
    one = snapshot(port.root)
    registration.apply(port.root, other)
    assert not whats(port)
    assert not whats(other)
    registration.undo(port.root, port)
    assert not whats(other)
    assert any("no register_configs block" in what for what in whats(port))
    registration.undo(port.root, other)
    assert snapshot(port.root) == before
    registration.apply(port.root, port)
    assert snapshot(port.root) == one


def test_crlf_files_stay_crlf(port: Port) -> None:
    """Files with CRLF get CRLF lines only, and come back byte for byte."""
    for path in (REGISTRY, "mkdocs.yml", "fastvideo/configs/models/dits/__init__.py"):
        file = port.root / path
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    before = snapshot(port.root)
    registration.apply(port.root, port)
    data = (port.root / REGISTRY).read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > before[REGISTRY].count(b"\n")
    registration.undo(port.root, port)
    assert snapshot(port.root) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (REGISTRY, "def _register_configs()", "def _other()", "no function _register_configs()"),
        (REGISTRY, "all_preset_groups = (", "all_preset_groups = tuple(", "no list or tuple all_preset_groups"),
        ("fastvideo/configs/models/dits/__init__.py", "__all__", "__some__", "no list or tuple __all__"),
        (REGISTRY, "def _register_presets", "def def", "is not valid Python"),
    ],
)
def test_missing_anchor_is_refused_and_nothing_is_written(port: Port, file: str, old: str, new: str, says: str) -> None:
    """An anchor that is not found is one sentence with the file's name, and no file of any kind is changed."""
    change(port, old, new, file)
    before = snapshot(port.root)
    with pytest.raises(FvportError) as caught:
        registration.apply(port.root, port)
    assert says in str(caught.value)
    assert file in str(caught.value)
    assert snapshot(port.root) == before
    assert any(says in what for what in whats(port))


def test_page_without_an_anchor_is_a_note(port: Port) -> None:
    """A docs page laid out otherwise does not stop the port: the row to add is named, and check does not ask."""
    (port.root / "docs/inference/support_matrix.md").write_text("# Nothing here\n")
    changes = registration.apply(port.root, port)
    assert len(changes.notes) == 1
    assert "Add by hand: | tiny_wan |" in changes.notes[0]
    assert not whats(port)


def test_tree_without_registry_is_blocked(tmp_path: Path) -> None:
    """Registration on a folder that is no FastVideo tree says to make the workspace."""
    port = make_port(tmp_path)
    with pytest.raises(BlockedError, match="fvport workspace"):
        registration.apply(tmp_path, port)
    assert any("is missing" in what for what in whats(port))


def test_docs_entries_have_their_form(port: Port) -> None:
    """Matrix row in family order, nav title quoted where YAML needs it, only the new field in the inventory."""
    yaml = __import__("yaml")
    registration.apply(port.root, port)
    matrix = (port.root / "docs/inference/support_matrix.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in matrix[4:7]] == ["cosmos", "tiny_wan", "wan"]
    nav = yaml.safe_load((port.root / "mkdocs.yml").read_text())["nav"][1]["Inference"]
    assert nav[2] == {"Tiny: TinyWan": "inference/tiny_wan.md"}
    text = (port.root / "docs/design/inference_schema_parity_inventory.yaml").read_text()
    owned = yaml.safe_load(text)["surfaces"]["pipeline_config_extensions"]["preset_owned"]
    assert list(owned) == ["expand_timesteps", "tiny_wan_extra"]
    assert "# a comment" in text


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (docedit.MatrixRow("aaa", "`x`", "T2V", "e"), MATRIX),
        (docedit.MatrixRow("zzz", "`x`", "T2V", "e"), MATRIX),
        (docedit.NavEntry("A: b", "inference/a.md"), MKDOCS),
        (docedit.InventoryField("new", "fastvideo.configs.pipelines.a.B"), INVENTORY),
    ],
)
def test_docs_edits_come_and_go(edit: pyedit.Edit, text: str) -> None:
    """Every docs edit is found again and goes without a trace, with either line ending."""
    for data in (text.encode(), text.replace("\n", "\r\n").encode()):
        assert edit.remove(pyedit.apply(edit, data, "f"), "f") == data


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name == "tinywanpipeline"', '"wanpipeline" in name', "is not exact"),
        ('name == "tinywanpipeline"', '"tinywan" in name', "is not exact"),
        ('name == "tinywanpipeline"', 'name == "tinywan"', 'no detector matches "tinywanpipeline"'),
        ('endswith("/converted_weights/tiny_wan")', 'endswith("tiny_wan")', "is not exact"),
        ('endswith("/official_weights/tiny_wan")', 'endswith("/other/tiny_wan")', 'no detector matches "official'),
        ('name == "tinywanpipeline"', '__import__("os").getcwd()', "not a plain comparison"),
        ('model_family="tiny_wan"', 'model_family="wan"', 'model_family must be "tiny_wan"'),
        ('default_preset="tiny_wan_default"', "default_preset=None", "default_preset must be"),
        ('        pipeline_cls_name="TinyWanPipeline",\n', "", "pipeline_cls_name must be"),
        ("types=(WorkloadType.T2V, ),\n        model_detectors=[\n            lambda name", "types=(),\n        model_detectors=[\n            lambda name", "workload_types must be ['t2v']"),  # noqa: E501
        ("        TINY_WAN_PRESETS,\n", "", "TINY_WAN_PRESETS is not in all_preset_groups"),
        ("ALL_PRESETS as TINY_WAN_PRESETS", "ALL_PRESETS as OTHER", "does not import ALL_PRESETS"),
        ("pipeline_config_cls=TinyWanPipelineConfig", "pipeline_config_cls=CosmosConfig", "no register_configs block"),
    ],
)  # fmt: skip
def test_check_finds_each_defect(port: Port, old: str, new: str, says: str) -> None:
    """Each defect of the block or of its surroundings is said, with the file and what to do."""
    registration.apply(port.root, port)
    change(port, old, new)
    found = [what for what in whats(port) if says in what]
    assert found, whats(port)
    assert found[0].startswith(REGISTRY)
    assert "fvport workspace" in found[0]


def test_check_finds_a_block_that_is_not_first(port: Port) -> None:
    """A block after another model's is red: FastVideo takes the first detector that matches."""
    registration.apply(port.root, port)
    text = registry(port)
    block = "\n".join(f"    {line}" for line in names.register_block(port, True)) + "\n"
    assert block in text
    moved = text.replace(block, "").replace("\n\n\ndef _register_presets", f"\n{block}\n\ndef _register_presets")
    (port.root / REGISTRY).write_text(moved)
    assert any("is not first: MMAudioV2AConfig" in what for what in whats(port))


def test_check_finds_a_missing_export(port: Port) -> None:
    """A config that its bucket does not export is red, and a reused component's config is not asked for."""
    registration.apply(port.root, port)
    change(port, ', "TinyWanConfig"', "", "fastvideo/configs/models/dits/__init__.py")
    assert [what.partition(":")[0] for what in whats(port)] == ["fastvideo/configs/models/dits/__init__.py"]


def test_hub_id_is_registered_once(tmp_path: Path) -> None:
    """A hub id gets a path and a detector for the hub's cache; one that FastVideo has stays FastVideo's."""
    small_fastvideo(tmp_path / "a")
    own = make_port(tmp_path / "a", weights="acme/Tiny-Wan")
    registration.apply(own.root, own)
    assert '"acme/Tiny-Wan",' in registry(own)
    assert '"models--acme--tiny-wan" in path.split("/")' in registry(own)
    assert not whats(own)
    small_fastvideo(tmp_path / "b")
    taken = make_port(tmp_path / "b", weights="Tongyi-MAI/Z-Image-Turbo")
    changes = registration.apply(taken.root, taken)
    assert any("registered by FastVideo already" in note for note in changes.notes)
    assert registry(taken).count('"Tongyi-MAI/Z-Image-Turbo"') == 1
    assert not whats(taken)


def test_slug_that_fastvideo_resolves_elsewhere_is_refused(tmp_path: Path) -> None:
    """A folder named as a registered hub id's last part never reaches a detector, so such a port is refused."""
    small_fastvideo(tmp_path)
    path = tmp_path / REGISTRY
    path.write_text(path.read_text().replace("Tongyi-MAI/Z-Image-Turbo", "Tongyi-MAI/tiny_wan"))
    port = make_port(tmp_path)
    with pytest.raises(UsageError, match="Tongyi-MAI/tiny_wan"):
        registration.apply(tmp_path, port)


def test_v2v_registers_with_no_workload(tmp_path: Path) -> None:
    """A workload that FastVideo has no word for registers with ()."""
    small_fastvideo(tmp_path)
    port = make_port(tmp_path, workload="v2v")
    registration.apply(tmp_path, port)
    assert "workload_types=(),\n        model_detectors=[\n            lambda name" in registry(port)
    assert not whats(port)


def test_result_is_formatted_as_fastvideo_formats(tmp_path: Path) -> None:
    """FastVideo's formatter (yapf, pep8, 120 columns) leaves the edited files of the real wheel as they are."""
    yapf = importlib.import_module("yapf.yapflib.yapf_api")
    small_fastvideo(tmp_path)
    port = make_port(tmp_path)
    for name in registration.apply(tmp_path, port).files:
        if name.endswith(".py"):
            text = (tmp_path / name).read_text()
            style = "{based_on_style: pep8, column_limit: 120}"
            assert yapf.FormatCode(text, style_config=style)[0] == text, name


def test_whole_registry_of_the_wheel(tmp_path: Path) -> None:
    """The real registry.py, whole, is edited and restored to the byte."""
    small_fastvideo(tmp_path)
    (tmp_path / REGISTRY).write_bytes(wheel_file(REGISTRY))
    port = make_port(tmp_path)
    registration.apply(tmp_path, port)
    assert not whats(port)
    registration.undo(tmp_path, port)
    assert (tmp_path / REGISTRY).read_bytes() == wheel_file(REGISTRY)
