"""``python -m mlwrap``."""

from mlwrap._cli.commands import main

main()
