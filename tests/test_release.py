# SPDX-License-Identifier: Apache-2.0
"""`nox -s release_check`: what is wrong with a release is named. The whole session runs before a release."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ci import release


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and sdist of this checkout."""
    return release.build(target=tmp_path_factory.mktemp("dist"))


def without(wheel: Path, lacking: str, target: Path) -> Path:
    """The wheel without the files, or the metadata lines, whose text begins so."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target / wheel.name, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("METADATA"):
                data = b"\n".join(line for line in data.split(b"\n") if not line.startswith(lacking.encode()))
            if lacking not in name:
                new.writestr(name, data)
    return target / wheel.name


def test_what_is_built_is_whole(built: tuple[Path, Path]) -> None:
    """Metadata, licence, template and the mark of a typed package are there; one version everywhere."""
    release.metadata(*built)
    release.version(built[0], f"v{release.package_version()}")


@pytest.mark.parametrize(
    "lacking", ["License-Expression", "Summary", "fvport/py.typed", "noxfile.py", "licenses/LICENSE"]
)
def test_what_the_wheel_lacks_is_named(built: tuple[Path, Path], lacking: str, tmp_path: Path) -> None:
    """Each part taken out in turn is an error about that part."""
    with pytest.raises(release.Wrong, match=lacking.rpartition("/")[2] if "LICENSE" not in lacking else "licence"):
        release.metadata(without(built[0], lacking, tmp_path), built[1])


def test_another_tag_than_ports_pin_is_refused(built: tuple[Path, Path]) -> None:
    """A tag that is not the version that generated ports install from."""
    with pytest.raises(release.Wrong, match="ports pin"):
        release.version(built[0], "v9.9.9")


def test_an_old_changelog_is_refused(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The newest entry has to be the version's."""
    (tmp_path / "src" / "fvport").mkdir(parents=True)
    (tmp_path / "src" / "fvport" / "__init__.py").write_text(f'__version__ = "{release.package_version()}"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.0.1\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(release.Wrong, match=r"CHANGELOG.md begins with 0\.0\.1"):
        release.version(built[0], "")


def test_another_byte_or_file_is_a_difference(tmp_path: Path) -> None:
    """Two trees differ by a file that one lacks, and by a byte."""
    for name, text in (("one", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    (tmp_path / "one" / "more").touch()
    assert list(release.differences(tmp_path / "one", tmp_path / "other")) == ["more", "file"]
