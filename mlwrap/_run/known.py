"""What is known of a run, while it is open and afterwards."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlwrap._journal.run_models import models_of_run
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._recording.recorder import Recorder
from mlwrap._run.flush import RunDelivery
from mlwrap._run.internal_errors import never_raises
from mlwrap.errors import LoadError, warn


class RunInfo:
    """The part of a :class:`mlwrap.Run` that says what became of it."""

    _recorder: Recorder
    _delivery: RunDelivery | None = None

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.status} {self.run_id or self.key}>"

    if not TYPE_CHECKING:  # to a type checker it would say that there are all names

        def __getattr__(self, name: str) -> object:
            """Called for a name that is not there: Python's own error, with the nearest one that is."""
            public = [known for known in dir(type(self)) if not known.startswith("_")]
            nearest = () if name.startswith("_") else difflib.get_close_matches(name, public, n=1)
            hint = f". Did you mean: {nearest[0]!r}?" if nearest else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return self._recorder.name

    @property
    def key(self) -> str:
        """The run's own id, known from the start; the tag ``mlwrap.key`` in MLflow."""
        return self._recorder.key

    @property
    def status(self) -> str:
        """``RUNNING``, then ``FINISHED``, ``FAILED`` or ``KILLED``."""
        return self._recorder.status

    @property
    def preempted(self) -> bool:
        """Whether the ``preemption_signal`` came: the process will be ended soon."""
        return self._recorder.preempted

    @property
    def recording(self) -> bool:
        """Whether this process records this run: not if disabled, no chief, or a child made by ``fork``."""
        return self._recorder.recording and not self._recorder.is_discarded

    @property
    def recorded(self) -> bool:
        """Whether this run is written down at all, be it by another process."""
        return self._recorder.recorded

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is, for this run."""
        return self._recorder.tracking_uri

    @property
    def offline(self) -> bool:
        """Whether this run waits for ``mlwrap sync``."""
        return self._recorder.offline

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once that is known here: see :meth:`wait`."""
        return self._recorder.run_id

    @property
    def models(self) -> list[LoggedModel]:
        """The models logged so far, in their order."""
        return list(self._recorder.logged.values())

    @property
    def model_uri(self) -> str | None:
        """URI of the model that the training function returned, once MLflow has it.

        Where it returned none, as in a ``with`` block, of the last one that was logged and is no checkpoint;
        where there are only checkpoints, of the last of these. ``None`` while the run is open, where it waits
        for ``mlwrap sync``, and where the model could not be saved: ``load_model(run)`` says why.

        Raises:
            LoadError: It returned several; the message lists their URIs.
        """
        if self.status == "RUNNING":
            return None
        model = the_model(self)
        return None if model is None or model.status == "FAILED" else model.uri

    @property
    def url(self) -> str | None:
        """The run's page in MLflow's user interface; ``None`` where no server shows one."""
        server = self.tracking_uri
        if self.run_id is None or not server.startswith(("http:", "https:")):
            return None
        return f"{server.rstrip('/')}/#/experiments/{self._recorder.experiment_id}/runs/{self.run_id}"

    @never_raises(bool)
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until MLflow has all of a run that has ended, and learn what it calls it.

        By default the end of a run has waited already. A run that was told ``wait=False`` has not: until this
        is called its ``run_id``, ``url`` and ``model_uri`` are ``None``, and its models ``STAGED``.
        Any thread may call it, as often as it likes. In a coroutine: ``await asyncio.to_thread(run.wait)``.

        Args:
            timeout: Seconds at most. In any case waiting ends after ``deadline`` seconds without progress.

        Returns:
            Whether there is nothing more to wait for: MLflow has all of it, or is not to be told
            (``delivery="off"``, disabled). Else a warning says where it waits, and for which command. It is
            false, with a warning, for a run that is still open.
        """
        if self.status == "RUNNING":
            warn(f"wait() was called on run {self.name!r}, which is open. Call it when it has ended.")
            return False
        return self._delivery is None or self._delivery.wait(timeout)


def the_model(run: RunInfo) -> LoggedModel | None:
    """The model that a run stands for; ``None`` where it has none.

    Raises:
        LoadError: It has several, and one has to be named.
    """
    models = models_of_run([m for m in run.models if not (m.checkpoint and m.status == "FAILED")])
    if len(models) > 1:
        raise LoadError(f"run {run.name!r} has several models. Name one: {calls_to_load(run, models)}.")
    return models[0] if models else None


def calls_to_load(run: RunInfo, models: Iterable[LoggedModel]) -> str:
    """What to write to load one of these models."""
    return " or ".join(f"load_model('runs:/{run.run_id or '<run id>'}/{model.label}')" for model in models)
