"""A training function, called from a shell: its options are its parameters.

The parsing is tyro's, which reads a signature's types, defaults and docstring. The function itself is called
only when all of the command line has been understood.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from inspect import Parameter
from pathlib import Path
from typing import Any

from mlwrap._decorator.tracked_training import relabel, tracked_training
from mlwrap.config import override
from mlwrap.errors import MlwrapError, OptionError

_NOT_THE_USERS = (str(Path(__file__).parent), importlib.__file__, "<frozen importlib")
_INTERRUPTED = 130  # as shells number an end by SIGINT
_UNREADABLE = object()


def run(
    target: str,
    arguments: Sequence[str],
    *,
    name: str | None = None,
    experiment: str | None = None,
    tracking_uri: str | None = None,
) -> None:
    """Call a function with what stands on a command line, tracked.

    Args:
        target: ``package.module:function`` or ``path/to/file.py:function``. One that is not decorated is
            tracked as if it were, without options.
        arguments: The options and their values; ``--help`` shows what there is.
        name: The run's name, instead of the function's or the decorator's.
        experiment: The experiment, whatever the decorator says.
        tracking_uri: Where MLflow is, likewise.

    Raises:
        OptionError: There is no such function, it can't be tracked, or a parameter that it needs can't be
            written in a shell. Nothing has run.
        MlwrapError: What mlwrap itself raises around the function.
        SystemExit: After ``--help`` (0), options that do not fit (2), an exception in the function or in its
            module (1, its traceback shown) and Ctrl-C (130).
    """
    try:
        module, function = _find(target)
        # Where it came from is its own file, and not the command that this process runs.
        tags = {"mlflow.source.name": getattr(module, "__file__", None) or target}
        if not relabel(function, name=name, tags=tags):
            function = tracked_training(name=name, tags=tags)(function)
        args, kwargs = _parsed(target, function, arguments)
        chosen = {"experiment": experiment, "tracking_uri": tracking_uri}
        with override(**{option: value for option, value in chosen.items() if value is not None}):
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                import asyncio  # noqa: PLC0415 - only where it is needed

                asyncio.run(result)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        trace = error.__traceback__  # from the user's own code on
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
            trace = trace.tb_next
        if trace is None and isinstance(error, MlwrapError):
            raise
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def _find(target: str) -> tuple[types.ModuleType, Callable[..., Any]]:
    """The module and the function that a target names."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise OptionError(
            f"{target!r} names no function: expected package.module:function or path/to/file.py:function."
        )
    module = _module(place)
    function: Any = module
    for part in name.split("."):
        if not hasattr(function, part):
            raise OptionError(f"{place} has no {name!r}. It defines: {_function_names(module)}.")
        function = getattr(function, part)
    if not callable(function):
        raise OptionError(
            f"{target} is {type(function).__name__} and no function. {place} defines: "
            f"{_function_names(module)}."
        )
    return module, function


def _function_names(module: types.ModuleType) -> str:
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    names = [n for n, v in own.items() if callable(v) and not inspect.isclass(v) and not n.startswith("_")]
    return ", ".join(names) or "no functions"


def _module(place: str) -> types.ModuleType:
    """The module that a target names; looked for as by ``python -m`` and by ``python file.py``."""
    if place.endswith(".py"):
        return _file(Path(place))
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and f"{place}.".startswith(f"{error.name}."):  # else it is one that the module needs
            raise OptionError(
                f"there is no module {error.name!r}, in {Path.cwd()} or installed. A file is named by "
                "its path: path/to/file.py:function."
            ) from None
        raise
    except (TypeError, ValueError):
        if place.startswith(".") or ".." in place:
            raise OptionError(f"{place!r} is no name of a module: expected package.module.") from None
        raise


def _file(path: Path) -> types.ModuleType:
    """A file's module, under the name by which its neighbours and other processes can import it."""
    if not path.is_file():
        raise OptionError(f"there is no file {str(path)!r} in {Path.cwd()}.")
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        raise OptionError(
            f"{str(path)!r} has the name of another module, {name!r}: give the file another name."
        )
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    loader = SourceFileLoader(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _parsed(
    target: str, function: Callable[..., Any], arguments: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call a function with, as tyro reads it from a command line."""
    import tyro  # noqa: PLC0415 - a fifth of a second that no other command should pay

    signature, plain = inspect.signature(function), _unwrapped(function)
    options = [_option(p, getattr(plain, "__globals__", {})) for p in signature.parameters.values()]
    needed = [option for option in options if option.default is Parameter.empty]
    if refused := [option for option in needed if not _can_be_written(option)]:
        raise OptionError(
            f"{target} can't be called from a shell: no text can become its "
            f"{_parameter_list(refused)}. Annotate with what can be read from text (numbers, str, "
            "Path, Literal, enums, lists, dataclasses), or give a default."
        )
    fixed: Any = tyro.conf.Fixed
    options = [o.replace(annotation=fixed[Any]) if o.annotation is _UNREADABLE else o for o in options]
    by_position, by_name = tyro.cli(
        _collector(options, plain.__doc__), prog=f"mlwrap run {target}", args=arguments
    )
    without_name = [o.name for o in options if o.kind is Parameter.POSITIONAL_ONLY]
    values = dict(zip(without_name, by_position, strict=True)) | by_name
    call = inspect.BoundArguments(signature, values)
    return call.args, call.kwargs


def _unwrapped(function: Any) -> Any:
    """The function behind decorators, partials and objects that can be called."""
    plain = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    return plain if inspect.isroutine(plain) else inspect.unwrap(type(plain).__call__)


def _option(parameter: Parameter, names: dict[str, Any]) -> Parameter:
    """A parameter as it stands on a command line, where any but a positional-only one has a name."""
    hint = _hint(parameter, names)
    typed = hint not in (Parameter.empty, _UNREADABLE)
    default: Any = parameter.default
    if typed and default is None:
        hint = typing.Optional[hint]  # noqa: UP045 - as "units: int = None" is meant
    match parameter.kind:
        case Parameter.POSITIONAL_ONLY:
            return parameter.replace(annotation=hint)
        case Parameter.VAR_POSITIONAL:
            hint = types.GenericAlias(tuple, (hint, ...)) if typed else _UNREADABLE
            default = ()
        case Parameter.VAR_KEYWORD:
            hint = types.GenericAlias(dict, (str, hint)) if typed else _UNREADABLE
            default = {}
    return parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def _hint(parameter: Parameter, names: dict[str, Any]) -> Any:
    """The type of a parameter; ``_UNREADABLE`` where only a type checker imports what it names."""
    if parameter.annotation is Parameter.empty:
        return Parameter.empty
    annotated = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(annotated, names, include_extras=True)[parameter.name]
    except Exception:  # noqa: BLE001 - annotations are anybody's code
        return _UNREADABLE


def _collector(parameters: Sequence[Parameter], doc: str | None) -> Callable[..., Any]:
    """A function that gives back what it is called with: parsing must not run anything."""

    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    collect.__annotations__ = {
        p.name: p.annotation for p in parameters if p.annotation is not Parameter.empty
    }
    collect.__doc__ = doc
    return collect


def _can_be_written(parameter: Parameter) -> bool:
    """Whether tyro can make an option of a parameter: only then it has a help for it."""
    import tyro  # noqa: PLC0415 - see above

    if parameter.annotation is _UNREADABLE:
        return False
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tyro.cli(_collector([parameter], None), prog="", args=["--help"], console_outputs=False)
    except SystemExit as end:
        return not end.code
    except Exception:  # noqa: BLE001 - there are types that it stumbles over
        return False
    return True


def _parameter_list(parameters: Sequence[Parameter]) -> str:
    """Parameters with their types, for a sentence."""
    return ", ".join(
        p.name
        if p.annotation in (Parameter.empty, _UNREADABLE)
        else f"{p.name} ({inspect.formatannotation(p.annotation)})"
        for p in parameters
    )
