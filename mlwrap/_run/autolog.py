"""MLflow's autologging of Keras stands back while a run of ours is open: what it logs would be there twice.

Autologging of other frameworks goes on, and so does Keras's outside our runs. Where autologging is
``exclusive``, MLflow leaves a ``fit`` within an active run alone; so that option is made true in ours.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

_MODULE = "mlflow.utils.autologging_utils"
_FLAVORS = ("keras", "tensorflow")


Say = Callable[[str], None]


def stand_back(run_here: Callable[[], Say | None], say: Say) -> None:
    """Let Keras's autologging leave alone what runs of ours log, be it on now or turned on in the body.

    Args:
        run_here: What warns of the run of ours around the calling code; ``None`` where there is none.
        say: The same for a run that begins.
    """
    utils: Any = sys.modules.get(_MODULE)
    logger = getattr(utils, "AutologgingEventLogger", None)
    if logger is None:
        return
    if not isinstance(logger.get_logger(), _Logger):
        logger.set_logger(_Logger(logger.get_logger(), run_here))
    integrations = utils.AUTOLOGGING_INTEGRATIONS
    _exclude({name: integrations[name] for name in _FLAVORS if integrations.get(name)}, run_here, say)


class _Exclusive:
    """The option ``exclusive=``: as the user set it, and true within our runs."""

    def __init__(self, own: Any, run_here: Callable[[], Say | None]) -> None:
        self._own, self._run_here = own, run_here

    def __bool__(self) -> bool:
        return bool(self._own) or self._run_here() is not None


class _Logger:
    """Learns from MLflow when autologging is turned on, and passes everything on to the logger before it."""

    def __init__(self, before: Any, run_here: Callable[[], Say | None]) -> None:
        self._before, self._run_here = before, run_here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._before, name)

    def log_autolog_called(self, integration: str, call_args: Any, call_kwargs: Any) -> None:
        """MLflow hands over the very configuration that it goes by."""
        self._before.log_autolog_called(integration, call_args, call_kwargs)
        if integration in _FLAVORS:
            _exclude({integration: call_kwargs}, self._run_here, self._run_here())


def _exclude(
    configurations: dict[str, dict[str, Any]], run_here: Callable[[], Say | None], say: Say | None
) -> None:
    on = {name: each for name, each in configurations.items() if not each.get("disable", True)}
    for each in on.values():
        if not isinstance(each.get("exclusive"), _Exclusive):
            each["exclusive"] = _Exclusive(each.get("exclusive"), run_here)
    if on and say is not None:
        say(_sentence("tensorflow" in on))


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
