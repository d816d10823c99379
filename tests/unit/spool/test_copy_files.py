"""Copies of what a user points at: whole, of regular files only, and nothing left behind otherwise."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import SpoolError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with something in it."""
    folder = tmp_path / "results"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.bin").write_bytes(os.urandom(3_000_000))
    return folder


def test_a_copy_is_the_same(source: Path, tmp_path: Path):
    """Contents, modes and times; of a folder, of a file, and of the file that a link names."""
    (source / "a.txt").chmod(0o750)
    copy_regular(source, tmp_path / "copy")
    found = sorted(path.relative_to(source) for path in source.rglob("*"))
    assert found == sorted(path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*"))
    for path in ("a.txt", "deep/b.bin"):
        assert (tmp_path / "copy" / path).read_bytes() == (source / path).read_bytes()
    assert stat.S_IMODE((tmp_path / "copy" / "a.txt").stat().st_mode) == 0o750
    assert (tmp_path / "copy" / "a.txt").stat().st_mtime_ns == (source / "a.txt").stat().st_mtime_ns
    link = tmp_path / "latest"
    link.symlink_to(source / "a.txt")
    copy_regular(link, tmp_path / "of_link")
    assert (tmp_path / "of_link").read_text() == "a"
    assert not (tmp_path / "of_link").is_symlink()


def _socket(path: Path) -> None:
    # Paths of sockets are short: it is made where it is named in few letters.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


ODD = {
    "a link": (lambda path: path.symlink_to("/etc/hostname"), "odd is a link, a pipe or a device"),
    "a link that leads nowhere": (lambda path: path.symlink_to("nowhere"), "odd is a link, a pipe"),
    "a link to a folder": (lambda path: path.symlink_to("/etc"), "odd is a link, a pipe or a device"),
    "a pipe": (os.mkfifo, "odd is a link, a pipe or a device"),
    "a socket": (_socket, "odd is a link, a pipe or a device"),
    "a hard link": (lambda path: path.hardlink_to(path.parents[1] / "a.txt"), "is a hard link"),
}


@pytest.mark.parametrize(("make", "words"), ODD.values(), ids=ODD.keys())
def test_what_is_no_regular_file_is_refused_by_name(source: Path, tmp_path: Path, make, words: str):
    """And nothing of the folder is left at the target."""
    make(source / "deep" / "odd")
    with pytest.raises(SpoolError, match=words) as caught:
        copy_regular(source, tmp_path / "copy")
    assert str(source) in str(caught.value)
    assert not (tmp_path / "copy").exists()


def test_a_device_is_refused(tmp_path: Path):
    """It may have no end."""
    with pytest.raises(SpoolError, match="/dev/zero is a link, a pipe or a device"):
        copy_regular(Path("/dev/zero"), tmp_path / "copy")


def test_holes_stay_holes(tmp_path: Path):
    """A sparse file of a gibibyte takes no more room as a copy."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"head")
        file.seek(1 << 29)
        file.write(b"middle")
        file.truncate(1 << 30)
    if sparse.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this filesystem keeps no holes")
    copy_regular(sparse, tmp_path / "copy")
    found = (tmp_path / "copy").stat()
    assert found.st_size == 1 << 30
    assert found.st_blocks * 512 <= 1 << 20
    with (tmp_path / "copy").open("rb") as file:
        assert file.read(5) == b"head\0"
        file.seek(1 << 29)
        assert file.read(7) == b"middle\0"


def test_what_is_not_there_or_holds_the_target_is_refused(source: Path, tmp_path: Path):
    """Each with its sentence."""
    with pytest.raises(SpoolError, match="nothing is not there"):
        copy_regular(tmp_path / "nothing", tmp_path / "copy")
    with pytest.raises(SpoolError, match="holds the spool"):
        copy_regular(source, source / "deep" / "copy")
    assert not (source / "deep" / "copy").exists()


def test_what_may_not_be_read_is_named(python):
    """A file of somebody else's, met by a user who is not root."""
    done = python(
        "import os, tempfile\nfrom pathlib import Path\n"
        "from mlwrap._spool.copy_files import copy_regular\nfrom mlwrap.errors import SpoolError\n"
        "with tempfile.TemporaryDirectory() as made:\n"
        "    source = Path(made) / 'results'\n"
        "    source.mkdir()\n"
        "    (source / 'closed').touch(0)\n"
        "    Path(made).chmod(0o777)\n"
        "    if root := os.geteuid() == 0: os.seteuid(65534)\n"
        "    try: copy_regular(source, Path(made) / 'copy')\n"
        "    except SpoolError as error: print(str(error).removeprefix(made))\n"
        "    print((Path(made) / 'copy').exists())\n"
        "    if root: os.seteuid(0)\n"
    )
    assert done.stdout.splitlines() == ["/results/closed can't be copied (Permission denied).", "False"]
