"""``RunInfo``: the properties of a run while it is open and after its end."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlwrap._journal.final_models import models_of_run
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._recording.recorder import Recorder
from mlwrap._run.flush import RunDelivery
from mlwrap._run.internal_errors import never_raises
from mlwrap.errors import DeliveryError, JournalError, LoadError, warn


class RunInfo:
    """The properties of a :class:`mlwrap.Run`: names, status, ids, models."""

    _recorder: Recorder
    _delivery: RunDelivery | None = None

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.status} {self._recorder.run_id or self.key}>"

    if not TYPE_CHECKING:  # a type checker would take it to mean that every name exists

        def __getattr__(self, name: str) -> object:
            """Raise Python's own error for a missing name, with the most similar existing name."""
            public = [attribute for attribute in dir(type(self)) if not attribute.startswith("_")]
            nearest = () if name.startswith("_") else difflib.get_close_matches(name, public, n=1)
            hint = f". Did you mean: {nearest[0]!r}?" if nearest else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return self._recorder.name

    @property
    def key(self) -> str:
        """The run's id in mlwrap, known from the start; it is the tag ``mlwrap.key`` in MLflow."""
        return self._recorder.key

    @property
    def status(self) -> str:
        """The run's status: ``RUNNING``, then ``FINISHED``, ``FAILED`` or ``KILLED``."""
        return self._recorder.status

    @property
    def preempted(self) -> bool:
        """Whether the ``preemption_signal`` was received: the process will be ended soon."""
        return self._recorder.preempted

    @property
    def recording(self) -> bool:
        """Whether this process records the run.

        It does not if tracking is disabled, if it is not the chief, or in a child made by ``fork``.
        """
        return self._recorder.recording and not self._recorder.is_discarded

    @property
    def recorded(self) -> bool:
        """Whether the run is recorded at all, by this process or another one."""
        return self._recorder.recorded

    @property
    def tracking_uri(self) -> str:
        """The tracking URI of the MLflow that this run is delivered to."""
        return self._recorder.tracking_uri

    @property
    def offline(self) -> bool:
        """Whether this run stays in the spool until ``mlwrap sync`` delivers it."""
        return self._recorder.offline

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; ``None`` until this process knows it. See :meth:`wait`.

        While the run is open, and if the process has imported MLflow, the run is created there to get the id.
        """
        recorder, delivery = self._recorder, self._delivery
        is_open = self.recording and recorder.status == "RUNNING" and not recorder.offline
        if is_open and delivery is not None and "mlflow" in sys.modules:
            with contextlib.suppress(DeliveryError, JournalError, OSError):
                delivery.create_run()
        return recorder.run_id

    @property
    def models(self) -> list[LoggedModel]:
        """The models logged so far, in the order of logging."""
        return list(self._recorder.logged.values())

    @property
    def model_uri(self) -> str | None:
        """URI of the model that the training function returned, once MLflow has it.

        If no model was returned, as in a ``with`` block, it is the URI of the last logged model that is not a
        checkpoint; if all are checkpoints, of the last one. It is ``None`` while the run is open, while the
        run waits for ``mlwrap sync``, and if the model could not be saved: ``load_model(run)`` then says why.

        Raises:
            LoadError: The function returned several models; the message lists their URIs.
        """
        if self.status == "RUNNING":
            return None
        model = the_model(self)
        return None if model is None or model.status == "FAILED" else model.uri

    @property
    def url(self) -> str | None:
        """URL of the run's page in MLflow's user interface; ``None`` without an MLflow server."""
        server = self.tracking_uri
        if self.run_id is None or not server.startswith(("http:", "https:")):
            return None
        return f"{server.rstrip('/')}/#/experiments/{self._recorder.experiment_id}/runs/{self.run_id}"

    @never_raises(bool)
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until MLflow has all of a run that has ended, and update the run's ids.

        By default the end of a run has waited already. With ``wait=False`` it has not: until you call this
        method, ``run_id``, ``url`` and ``model_uri`` are ``None``, and the models are ``STAGED``.
        Any thread may call it, any number of times. In a coroutine: ``await asyncio.to_thread(run.wait)``.

        Args:
            timeout: Maximum time to wait, in seconds; by default unlimited. In any case waiting ends after
                ``deadline`` seconds without progress.

        Returns:
            ``True`` if nothing is left to wait for: MLflow has all of the run, or the run is not delivered
            (``delivery="off"``, disabled). Otherwise ``False``, and a warning says where the run waits, and
            which command delivers it. For a run that is still open, ``False`` with a warning.
        """
        if self.status == "RUNNING":
            warn(f"wait() was called on run {self.name!r}, which is open. Call it when it has ended.")
            return False
        return self._delivery is None or self._delivery.wait(timeout)


def the_model(run: RunInfo) -> LoggedModel | None:
    """Return the model of a run; ``None`` if the run has no model.

    Raises:
        LoadError: The run has several models; the message says how to name one.
    """
    models = models_of_run([m for m in run.models if not (m.checkpoint and m.status == "FAILED")])
    if len(models) > 1:
        raise LoadError(f"run {run.name!r} has several models. Name one: {calls_to_load(run, models)}.")
    return models[0] if models else None


def calls_to_load(run: RunInfo, models: Iterable[LoggedModel]) -> str:
    """Return the calls that load these models, as text for a message."""
    return " or ".join(f"load_model('runs:/{run.run_id or '<run id>'}/{model.label}')" for model in models)
