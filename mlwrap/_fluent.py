"""Where the training process has imported MLflow, what the body tells it lands in our run.

``mlflow.log_metric`` and its kin go to MLflow's active run. So our run is made at once, and is the active one
while the body runs: a few requests that a process without MLflow does not pay for.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from mlwrap._delivery import deliver, imported_mlflow
from mlwrap._passwords import without_password
from mlwrap._recorder import Recorder
from mlwrap.errors import DeliveryError, JournalError, told


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
        if mlflow is None or imported_mlflow() or not hasattr(mlflow, "start_run"):
            return
        if tracking_uri != without_password(mlflow.get_tracking_uri()):
            return  # the body's own calls are meant for another MLflow
        try:
            recorder.delivered(deliver(recorder.journal.folder))
            mlflow.start_run(run_id=recorder.run_id, nested=True, log_system_metrics=False)
        except (DeliveryError, JournalError, OSError, mlflow.MlflowException) as error:
            recorder.warn(f"calls of MLflow's own in its body do not land in it: {told(error)}")
        else:
            self._mlflow = mlflow

    def leave(self, status: str) -> None:
        """Take our run off MLflow's stack, if it is still there; what was under it is active again."""
        mlflow, self._mlflow = self._mlflow, None
        if mlflow is None:
            return
        active = mlflow.active_run()
        if active is not None and active.info.run_id == self._recorder.run_id:
            # It is off the stack before MLflow is asked to end it, and delivery ends it in any case.
            with contextlib.suppress(Exception):
                mlflow.end_run(status)
