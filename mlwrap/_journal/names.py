"""Check names that a user chooses: an artifact's path, and a model's name in MLflow's registry."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from mlwrap.errors import OptionError

_ALIAS = re.compile(r"[\w-]{1,255}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


def artifact_path(path: str) -> PurePosixPath:
    """Return ``path`` as the path of an artifact.

    Raises:
        OptionError: The path is not relative, or leads out of the run's artifacts.
    """
    checked = PurePosixPath(path)
    if not checked.name or checked.is_absolute() or ".." in checked.parts:
        raise OptionError(
            f"{path!r} is no artifact path: expected a relative one without '..', as 'plots/roc.png'."
        )
    return checked


class Registered(NamedTuple):
    """A model's name in the registry, and the alias to point at its new version."""

    name: str
    alias: str | None

    @classmethod
    def parse(cls, text: object) -> Registered:
        """Parse ``name`` or ``name@alias``.

        The rules are MLflow's (``mlflow/utils/validation.py``). mlwrap checks them before the training, not
        after it.

        Raises:
            OptionError: MLflow would refuse the name or the alias; the message says which, and what fits.
        """
        if not isinstance(text, str):
            raise OptionError(f"register_as={text!r} can't be used: expected 'name' or 'name@alias'.")
        name, separator, alias = text.partition("@")
        if not name.strip() or any(c in name for c in "/:") or name in {".", ".."}:
            raise OptionError(
                f"register_as={text!r} can't be used: a registered model's name has at least one character, "
                "and no '/' or ':' among them, as in 'digits' or 'digits@champion'."
            )
        if separator and (not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias)):
            raise OptionError(
                f"register_as={text!r} can't be used: an alias is made of letters, digits, '_' and '-', and "
                "is not 'latest' or a version such as 'v1', as in 'digits@champion'."
            )
        return cls(name, alias or None)
