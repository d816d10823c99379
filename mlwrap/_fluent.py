"""Where the training process has imported MLflow, what the body tells it lands in our run.

``mlflow.log_metric`` and its kin go to MLflow's active run. So our run is made at once, and is the active one
while the body runs: a few requests that a process without MLflow does not pay for.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from mlwrap import savers
from mlwrap._capture import Destination
from mlwrap._delivery import deliver, imported_mlflow
from mlwrap._passwords import without_password
from mlwrap._recorder import Recorder
from mlwrap.errors import DeliveryError, JournalError, told

# Runs of ours that were put on MLflow's stack, and how those ended that could not be taken off it yet. All
# tasks of a thread share the stack: its active run does not say then which run is around a piece of code.
_on_stack: dict[str, str | None] = {}


def not_ours(where: Destination) -> Destination:
    """``where`` a run belongs, without MLflow's active run if that is one that we put on its stack."""
    return where._replace(parent_run_id=None) if where.parent_run_id in _on_stack else where


class Fluent:
    """MLflow's idea of the active run, for as long as one run of ours is open.

    Args:
        recorder: The run, whose journal is open.
        tracking_uri: Where it is delivered to.
    """

    def __init__(self, recorder: Recorder, tracking_uri: str) -> None:
        self._recorder = recorder
        self._mlflow: Any = None
        mlflow = sys.modules.get("mlflow")
        if mlflow is None or not hasattr(mlflow, "start_run"):
            return
        if imported_mlflow() or savers.imported_mlflow():
            return  # it is here for us, and the body does not know of it
        if tracking_uri != without_password(mlflow.get_tracking_uri()):
            return  # the body's own calls are meant for another MLflow
        try:
            recorder.delivered(deliver(recorder.journal.folder))
            mlflow.start_run(run_id=recorder.run_id, nested=True, log_system_metrics=False)
        except (DeliveryError, JournalError, OSError, mlflow.MlflowException) as error:
            recorder.warn(f"calls of MLflow's own in its body do not land in it: {told(error)}")
        else:
            self._mlflow = mlflow
            _on_stack[str(recorder.run_id)] = None

    def leave(self, status: str) -> None:
        """Take our run off MLflow's stack, if it is still there; what was under it is active again.

        Where another is above it, as another task's may be, it goes together with that.
        """
        mlflow, self._mlflow = self._mlflow, None
        if mlflow is None:
            return
        _on_stack[str(self._recorder.run_id)] = status
        while (active := mlflow.active_run()) is not None and (ended := _on_stack.get(active.info.run_id)):
            # It is off the stack before MLflow is asked to end it, and delivery ends it in any case.
            with contextlib.suppress(Exception):
                mlflow.end_run(ended)
            del _on_stack[active.info.run_id]
