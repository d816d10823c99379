"""Settings: default < environment (``MLWRAP_*``) < ``configure()`` < the call itself."""

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
    """What a run may be told; each field is also an environment variable ``MLWRAP_<FIELD>``.

    Attributes:
        spool: Folder that run folders live in; ``None`` for the user's state folder.
        delivery: ``"sender"``: a process of its own tells MLflow, while training goes on and after it has
            died; ``"inline"``: the training process does, when the run ends; ``"off"``: the run folder waits
            for ``mlwrap sync``.
        deadline: Seconds without progress after which the end of a run stops waiting for delivery.
        wait: Whether the end of a run waits until MLflow has all of it. If not, ``run.wait()`` does, or the
            end of the process; where the process itself delivers, its runs wait in any case.
        tracking_uri: MLflow's tracking URI; ``None`` asks MLflow (``mlflow.set_tracking_uri``,
            ``MLFLOW_TRACKING_URI``), whose own default is ``sqlite:///mlflow.db``.
        experiment: Name of the experiment; ``None`` asks MLflow likewise.
        cache_size: Gigabytes that downloaded models may take; the least recently used ones go first.
        strict: Raise ``SaveError`` where a returned model can't be saved, instead of warning.
        quiet: Say nothing on standard error when runs start and end. Warnings still come.
        disabled: Run every body untracked.
        chief: Whether this process is the one of several workers that records; ``None`` finds out, from
            ``TF_CONFIG``, Slurm, MPI, ``RANK`` or JAX.
        preemption_signal: A signal that says that the process will be ended soon, such as ``"SIGUSR1"`` for
            Slurm's ``--signal=USR1@60``. It ends nothing then: ``run.preempted`` becomes true, and the body
            decides.
        nonfinite: What becomes of a metric that is NaN or infinite. ``"tag"``: it is logged as it is, and the
            run tagged with the first (``mlwrap.diverged``). ``"skip"``: only tagged. ``"stop"``: logged and
            tagged, and the training ends: ``Diverged`` is raised where it was logged, and Keras and
            Estimators are asked to stop.
        thin_after: How many points of one metric MLflow is told before it is told fewer: every second one of
            as many again, every fourth of twice as many after those, and so on, but always the first, the
            last, the least and the greatest. All of them are in the run's artifact
            ``thinned_metrics.csv.gz`` then. 0: it is told all, however many.
        system_metrics: Log what the machine does (processors, memory, disk, network, GPUs) as MLflow does;
            ``None`` asks MLflow (``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING``). The sender does it, so it takes
            ``delivery="sender"``.
    """

    spool: str | None = None
    delivery: Delivery = "sender"
    deadline: float = 10.0
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
    """:class:`Settings` as options of a call, for static types; ``None`` means "not given"."""

    spool: str | os.PathLike[str] | None
    delivery: Delivery | None
    deadline: float | None
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
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # beside 1, 0, true and false
_configured: dict[str, Any] = {}
_forced: dict[str, Any] = {}


class EffectiveSettings(NamedTuple):
    """What a process was told, for another one that works for it.

    Attributes:
        below: Settings that a call's own options go before.
        above: Settings that go before these, too.
    """

    defaults: Mapping[str, Any]
    overrides: Mapping[str, Any]


_NOTHING = EffectiveSettings({}, {})
_adopted: ContextVar[EffectiveSettings] = ContextVar("mlwrap_adopted", default=_NOTHING)


def configure(**options: Unpack[Options]) -> None:
    """Set settings for this process, over the environment and under each call's own options.

    Args:
        **options: Fields of :class:`Settings`; ``None`` takes a setting back to what lies below.

    Raises:
        OptionError: A name that is no setting, or a value of the wrong type; nothing is changed.
    """
    checked = {name: checked_option(name, value) for name, value in options.items()}
    for name, value in checked.items():
        if value is None:
            _configured.pop(name, None)
        else:
            _configured[name] = value


def settings(**options: Unpack[Options]) -> Settings:
    """The settings in force for one call.

    Args:
        **options: The call's own; ``None`` means "not given".

    Raises:
        OptionError: A wrong name or type, here or in the environment.
    """
    below, above = effective_settings()
    merged = dict(below)
    for name, value in options.items():
        if value is not None:
            merged[name] = checked_option(name, value)
    return Settings(**merged | dict(above))


def is_own_option(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a call's own options say a setting, or what goes before them does."""
    return options.get(name) is not None or name in _forced or name in _adopted.get().overrides


def is_disabled(own: bool | None) -> bool:
    """``settings(disabled=own).disabled``, without asking for anything else.

    Raises:
        OptionError: A wrong type in the environment.
    """
    adopted = _adopted.get()
    if adopted is not _NOTHING and "disabled" in adopted.overrides:
        return bool(adopted.overrides["disabled"])
    if _forced and "disabled" in _forced:
        return bool(_forced["disabled"])
    if own is not None:
        return own
    if adopted is not _NOTHING and "disabled" in adopted.defaults:
        return bool(adopted.defaults["disabled"])
    if "disabled" in _configured:
        return bool(_configured["disabled"])
    try:
        text = os.environ["MLWRAP_DISABLED"]
    except KeyError:
        return False
    return text == "1" or bool(text and _from_environment("disabled", text))


def effective_settings() -> EffectiveSettings:
    """What is in force here, for :func:`settings_scope` where another process, or thread, works for this one.

    Raises:
        OptionError: A wrong type in the environment.
    """
    merged: dict[str, Any] = {}
    for name, variable in _VARIABLES.items():
        text = os.environ.get(variable)
        if text:  # set but empty means unset, as a shell user expects
            merged[name] = _from_environment(name, text)
    adopted = _adopted.get()
    return EffectiveSettings({**merged, **_configured, **adopted.defaults}, {**_forced, **adopted.overrides})


@functools.cache
def _from_environment(name: str, text: str) -> Any:
    """What the environment says of a setting."""
    hint = _TYPES[name]
    known = _WORDS.get(text.lower(), text) if bool in {hint, *get_args(hint)} else text
    return _convert(_VARIABLES[name], known, hint, strict=False)


@contextlib.contextmanager
def settings_scope(theirs: EffectiveSettings) -> Iterator[None]:
    """Let what another process was told be in force here, in this context alone."""
    token = _adopted.set(theirs)
    try:
        yield
    finally:
        _adopted.reset(token)


@contextlib.contextmanager
def override(**options: Any) -> Iterator[None]:
    """Settings that go before all others, the call's own among them, for as long as the block lasts."""
    before = _forced.copy()
    _forced.update(options)
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def checked_option(name: str, value: Any) -> Any:
    """Give ``value`` back if it is right for the setting ``name``; raise ``OptionError`` if not."""
    if name not in _TYPES:
        known = ", ".join(_TYPES)
        raise OptionError(f"{name!r} is no setting of mlwrap. Choose from: {known}.")
    if value is None:
        return None
    if name == "spool" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _convert(name, value, _TYPES[name], strict=True)


def check_type(name: str, value: object, expected: Any) -> None:
    """Raise ``OptionError`` if ``value`` is no ``expected``, a class of the language's own."""
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
