"""Track TensorFlow and Keras training with MLflow: one decorator, nothing lost.

The public names, loaded when they are first used: ``import mlwrap`` costs next to nothing and imports
neither TensorFlow, Keras nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlwrap import savers
    from mlwrap._capture import Secret
    from mlwrap._decorator import tracked_training
    from mlwrap._loading import load_model
    from mlwrap._logged_model import LoggedModel
    from mlwrap._model_run import model_run
    from mlwrap._run import Run, current_run
    from mlwrap._sweep_table import SweepPoint, SweepTable
    from mlwrap._sync import sync
    from mlwrap._tracked import TrackedFunction
    from mlwrap.config import configure
    from mlwrap.savers import register as register_saver

__version__ = "0.1.0"

__all__ = [
    "LoggedModel",
    "Run",
    "Secret",
    "SweepPoint",
    "SweepTable",
    "TrackedFunction",
    "configure",
    "current_run",
    "load_model",
    "model_run",
    "register_saver",
    "savers",
    "sync",
    "tracked_training",
]

_ROOMS = {
    "LoggedModel": "_logged_model",
    "Run": "_run",
    "Secret": "_capture",
    "SweepPoint": "_sweep_table",
    "SweepTable": "_sweep_table",
    "TrackedFunction": "_tracked",
    "configure": "config",
    "current_run": "_run",
    "load_model": "_loading",
    "model_run": "_model_run",
    "register_saver": "savers:register",
    "savers": "savers",
    "sync": "_sync",
    "tracked_training": "_decorator",
}


if not TYPE_CHECKING:  # to a type checker any name would be one

    def __getattr__(name: str) -> object:
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        room, _, own_name = _ROOMS[name].partition(":")
        module = importlib.import_module(f"{__name__}.{room}")
        value: object = module if room == name else getattr(module, own_name or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
