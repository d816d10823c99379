"""The optimizer of a model that was compiled on PyTorch, by a name that every backend has.

On PyTorch ``keras.optimizers.Adam`` makes an object of a class of that backend's, and Keras writes that
class's name. It is found nowhere else, though each backend has the optimizer, with the same variables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BACKEND_HOME = "keras.src.backend."
_PUBLIC = "keras.optimizers"


def name_publicly(file: Path) -> None:
    """Give optimizers of one backend the name that they have in every one.

    Args:
        file: A model's ``config.json``.
    """
    text = file.read_text(encoding="utf-8")
    if f'"{BACKEND_HOME}' not in text:
        return
    config = json.loads(text)
    for node in _nodes(config):
        module = str(node.get("module"))
        if module.startswith(BACKEND_HOME) and module.split(".")[4:5] == ["optimizers"]:
            node["module"], node["registered_name"] = _PUBLIC, None
    file.write_text(json.dumps(config), encoding="utf-8")


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        yield config
        for part in config.values():
            yield from _nodes(part)
    elif isinstance(config, list):
        for part in config:
            yield from _nodes(part)
