"""P2: what a call had returned for, and is nowhere after ``kill -9``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import (
    NOTHING,
    OURS,
    PACKAGES,
    RIVALS,
    Failed,
    argument,
    folder,
    head,
    python,
    row,
    say,
    surroundings,
)
from loggers import HEAD, SOURCES, points, that_work

KILLS = argument(1, 8)
CHAOS = argument(2, 1000)
DYING = """
for step in range(1_000_000):
    log({f"m{i}": (step + i) / 7 for i in range(5)}, step)
    os.write(acknowledged, b".")
    time.sleep(0.0005)
"""
ROOT = Path(__file__).parents[1]
MAKE_CHAOS = """
import dataclasses, json, pathlib, sys
sys.path.insert(0, sys.argv[3])
from tests.faults import chaos
found = chaos.main(int(sys.argv[1]), pathlib.Path.cwd(), int(sys.argv[2]))
print(json.dumps({"started": found.started, "points": found.points, "lost": found.lost,
                  "doubled": found.doubled, "open": found.not_killed, "left": found.left}))
"""


def main() -> None:
    """Kill, and print."""
    with folder() as here:
        head(
            "Killed",
            f"Ours: `make chaos N={CHAOS}`, processes that log at 100 to 20,000 points a second and are killed "
            "at random moments; all points that a call had returned for are looked for in MLflow. The others: "
            f"five points a call, 0.5 ms between calls, killed after 0.3 to 3 s, {KILLS} times; their files "
            "are read afterwards.",
            (*PACKAGES, *RIVALS),
        )
        chaos()
        for name in that_work():
            rival(name, here)


def chaos() -> None:
    """A thousand deaths."""
    say(f"{CHAOS} kills")
    made = Path.cwd() / "chaos"
    made.mkdir()
    what = f"points lost, {CHAOS:,} processes killed with `kill -9` at random moments"
    try:
        out = python(MAKE_CHAOS, str(CHAOS), "20", str(ROOT), here=made, timeout=1800)
        found = json.loads(out.strip().splitlines()[-1])
    except (Failed, ValueError) as error:
        row("P2", what, f"failed: {error}", NOTHING, NOTHING, "0", reached=False)
        return
    row(
        "P2",
        what,
        f"{found['lost']} of {found['points']:,} ({found['doubled']} doubled, {found['open']} runs not KILLED)",
        NOTHING,
        NOTHING,
        "0",
        reached=found["lost"] == 0,
    )


def rival(name: str, here: Path) -> None:
    """Several deaths of one that logs."""
    say(f"{KILLS} kills of {name}")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: _killed(name, here, 0.3 + 2.7 * number / KILLS), range(KILLS)))
    returned = sum(5 * each for each, _ in found)
    lost = sum(max(0, 5 * each - there) for each, there in found)
    told = f"{lost:,} of {returned:,} ({lost / max(1, returned):.1%})"
    what = f"points lost, killed {KILLS} times, 2000 calls a second"
    if name == OURS:
        row("P2", what, told, NOTHING, NOTHING, "0", reached=lost == 0)
    else:
        row("P2", what, NOTHING, f"{name} {told}", NOTHING, NOTHING)


def _killed(name: str, here: Path, after: float) -> tuple[int, int]:
    """Kill a program that logs; how many of its calls had returned, and how many points there are."""
    made = Path(tempfile.mkdtemp(prefix="killed-", dir=here))
    reading, writing = os.pipe()
    source = HEAD + SOURCES[name] + f"acknowledged = {writing}\n" + DYING
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", source],
        cwd=made,
        env=surroundings(made),
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    returned = len(os.read(reading, 1))  # it has begun
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while data := os.read(reading, 1 << 16):
        returned += len(data)
    os.close(reading)
    time.sleep(2)  # for what others of its processes still do
    if name == OURS:
        end = time.monotonic() + 30
        while list((made / "spool").glob("*/journal.jsonl")) and time.monotonic() < end:
            time.sleep(0.05)
    return returned, points(name, made)


if __name__ == "__main__":
    main()
