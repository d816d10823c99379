"""Metrics while training, in one run: a call and its memory, a ``fit``, kills, delivery."""

from __future__ import annotations

import sys

import run

if __name__ == "__main__":
    sys.argv[1:1] = ["calls", "fit", "kills", "sync"]
    sys.exit(run.main())
