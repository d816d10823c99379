"""``NullRecorder``: the state of a run that records nothing."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import Literal

from mlwrap._journal.records import Status
from mlwrap._recording.logged_model import LoggedModel


class NullRecorder:
    """A run while tracking is disabled, which costs almost nothing; base class of the real recorders.

    Args:
        name: The run's name.
    """

    name = "run"
    status: Literal["RUNNING"] | Status = "RUNNING"
    run_id: str | None = None
    experiment: str | None = None
    experiment_id: str | None = None
    tracking_uri = ""
    offline = is_discarded = preempted = lost = False
    recording = False  # whether this process writes the run's journal
    ready = False
    verify: Literal["static", "load"] = "static"

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def key(self) -> str:
        """The run's id in mlwrap."""
        return uuid.uuid4().hex

    @property
    def logged(self) -> dict[str, LoggedModel]:
        """The logged models by their staged paths, in the order of logging."""
        return {}

    @property
    def recorded(self) -> bool:
        """Whether the run has a journal, in whichever process it is written."""
        return False
