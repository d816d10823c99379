"""Names that a user gives: the path of an artifact, and what a model is called in MLflow's registry."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from mlwrap.errors import OptionError

_ALIAS = re.compile(r"[\w-]{1,255}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


def artifact_path(path: str) -> PurePosixPath:
    """``path`` as the path of an artifact.

    Raises:
        OptionError: It is not relative, or leads out of the run's artifacts.
    """
    checked = PurePosixPath(path)
    if not checked.name or checked.is_absolute() or ".." in checked.parts:
        raise OptionError(
            f"{path!r} is no artifact path: expected a relative one without '..', as 'plots/roc.png'."
        )
    return checked


class Registered(NamedTuple):
    """A model's name in the registry, and an alias that is to point at its new version."""

    name: str
    alias: str | None

    @classmethod
    def parse(cls, text: object) -> Registered:
        """Take ``name`` or ``name@alias`` apart.

        The rules are MLflow's (``mlflow/utils/validation.py``), asked before a training and not after it.

        Raises:
            OptionError: MLflow would not take it: says which part, and what it takes.
        """
        if not isinstance(text, str):
            raise OptionError(f"register_as={text!r} can't be used: expected 'name' or 'name@alias'.")
        name, at, alias = text.partition("@")
        if not name.strip() or any(c in name for c in "/:") or name in {".", ".."}:
            raise OptionError(
                f"register_as={text!r} can't be used: a registered model's name has at least one character, "
                "and no '/' or ':' among them, as in 'digits' or 'digits@champion'."
            )
        if at and (not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias)):
            raise OptionError(
                f"register_as={text!r} can't be used: an alias is made of letters, digits, '_' and '-', and "
                "is not 'latest' or a version such as 'v1', as in 'digits@champion'."
            )
        return cls(name, alias or None)
