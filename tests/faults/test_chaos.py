"""``kill -9`` at random moments; see the script for how, and for doing it a thousand times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parent / "chaos.py"


def test_thirty_kills_lose_nothing(tmp_path: Path):
    """Every acknowledged point once, every run KILLED, the spool empty, with nobody running a command."""
    done = subprocess.run(
        [sys.executable, str(CHAOS), "30"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
