"""The saver protocol: how every kind of model is written and read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from mlwrap._journal.names import Registered
from mlwrap._journal.records import Metrics, Saved
from mlwrap.errors import OptionError


class SaveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a call; each saver uses those that apply to it.

    Attributes:
        serving_input_receiver_fn: For Estimators: a function of no arguments that returns a
            ``ServingInputReceiver``; with it, a SavedModel for serving is exported too.
        input_example: Data that the model can be fed: an array, a mapping of names to arrays, a pandas
            frame or a list; for several models, a mapping of their names to such data.
        trust: Whether to pickle what has no safe format; loading it then needs trust, too.
        register_as: ``name`` or ``name@alias`` in MLflow's model registry; for several models, a mapping
            of their names to such texts.
        verify: ``"load"``: a separate process loads the model after it is logged; ``"static"``: only the
            checks of the saver when it saves.

    Raises:
        OptionError: MLflow does not accept a name or alias, or ``verify`` is neither of the two.
    """

    serving_input_receiver_fn: Callable[[], Any] | None = None
    input_example: Any = None
    trust: bool = False
    register_as: str | Mapping[str, str] | None = None
    verify: Literal["static", "load"] = "static"

    @property
    def registered(self) -> str | None:
        """The registered name of a single model."""
        return self.register_as if isinstance(self.register_as, str) else None

    def __post_init__(self) -> None:
        if self.verify not in {"static", "load"}:
            raise OptionError(f"verify={self.verify!r} can't be used: expected 'static' or 'load'.")
        names = self.register_as.values() if isinstance(self.register_as, Mapping) else (self.register_as,)
        for name in names:
            if name is not None:
                Registered.parse(name)


_subject: ContextVar[str] = ContextVar("_subject", default="")


@contextlib.contextmanager
def naming(run: str, model: str) -> Iterator[None]:
    """Add the names of the run and the model to savers' messages, which ``save`` does not receive."""
    token = _subject.set(f"{model!r} of run {run!r}")
    try:
        yield
    finally:
        _subject.reset(token)


def subject(what: str) -> str:
    """Return ``what``, followed by the names of its model and run if they are known."""
    return f"{what} {_subject.get()}".rstrip()


@runtime_checkable
class Saver(Protocol):
    """Writes one kind of object into a folder, and reads it back.

    Three members are optional. A method ``params(value)`` returns a mapping of the parameters that ``value``
    was made with; they become parameters of the run (``params.units``; for a model with a name of its own,
    ``<name>.params.units``). A method ``snapshot(value)`` returns an object that ``save`` gets in place of
    ``value``, in another thread; it is written as ``value`` was at the time of the snapshot, even if
    ``value`` changes meanwhile. It returns ``None`` if ``value`` can't be saved that way. If the attribute
    ``collective`` is true, each worker of a multi-worker TensorFlow strategy calls ``save``, and only what
    the chief (rank 0) writes is kept.

    Attributes:
        name: Identifies this saver in what it wrote, so that the same saver loads it.
        format: Number of the layout that ``save`` writes; ``load`` reads this one and older ones.
        default_name: The model's name in MLflow if the user gave none.
        frameworks: Top-level modules; ``matches`` is called only if one of them is imported.
    """

    # Read-only properties, so that a plain `frameworks = ("tensorflow",)` in a class passes the type checker.
    @property
    def name(self) -> str: ...
    @property
    def format(self) -> int: ...
    @property
    def default_name(self) -> str: ...
    @property
    def frameworks(self) -> tuple[str, ...]: ...

    def matches(self, value: object) -> bool:
        """Return whether this saver handles ``value``; never raises, never runs the model."""

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Write ``value`` into ``folder``, which exists and is empty.

        Raises:
            Exception: Whatever the framework raises; the caller reports it and removes the folder.
        """

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Return the metrics that ``value`` recorded of its own training, oldest first."""

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:
        """Return what ``save`` wrote into ``folder``.

        Args:
            folder: A copy of the folder, which also contains MLflow's own files.
            details: ``Saved.details``, as ``save`` returned it.
            into: An object to restore into, for savers that need one.
            trust: Whether code that came with the model may run.

        Raises:
            LoadError: It can't be loaded: says what was expected, what was found, and what to do.
        """
