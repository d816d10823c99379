"""Settings and what type checkers know of them."""

from __future__ import annotations

import os
from typing import get_type_hints

from mlwrap.config import Options, Settings


def test_options_are_the_settings():
    """The same names and types; ``None`` everywhere, and any path for the spool."""
    wider = {name: hint | None for name, hint in get_type_hints(Settings).items()}
    wider["spool"] |= os.PathLike[str]
    assert get_type_hints(Options) == wider
