"""Settings, where each source overrides the one before: default, ``MLWRAP_*``, ``configure()``, the call."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict, get_args, get_type_hints

import msgspec

from mlwrap.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Options", "Settings", "configure", "settings"]

Delivery = Literal["sender", "inline", "off"]
Nonfinite = Literal["tag", "skip", "stop"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run; each field is also an environment variable ``MLWRAP_<FIELD>``.

    Attributes:
        spool: Folder for run folders; default ``None``, the user's state folder.
        delivery: ``"sender"`` (default): a background process uploads to MLflow, while the training continues
            and after it has ended; ``"inline"``: the training process uploads when the run ends; ``"off"``:
            the run folder waits for ``mlwrap sync``.
        deadline: Seconds without upload progress after which the end of a run stops waiting (default 10).
        linger: Seconds for which a sender waits for the next run after the last one is delivered (default
            60), so that a script that starts then need not wait for it to start.
        wait: Whether the end of a run waits until MLflow has all of it (default true). If false,
            ``run.wait()`` or the end of the process waits. If the training process itself delivers, its runs
            always wait.
        tracking_uri: MLflow's tracking URI; default ``None`` uses MLflow's (``mlflow.set_tracking_uri``,
            ``MLFLOW_TRACKING_URI``), which defaults to ``sqlite:///mlflow.db``.
        experiment: Name of the experiment; default ``None`` uses MLflow's (``mlflow.set_experiment``,
            ``MLFLOW_EXPERIMENT_NAME``).
        cache_size: Gigabytes for the cache of downloaded models (default 10); the least recently used models
            are removed first.
        strict: Raise ``SaveError`` if a returned model can't be saved, instead of warning (default false).
        quiet: Print nothing when runs start and end, except warnings (default false).
        disabled: Run every training function untracked (default false).
        chief: Whether this process is the chief (rank 0), the one of several workers that records; default
            ``None`` detects it from ``TF_CONFIG``, Slurm, MPI, ``RANK`` or JAX.
        preemption_signal: Signal that announces the end of the process, such as ``"SIGUSR1"`` for Slurm's
            ``--signal=USR1@60``; default ``None``. The signal then ends nothing: ``run.preempted`` becomes
            true, and the training function decides.
        nonfinite: How to treat a NaN or infinite metric. ``"tag"`` (default): log it, and tag the run with
            the first one (``mlwrap.diverged``). ``"skip"``: only tag the run. ``"stop"``: log it, tag the run
            and end the training: the logging call raises ``Diverged``, and Keras and Estimators stop.
        thin_after: Points of one metric after which MLflow gets a down-sampled metric (default 1,000,000):
            every second point of as many again, every fourth of twice as many after those, and so on, always
            including the first, last, min and max. The run's artifact ``thinned_metrics.csv.gz`` then has all
            points. 0: never down-sample.
        system_metrics: Log system metrics (processors, memory, disk, network, GPUs) as MLflow does; default
            ``None`` uses MLflow's setting (``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING``). Needs
            ``delivery="sender"``, since the background uploader logs them.
    """

    spool: str | None = None
    delivery: Delivery = "sender"
    deadline: float = 10.0
    linger: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    wait: bool = True
    tracking_uri: str | None = None
    experiment: str | None = None
    cache_size: float = 10.0
    strict: bool = False
    quiet: bool = False
    disabled: bool = False
    chief: bool | None = None
    preemption_signal: str | None = None
    nonfinite: Nonfinite = "tag"
    thin_after: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    system_metrics: bool | None = None


class Options(TypedDict, total=False):
    """The fields of :class:`Settings` as options of a call, for static types; ``None`` means "not given"."""

    spool: str | os.PathLike[str] | None
    delivery: Delivery | None
    deadline: float | None
    linger: float | None
    wait: bool | None
    tracking_uri: str | None
    experiment: str | None
    cache_size: float | None
    strict: bool | None
    quiet: bool | None
    disabled: bool | None
    chief: bool | None
    preemption_signal: str | None
    nonfinite: Nonfinite | None
    thin_after: int | None
    system_metrics: bool | None


_TYPES: dict[str, Any] = get_type_hints(Settings, include_extras=True)
_VARIABLES = {name: f"MLWRAP_{name.upper()}" for name in _TYPES}
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # in addition to 1, 0, true and false
_configured: dict[str, Any] = {}
_overrides: dict[str, Any] = {}


class EffectiveSettings(NamedTuple):
    """The settings of a process, in a form that it passes to another process which works for it.

    Attributes:
        defaults: Settings that a call's own options override.
        overrides: Settings that override a call's own options.
    """

    defaults: Mapping[str, Any]
    overrides: Mapping[str, Any]


_EMPTY = EffectiveSettings({}, {})
_scope: ContextVar[EffectiveSettings] = ContextVar("mlwrap_adopted", default=_EMPTY)


def configure(**options: Unpack[Options]) -> None:
    """Set settings for this process; they override the environment, and a call's own options override them.

    Args:
        **options: Fields of :class:`Settings`; ``None`` resets a setting to the environment or the default.

    Raises:
        OptionError: A name is not a setting, or a value has the wrong type; nothing is changed.
    """
    checked = {name: checked_option(name, value) for name, value in options.items()}
    for name, value in checked.items():
        if value is None:
            _configured.pop(name, None)
        else:
            _configured[name] = value


def settings(**options: Unpack[Options]) -> Settings:
    """Return the effective settings for one call.

    Args:
        **options: The call's own options; ``None`` means "not given".

    Raises:
        OptionError: A name or type is wrong, in ``options`` or in the environment.
    """
    defaults, overrides = effective_settings()
    merged = dict(defaults)
    for name, value in options.items():
        if value is not None:
            merged[name] = checked_option(name, value)
    return Settings(**merged | dict(overrides))


def is_own_option(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a call's own options, or settings that override them, set ``name``."""
    return options.get(name) is not None or name in _overrides or name in _scope.get().overrides


def is_disabled(own: bool | None) -> bool:
    """Return ``settings(disabled=own).disabled`` without reading any other setting.

    Raises:
        OptionError: The environment variable has a wrong type.
    """
    scope = _scope.get()
    if scope is not _EMPTY and "disabled" in scope.overrides:
        return bool(scope.overrides["disabled"])
    if _overrides and "disabled" in _overrides:
        return bool(_overrides["disabled"])
    if own is not None:
        return own
    if scope is not _EMPTY and "disabled" in scope.defaults:
        return bool(scope.defaults["disabled"])
    if "disabled" in _configured:
        return bool(_configured["disabled"])
    try:
        text = os.environ["MLWRAP_DISABLED"]
    except KeyError:
        return False
    return text == "1" or bool(text and _from_environment("disabled", text))


def effective_settings() -> EffectiveSettings:
    """Return this context's settings, for :func:`settings_scope` in a process or thread that works for it.

    Raises:
        OptionError: An environment variable has a wrong type.
    """
    merged: dict[str, Any] = {}
    for name, variable in _VARIABLES.items():
        text = os.environ.get(variable)
        if text:  # an empty variable counts as unset, as shell users expect
            merged[name] = _from_environment(name, text)
    scope = _scope.get()
    return EffectiveSettings({**merged, **_configured, **scope.defaults}, {**_overrides, **scope.overrides})


@functools.cache
def _from_environment(name: str, text: str) -> Any:
    """Convert an environment variable's text to the setting's type."""
    hint = _TYPES[name]
    value = _WORDS.get(text.lower(), text) if bool in {hint, *get_args(hint)} else text
    return _convert(_VARIABLES[name], value, hint, strict=False)


@contextlib.contextmanager
def settings_scope(theirs: EffectiveSettings) -> Iterator[None]:
    """Apply another process's settings within the block, in this context only."""
    token = _scope.set(theirs)
    try:
        yield
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def override(**options: Any) -> Iterator[None]:
    """Override all other settings within the block, including a call's own options."""
    previous = _overrides.copy()
    _overrides.update(options)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(previous)


def checked_option(name: str, value: Any) -> Any:
    """Return ``value`` converted for the setting ``name``.

    Raises:
        OptionError: ``name`` is not a setting, or ``value`` has the wrong type.
    """
    if name not in _TYPES:
        names = ", ".join(_TYPES)
        raise OptionError(f"{name!r} is no setting of mlwrap. Choose from: {names}.")
    if value is None:
        return None
    if name == "spool" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _convert(name, value, _TYPES[name], strict=True)


def check_type(name: str, value: object, expected: Any) -> None:
    """Check that ``value`` is an instance of ``expected``, a built-in class.

    Raises:
        OptionError: ``value`` is something else.
    """
    if not isinstance(value, expected):
        raise OptionError(
            f"{name}={value!r} can't be used: expected {expected.__name__}, got {type(value).__name__}."
        )


def _convert(name: str, value: Any, hint: Any, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError as error:
        expected = str(error).replace("`", "")
        raise OptionError(f"{name}={value!r} can't be used: {expected}.") from None
