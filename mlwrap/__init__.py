"""Track TensorFlow and Keras training with MLflow: one decorator, nothing lost.

The public names, loaded when they are first used: ``import mlwrap`` costs next to nothing and imports
neither TensorFlow, Keras nor MLflow.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlwrap import config as config
    from mlwrap import errors as errors
    from mlwrap import estimator as estimator
    from mlwrap import keras as keras
    from mlwrap import savers as savers
    from mlwrap import testing as testing
    from mlwrap._capture.redact import Secret
    from mlwrap._decorator.proxy import TrackedFunction
    from mlwrap._decorator.tracked_training import tracked_training
    from mlwrap._delivery.sync import sync
    from mlwrap._loading.load_model import load_model
    from mlwrap._recording.logged_model import LoggedModel
    from mlwrap._run.model_run import model_run
    from mlwrap._run.run import Run, current_run
    from mlwrap._savers.saver_registry import register as register_saver
    from mlwrap._sweeps.table import SweepTable, SweepTrial
    from mlwrap.config import configure

__version__ = "0.1.0"

__all__ = [
    "LoggedModel",
    "Run",
    "Secret",
    "SweepTable",
    "SweepTrial",
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

_LAZY_EXPORTS = {
    "LoggedModel": "_recording.logged_model",
    "Run": "_run.run",
    "Secret": "_capture.redact",
    "SweepTrial": "_sweeps.table",
    "SweepTable": "_sweeps.table",
    "TrackedFunction": "_decorator.proxy",
    "configure": "config",
    "current_run": "_run.run",
    "load_model": "_loading.load_model",
    "model_run": "_run.model_run",
    "register_saver": "_savers.saver_registry:register",
    "sync": "_delivery.sync",
    "tracked_training": "_decorator.tracked_training",
}
_RENAMED = {"SweepPoint": "SweepTrial"}  # deprecated names, which go with the next version
_PUBLIC_MODULES = ("config", "errors", "estimator", "keras", "savers", "testing")


if not TYPE_CHECKING:  # to a type checker any name would be one

    def __getattr__(name: str) -> object:
        if name in _PUBLIC_MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _RENAMED:
            warnings.warn(
                f"mlwrap.{name} is deprecated: use mlwrap.{_RENAMED[name]}.", DeprecationWarning, stacklevel=2
            )
            return __getattr__(_RENAMED[name])
        if name not in _LAZY_EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, own_name = _LAZY_EXPORTS[name].partition(":")
        value: object = getattr(importlib.import_module(f"{__name__}.{module}"), own_name or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})
