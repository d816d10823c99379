"""What a saver is: the one shape that every kind of model is written and read through."""

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
    """What a caller may ask of a saver; each saver takes what concerns it.

    Attributes:
        serving_input_receiver_fn: For Estimators: a function of no arguments that returns a
            ``ServingInputReceiver``; with it, a SavedModel that can serve is exported too.
        input_example: What the model can be fed: an array, a mapping of names to arrays, a pandas frame or a
            list; for several models, a mapping of their names to such.
        trust: Whether pickle may be used for what has no safe format: loading it will need trust, too.
        register_as: ``name`` or ``name@alias`` in MLflow's registry; for several models, likewise.
        verify: ``"load"``: a process of its own loads the model once it is logged; ``"static"``: what the
            saver checks when it saves.

    Raises:
        OptionError: A name or an alias that MLflow would not take, or a way to verify that there is not.
    """

    serving_input_receiver_fn: Callable[[], Any] | None = None
    input_example: Any = None
    trust: bool = False
    register_as: str | Mapping[str, str] | None = None
    verify: Literal["static", "load"] = "static"

    @property
    def registered(self) -> str | None:
        """What a single model is to be registered as."""
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
    """Within this, messages of savers name the run and the model, which ``save`` is not told."""
    token = _subject.set(f"{model!r} of run {run!r}")
    try:
        yield
    finally:
        _subject.reset(token)


def subject(what: str) -> str:
    """``what`` is being saved, with its name and its run's where these are known."""
    return f"{what} {_subject.get()}".rstrip()


@runtime_checkable
class Saver(Protocol):
    """Writes one kind of object into a folder, and gives it back from there.

    It may have a method ``params(value)``: a mapping of the parameters that ``value`` was made with,
    which become parameters of the run (``params.units``; of a model with a name of its own,
    ``<name>.params.units``). It may have a method ``snapshot(value)``: what ``save`` is given in place of
    ``value``, in another thread, to write it as it was when that was made, whatever becomes of it meanwhile;
    or ``None`` if ``value`` can't be saved that way. And it may have a ``collective`` that is true: under a
    strategy of TensorFlow's over several workers each of them calls ``save``, and what all but the chief
    write is thrown away.

    Attributes:
        name: Signs what this saver wrote, so that the right one is found again to load it.
        format: Number of the layout that ``save`` writes; ``load`` reads this one and older ones.
        default_name: What the model is called in MLflow when nobody gave it a name.
        frameworks: Top-level modules; ``matches`` is asked only if one of them is imported.
    """

    # Read-only here, so that a plain `frameworks = ("tensorflow",)` in a class fits the type checker.
    @property
    def name(self) -> str: ...
    @property
    def format(self) -> int: ...
    @property
    def default_name(self) -> str: ...
    @property
    def frameworks(self) -> tuple[str, ...]: ...

    def matches(self, value: object) -> bool:
        """Tell whether this saver is the one for ``value``; never raises, never runs the model."""

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Write ``value`` into ``folder``, which exists and is empty.

        Raises:
            Exception: Whatever the framework raises; the caller reports it and removes the folder.
        """

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """The metrics that ``value`` remembers of its own training, oldest first."""

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:
        """Give back what ``save`` wrote into ``folder``.

        Args:
            folder: A copy of the folder, with MLflow's own files beside the saver's.
            details: ``Saved.details`` of the time of writing.
            into: An object to restore into, for savers that need one.
            trust: Whether code that came with the model may run.

        Raises:
            LoadError: It can't be loaded: what was expected, what came, what to do.
        """
