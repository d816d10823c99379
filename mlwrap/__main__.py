"""``python -m mlwrap``."""

from mlwrap.cli import main

main()
