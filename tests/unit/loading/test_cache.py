"""Downloaded models: one copy of each, bounded, and never taken from under anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlwrap._loading.cache import Cache

KB = 1000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "models")


class Download:
    """Writes a file of some size, as a download would, and counts how often it was asked to."""

    def __init__(self, size: int = KB) -> None:
        self.size = size
        self.calls = 0

    def __call__(self, folder: Path) -> Path:
        self.calls += 1
        (folder / "artifacts").mkdir()
        (folder / "artifacts" / "weights").write_bytes(bytes(self.size))
        return folder / "artifacts"


def copies(tmp_path: Path) -> set[str]:
    """Everything that lies in the cache."""
    return {path.name for path in (tmp_path / "models").iterdir()}


def test_a_model_is_downloaded_once(cache: Cache, tmp_path: Path):
    """However often it is asked for; the folders are nobody else's to read."""
    download = Download()
    folders = {cache.get("m-1", download, 10 * KB).folder for _ in range(3)}
    assert download.calls == 1
    (folder,) = folders
    assert (folder / "weights").stat().st_size == KB
    assert copies(tmp_path) == {"m-1"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "models", tmp_path / "models" / "m-1")} == {
        0o700
    }


def test_the_least_recently_used_goes_first(cache: Cache, tmp_path: Path):
    """Until the others fit."""
    for number, name in enumerate(("m-1", "m-2", "m-3")):
        cache.get(name, Download(), 10 * KB).release()
        os.utime(tmp_path / "models" / name, (number, number))
    again = cache.get("m-1", Download(), 10 * KB)
    again.release()
    assert cache.trim(2 * KB) == ["m-2"]
    assert copies(tmp_path) == {"m-1", "m-3"}


def test_a_new_one_makes_room_for_itself(cache: Cache, tmp_path: Path):
    """It stays itself, were it larger than all the room there is."""
    cache.get("m-1", Download(), KB).release()
    cache.get("m-2", Download(100 * KB), KB).release()
    assert copies(tmp_path) == {"m-2"}


def test_one_that_is_in_use_stays(cache: Cache, tmp_path: Path):
    """By whichever process; until it is let go of, or the process dies."""
    held = cache.get("m-1", Download(), KB)
    assert cache.trim(0) == []
    source = (
        "from pathlib import Path\nfrom mlwrap._loading.cache import Cache\n"
        f"print(Cache(Path({str(tmp_path / 'models')!r})).trim(0))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert elsewhere.stdout == "[]\n"
    assert (held.folder / "weights").exists()
    held.release()
    assert cache.trim(0) == ["m-1"]
    assert copies(tmp_path) == set()


def test_what_a_dead_process_left_is_swept(cache: Cache, tmp_path: Path):
    """Half a download is never taken for a model."""
    source = (
        "import os, sys\nfrom pathlib import Path\nfrom mlwrap._loading.cache import Cache\n"
        "def download(folder):\n    (folder / 'half').write_bytes(bytes(100))\n    os.kill(os.getpid(), 9)\n"
        f"Cache(Path({str(tmp_path / 'models')!r})).get('m-1', download, 1000)\n"
    )
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == -9
    (left,) = copies(tmp_path)
    assert left.endswith(".part")
    cache.get("m-2", Download(), 10 * KB)
    assert copies(tmp_path) == {"m-2"}


def test_a_download_that_fails_leaves_nothing(cache: Cache, tmp_path: Path):
    """The error is the download's own."""

    def fail(folder: Path) -> Path:
        (folder / "half").write_bytes(bytes(100))
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        cache.get("m-1", fail, KB)
    assert copies(tmp_path) == set()


def test_two_that_download_at_once_share_one_copy(cache: Cache, tmp_path: Path):
    """The second one to come finds the first one's, and throws its own away."""
    first = Download()

    def second(folder: Path) -> Path:
        cache.get("m-1", first, 10 * KB)
        return Download()(folder)

    held = cache.get("m-1", second, 10 * KB)
    assert first.calls == 1
    assert held.folder == tmp_path / "models" / "m-1" / "files"
    assert copies(tmp_path) == {"m-1"}


def test_an_id_never_leads_out_of_the_cache(cache: Cache, tmp_path: Path):
    """It is a server's word."""
    held = cache.get("../../m-1", Download(), KB)
    assert held.folder.parent.parent == tmp_path / "models"
    assert len(copies(tmp_path)) == 1
