"""Replace the optimizer's PyTorch class in a saved model by the public name that every backend has.

On PyTorch ``keras.optimizers.Adam`` creates an object of that backend's class, and Keras writes that class's
name. Other backends lack the class, though each has the optimizer, with the same variables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BACKEND_HOME = "keras.src.backend."
_PUBLIC = "keras.optimizers"


def name_publicly(file: Path) -> None:
    """Give the optimizers of a backend their public names.

    Args:
        file: A model's ``config.json``.
    """
    text = file.read_text(encoding="utf-8")
    if f'"{BACKEND_HOME}' not in text:
        return
    config = json.loads(text)
    for node in _dictionaries(config):
        module = str(node.get("module"))
        if module.startswith(BACKEND_HOME) and module.split(".")[4:5] == ["optimizers"]:
            node["module"], node["registered_name"] = _PUBLIC, None
    file.write_text(json.dumps(config), encoding="utf-8")


def _dictionaries(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from _dictionaries(value)
    elif isinstance(config, list):
        for value in config:
            yield from _dictionaries(value)
