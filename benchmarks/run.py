"""Measures, one script after another, and renders what came out: ``run.py [NAME …] [--repeats N]``.

Each script keeps its results in a file of its own, so one can be measured again without the others. One that
fails keeps those of before; the others go on, and this ends with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import render

HERE = Path(__file__).parent


def main() -> int:
    """Run what was asked for; all, if nothing was."""
    there = [name for name in render.ORDER if (HERE / f"{name}.py").exists()]
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(there)}")
    asked.add_argument("--repeats", type=int, help="processes of each, instead of each script's own number")
    options = asked.parse_args()
    if unknown := set(options.names) - set(there):
        asked.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(there)}")
    failed = []
    for name in options.names or there:
        began = time.monotonic()
        print(f"\n=== {name}", flush=True)
        arguments = [str(options.repeats)] if options.repeats else []
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=False)
        print(f"=== {name}: {time.monotonic() - began:.0f} s, exit {done.returncode}", flush=True)
        if done.returncode:
            failed.append(name)
    render.main()
    if failed:
        print(f"failed, and stand as they were before: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
