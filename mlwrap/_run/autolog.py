"""Suspend MLflow's Keras autologging while an mlwrap run is open, because it would log everything twice.

Autologging of other frameworks continues, and so does Keras autologging outside mlwrap's runs. If autologging
is ``exclusive``, MLflow does not log a ``fit`` within an active run; so that option is true in mlwrap's runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from mlwrap._mlflow.undocumented import AUTOLOGGING_LOGGER, AUTOLOGGING_SETTINGS

_FLAVORS = ("keras", "tensorflow")


Say = Callable[[str], None]


def stand_back(run_here: Callable[[], Say | None], say: Say | None) -> None:
    """Suspend Keras autologging in mlwrap's runs, whether it is on now or turned on inside a run.

    Args:
        run_here: Returns the function that warns for the current mlwrap run; ``None`` if there is none.
        say: The function that warns for the run that begins; ``None`` if none does.
    """
    if AUTOLOGGING_LOGGER.module not in sys.modules:
        return
    logger, integrations = AUTOLOGGING_LOGGER.find(), AUTOLOGGING_SETTINGS.find()
    if logger is None or integrations is None:
        return
    if not isinstance(logger.get_logger(), _Logger):
        logger.set_logger(_Logger(logger.get_logger(), run_here))
    _exclude({name: integrations[name] for name in _FLAVORS if integrations.get(name)}, run_here, say)


class _Exclusive:
    """The option ``exclusive=``: true within mlwrap's runs, elsewhere as the user set it."""

    def __init__(self, users_value: Any, run_here: Callable[[], Say | None]) -> None:
        self._own, self._run_here = users_value, run_here

    def __bool__(self) -> bool:
        return bool(self._own) or self._run_here() is not None


class _Logger:
    """Observes when autologging is turned on, and forwards everything to MLflow's previous logger."""

    def __init__(self, before: Any, run_here: Callable[[], Say | None]) -> None:
        self._before, self._run_here = before, run_here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._before, name)

    def log_autolog_called(self, integration: str, call_args: Any, call_kwargs: Any) -> None:
        """Edit the configuration: ``call_kwargs`` is the same object that MLflow reads later."""
        self._before.log_autolog_called(integration, call_args, call_kwargs)
        if integration in _FLAVORS:
            _exclude({integration: call_kwargs}, self._run_here, self._run_here())


def _exclude(
    configurations: dict[str, dict[str, Any]], run_here: Callable[[], Say | None], say: Say | None
) -> None:
    enabled = {
        name: configuration
        for name, configuration in configurations.items()
        if not configuration.get("disable", True)
    }
    for configuration in enabled.values():
        if not isinstance(configuration.get("exclusive"), _Exclusive):
            configuration["exclusive"] = _Exclusive(configuration.get("exclusive"), run_here)
    if enabled and say is not None:
        say(_sentence("tensorflow" in enabled))


def _sentence(tensorflow: bool) -> str:
    text = (
        "MLflow's autologging of Keras is off while this run is open, because mlwrap logs the loss of each "
        "epoch and the model. Return the model or call run.log_model(). For the parameters of fit(), add "
        "MetricsCallback() to its callbacks."
    )
    if tensorflow and importlib.util.find_spec("tensorboard") is None:
        text += (
            " Outside of mlwrap's runs mlflow.tensorflow.autolog() breaks fit(), because TensorBoard is not "
            "installed: run 'pip install tensorboard'."
        )
    return text
