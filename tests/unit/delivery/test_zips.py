"""Folders become zip files, off the training path."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mlwrap._delivery import zips

ZIPS = {"data/model.keras": "data/model.unzipped"}


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A stage with a folder of some files."""
    folder = tmp_path / "data/model.unzipped"
    (folder / "assets").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "assets/words.txt").write_text("a\nb\n")
    (folder / "model.weights.h5").write_bytes(bytes(5_000_000))
    return tmp_path


def test_a_folder_becomes_a_file(staged: Path):
    """Uncompressed, of all files, readable by its owner alone; and the folder is gone."""
    zips.zip_folders(staged, ZIPS)
    assert [path.name for path in (staged / "data").iterdir()] == ["model.keras"]
    file = staged / "data/model.keras"
    assert file.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["assets/words.txt", "config.json", "model.weights.h5"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("assets/words.txt") == b"a\nb\n"


def test_the_same_files_are_the_same_bytes(staged: Path, tmp_path: Path):
    """Whenever it is done, so that a manifest made again says the same."""
    made = []
    for _ in range(2):
        zips.zip_folders(staged, ZIPS)
        made.append((staged / "data/model.keras").read_bytes())
        with zipfile.ZipFile(staged / "data/model.keras") as archive:
            archive.extractall(staged / "data/model.unzipped")
    assert made[0] == made[1]


def test_a_delivery_that_died_is_gone_on_with(staged: Path):
    """Half a zip file does not count, and one that is whole is not made again."""
    (staged / "data/.model.keras.part").write_bytes(b"half")
    zips.zip_folders(staged, ZIPS)
    before = (staged / "data/model.keras").stat()
    zips.zip_folders(staged, ZIPS)
    assert (staged / "data/model.keras").stat() == before
    assert [path.name for path in (staged / "data").iterdir()] == ["model.keras"]
