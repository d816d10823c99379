"""A model's files are laid out: zipped, hashed, copied; off the training path, each byte read once."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from mlwrap._journal.records import Zip
from mlwrap._mlflow.model_files.files import assemble, check_copied, digest, staging_dir
from mlwrap._spool.staged_files import Damaged
from mlwrap.errors import Unreachable

ZIPS = {"data/model.keras": Zip(folder="data/model.unzipped")}
WEIGHTS = "data/model.unzipped/model.weights.h5"
AROUND = {
    "data/model.keras": Zip(
        folder="data/model.unzipped", around="model.weights.h5", start=512, length=5_000_000
    )
}


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
    assemble(staged, ZIPS, staged)
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
        assemble(staged, ZIPS, staged)
        made.append((staged / "data/model.keras").read_bytes())
        with zipfile.ZipFile(staged / "data/model.keras") as archive:
            archive.extractall(staged / "data/model.unzipped")
    assert made[0] == made[1]


def test_a_delivery_that_died_is_gone_on_with(staged: Path):
    """Half a zip file does not count, and one that is whole is not made again."""
    (staged / "data/.model.keras.part").write_bytes(b"half")
    assemble(staged, ZIPS, staged)
    before = (staged / "data/model.keras").stat()
    assemble(staged, ZIPS, staged)
    after = (staged / "data/model.keras").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in (staged / "data").iterdir()] == ["model.keras"]


def test_the_manifest_is_of_what_lies_there(staged: Path):
    """Hashed while it was written, or read where it lay already; the same when all is done again."""
    (staged / "requirements.txt").write_text("keras\n")
    (staged / "MLmodel").write_text("not in it: it holds the others")
    found = assemble(staged, ZIPS, staged)
    assert found == {path: digest(staged / path) for path in ("data/model.keras", "requirements.txt")}
    assert assemble(staged, ZIPS, staged) == found


def test_a_copy_is_as_a_move_and_leaves_the_stage(staged: Path, tmp_path_factory: pytest.TempPathFactory):
    """For another filesystem: the zip file is written there and nowhere else."""
    (staged / "requirements.txt").write_text("keras\n")
    into = tmp_path_factory.mktemp("into")
    before = sorted(staged.rglob("*"))
    found = assemble(staged, ZIPS, into)
    assert sorted(staged.rglob("*")) == before
    assert sorted(p.relative_to(into).as_posix() for p in into.rglob("*") if p.is_file()) == list(found)
    check_copied(into, found)
    assert assemble(staged, ZIPS, staged) == found


def test_a_copy_that_is_not_as_it_should_be_is_named(staged: Path, tmp_path: Path):
    """Nothing is renamed into place that differs by a bit."""
    found = assemble(staged, ZIPS, staged)
    with (staged / "data/model.keras").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    with pytest.raises(Unreachable, match=r"data/model.keras was not written"):
        check_copied(staged, found)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count bytes")
def test_each_byte_is_read_once_and_written_once(staged: Path):
    """Zipping and hashing are one pass; of what lies there already only the hash is made."""
    size = (staged / "data/model.unzipped/model.weights.h5").stat().st_size
    for most in (1.05, 0.05):
        before = _io()
        assemble(staged, ZIPS, staged)
        after = _io()
        assert after["rchar"] - before["rchar"] < 1.05 * size
        assert after["wchar"] - before["wchar"] < most * size


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(count) for name, count in (line.split(": ") for line in lines)}


@pytest.fixture
def roomy(staged: Path) -> Path:
    """A stage whose large file has room for a header before its content."""
    (staged / WEIGHTS).write_bytes(bytes(512) + b"weights!" * 625_000)
    return staged


def _is_whole(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["model.weights.h5", "assets/words.txt", "config.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("model.weights.h5") == b"weights!" * 625_000
        assert archive.read("config.json") == b"{}"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count bytes")
def test_a_file_with_room_becomes_the_zip_file(roomy: Path):
    """It is read once, and nothing is written of it."""
    inode = (roomy / WEIGHTS).stat().st_ino
    before = _io()
    found = assemble(roomy, AROUND, roomy)
    after = _io()
    file = roomy / "data/model.keras"
    assert after["rchar"] - before["rchar"] < 1.01 * 5_000_000
    assert after["wchar"] - before["wchar"] < 10_000
    assert file.stat().st_ino == inode
    assert found == {"data/model.keras": digest(file)}
    assert [path.name for path in file.parent.iterdir()] == ["model.keras"]
    _is_whole(file)


def test_on_another_filesystem_it_is_the_same_file(roomy: Path, tmp_path_factory: pytest.TempPathFactory):
    """Copied, and the stage is as it was."""
    into = tmp_path_factory.mktemp("into")
    found = assemble(roomy, AROUND, into)
    assert (roomy / WEIGHTS).read_bytes()[:512] == bytes(512)
    _is_whole(into / "data/model.keras")
    assert assemble(roomy, AROUND, roomy) == found


@pytest.mark.parametrize("died", ["in the header", "behind the content", "before the name", "after the name"])
def test_a_delivery_that_died_in_the_file_is_gone_on_with(
    died: str, roomy: Path, tmp_path_factory: pytest.TempPathFactory
):
    """Whatever it had written there: the content is where it was."""
    whole = shutil.copytree(roomy, tmp_path_factory.mktemp("whole") / "stage")
    found = assemble(whole, AROUND, whole)
    content = (whole / "data/model.keras").read_bytes()
    there = (roomy / WEIGHTS).read_bytes()
    (roomy / WEIGHTS).write_bytes(
        {
            "in the header": content[:20] + there[20:],
            "behind the content": content[:-30],
            "before the name": content,
            "after the name": content,
        }[died]
    )
    if died == "after the name":
        (roomy / WEIGHTS).rename(roomy / "data/model.keras")
    assert assemble(roomy, AROUND, roomy) == found
    assert (roomy / "data/model.keras").read_bytes() == content
    assert [path.name for path in (roomy / "data").iterdir()] == ["model.keras"]


@pytest.mark.parametrize("zips", [ZIPS, AROUND])
def test_other_programs_read_it(zips: dict[str, Zip], roomy: Path):
    """They look at each header, where Python looks at the directory alone."""
    assemble(roomy, zips, roomy)
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("there is no unzip")
    subprocess.run([unzip, "-t", "-q", str(roomy / "data/model.keras")], check=True, capture_output=True)


def test_content_that_was_lost_is_told(roomy: Path):
    """And no model made of what is left; what is left stays."""
    with (roomy / WEIGHTS).open("r+b") as file:
        file.truncate(512 + 4_000_000)
    with pytest.raises(Damaged, match="1,000,000 bytes shorter than it was"):
        assemble(roomy, AROUND, roomy)
    assert not (roomy / "data/model.keras").exists()
    assert (roomy / WEIGHTS).read_bytes()[512:4_000_512] == b"weights!" * 500_000


def test_where_a_rename_will_do_the_stage_is_the_place(tmp_path: Path):
    """What a delivery that died left beside the target is swept; nothing is left there."""
    stage, target = tmp_path / "run/staged/1-model", tmp_path / "store/models/m-1/artifacts"
    stage.mkdir(parents=True)
    left = target.with_name(".artifacts.part")
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    with staging_dir(stage, target) as place:
        assert place == stage
        assert list(target.parent.iterdir()) == []
        assert list(stage.parent.iterdir()) == [stage]
