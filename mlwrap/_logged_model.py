"""What a run says of a model that it logged."""

from __future__ import annotations

from typing import Literal


class LoggedModel:
    """A model that a run logged.

    Attributes:
        name: Its name in MLflow.
        status: ``STAGED`` until MLflow has it, then ``READY``; ``FAILED`` if it could not be saved.
        uri: ``models:/<model id>``, once MLflow has it; what :func:`mlwrap.load_model` takes.
    """

    def __init__(self, name: str, status: Literal["STAGED", "FAILED"]) -> None:
        self.name = name
        self.status: str = status
        self.uri: str | None = None

    def __repr__(self) -> str:
        return f"<LoggedModel {self.name!r} {self.status} {self.uri or ''}>"
