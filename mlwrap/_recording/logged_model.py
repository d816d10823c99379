"""What a run says of a model that it logged."""

from __future__ import annotations

import re
from typing import Literal

_NOT_IN_NAMES = re.compile(r"[/:.%\"'\x00-\x1f]")


def plain_name(name: str) -> str:
    """``name`` without what MLflow does not take in the name of a model."""
    return _NOT_IN_NAMES.sub("_", name)


class LoggedModel:
    """A model that a run logged.

    Attributes:
        name: Its name in MLflow.
        status: ``SAVING``, then ``STAGED`` until MLflow has it, then ``READY``; ``FAILED`` if it could not be
            saved; ``REPLACED`` if it waited to be saved in the background when a newer one came.
        uri: ``models:/<model id>``, once MLflow has it; what :func:`mlwrap.load_model` takes.
        registered: ``models:/<name>/<version>``, once the registry has it.
        step: The training step that it was logged for.
        checkpoint: Whether it is a state on the way, which the run's ``model_uri`` never means.
        call: Which of the run's calls logged it; the models of one returned value share it.
    """

    def __init__(
        self,
        name: str,
        status: Literal["SAVING", "STAGED"] = "SAVING",
        *,
        step: int = 0,
        checkpoint: bool = False,
        call: int = 0,
    ) -> None:
        self.name = name
        self.status: str = status
        self.uri: str | None = None
        self.registered: str | None = None
        self.step, self.checkpoint, self.call = step, checkpoint, call

    @property
    def label(self) -> str:
        """Its name, and its step where it was logged for one: ``checkpoint@3``."""
        return f"{self.name}@{self.step}" if self.checkpoint or self.step else self.name

    def delivered(self, status: str, uri: str, registered: str | None) -> None:
        """Learn what MLflow has of it."""
        self.status, self.uri, self.registered = status, uri, registered or None

    def __repr__(self) -> str:
        return f"<LoggedModel {self.label!r} {self.status} {self.uri or ''}>"
