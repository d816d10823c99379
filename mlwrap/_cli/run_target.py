"""Call a training function from a shell, with its parameters as command-line options.

tyro parses them from the signature's types, the defaults and the docstring. The function is called only after
the whole command line has been parsed.
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

_INTERNAL_FILES = (str(Path(__file__).parents[1]), importlib.__file__, "<frozen importlib")
_INTERRUPTED = 130  # a shell's exit status for SIGINT
_UNREADABLE = object()


def run(
    target: str,
    arguments: Sequence[str],
    *,
    name: str | None = None,
    experiment: str | None = None,
    tracking_uri: str | None = None,
) -> None:
    """Call a function, tracked, with arguments from a command line.

    Args:
        target: ``package.module:function`` or ``path/to/file.py:function``. An undecorated function is
            tracked as if it were decorated without options.
        arguments: The options and their values; ``--help`` lists them.
        name: The run's name, instead of the function's or the decorator's.
        experiment: The experiment, which overrides the decorator's.
        tracking_uri: URI of MLflow, which overrides the decorator's.

    Raises:
        OptionError: No such function exists, it can't be tracked, or a required parameter can't be written
            in a shell. Nothing has run.
        MlwrapError: An error of mlwrap itself, outside the function.
        SystemExit: After ``--help`` (0), wrong options (2), an exception in the function or in its module
            (1, its traceback shown) and Ctrl-C (130).
    """
    try:
        module, function = _resolve_target(target)
        # The source of the run is the function's file, not the mlwrap command.
        tags = {"mlflow.source.name": getattr(module, "__file__", None) or target}
        if not relabel(function, name=name, tags=tags):
            function = tracked_training(name=name, tags=tags)(function)
        args, kwargs = _parse_arguments(target, function, arguments)
        overrides = {"experiment": experiment, "tracking_uri": tracking_uri}
        with override(**{option: value for option, value in overrides.items() if value is not None}):
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                import asyncio  # noqa: PLC0415 - only needed for a coroutine

                asyncio.run(result)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        trace = error.__traceback__  # skip frames up to the user's own code
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_INTERNAL_FILES):
            trace = trace.tb_next
        if trace is None and isinstance(error, MlwrapError):
            raise
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def _resolve_target(target: str) -> tuple[types.ModuleType, Callable[..., Any]]:
    """Return the module and the function that a target names."""
    source, _, name = target.rpartition(":")
    if not source or not name:
        raise OptionError(
            f"{target!r} names no function: expected package.module:function or path/to/file.py:function."
        )
    module = _load_module(source)
    function: Any = module
    for part in name.split("."):
        if not hasattr(function, part):
            raise OptionError(f"{source} has no {name!r}. It defines: {_function_names(module)}.")
        function = getattr(function, part)
    if not callable(function):
        raise OptionError(
            f"{target} is {type(function).__name__} and no function. {source} defines: "
            f"{_function_names(module)}."
        )
    return module, function


def _function_names(module: types.ModuleType) -> str:
    members = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    names = [
        n for n, v in members.items() if callable(v) and not inspect.isclass(v) and not n.startswith("_")
    ]
    return ", ".join(names) or "no functions"


def _load_module(source: str) -> types.ModuleType:
    """Import the module that a target names, as ``python -m`` or ``python file.py`` would find it."""
    if source.endswith(".py"):
        return _load_file(Path(source))
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name and f"{source}.".startswith(f"{error.name}."):  # else the module itself imports it
            raise OptionError(
                f"there is no module {error.name!r}, in {Path.cwd()} or installed. A file is named by "
                "its path: path/to/file.py:function."
            ) from None
        raise
    except (TypeError, ValueError):
        if source.startswith(".") or ".." in source:
            raise OptionError(f"{source!r} is no name of a module: expected package.module.") from None
        raise


def _load_file(path: Path) -> types.ModuleType:
    """Load a file as a module, under the name by which its neighbours and other processes can import it."""
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


def _parse_arguments(
    target: str, function: Callable[..., Any], arguments: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse a command line with tyro into the arguments of a function."""
    import tyro  # noqa: PLC0415 - takes 0.2 s, which other commands do not need

    signature, unwrapped = inspect.signature(function), _unwrapped(function)
    options = [_to_option(p, getattr(unwrapped, "__globals__", {})) for p in signature.parameters.values()]
    required = [option for option in options if option.default is Parameter.empty]
    if refused := [option for option in required if not _has_shell_form(option)]:
        raise OptionError(
            f"{target} can't be called from a shell: no text can become its "
            f"{_parameter_list(refused)}. Annotate with what can be read from text (numbers, str, "
            "Path, Literal, enums, lists, dataclasses), or give a default."
        )
    fixed: Any = tyro.conf.Fixed
    options = [o.replace(annotation=fixed[Any]) if o.annotation is _UNREADABLE else o for o in options]
    by_position, by_name = tyro.cli(
        _collector(options, unwrapped.__doc__), prog=f"mlwrap run {target}", args=arguments
    )
    without_name = [o.name for o in options if o.kind is Parameter.POSITIONAL_ONLY]
    values = dict(zip(without_name, by_position, strict=True)) | by_name
    call = inspect.BoundArguments(signature, values)
    return call.args, call.kwargs


def _unwrapped(function: Any) -> Any:
    """Return the function behind decorators, partials and callable objects."""
    unwrapped = inspect.unwrap(function)
    while isinstance(unwrapped, functools.partial):
        unwrapped = inspect.unwrap(unwrapped.func)
    return unwrapped if inspect.isroutine(unwrapped) else inspect.unwrap(type(unwrapped).__call__)


def _to_option(parameter: Parameter, names: dict[str, Any]) -> Parameter:
    """Convert a parameter to a command-line option, named unless it is positional-only."""
    hint = _type_hint(parameter, names)
    typed = hint not in (Parameter.empty, _UNREADABLE)
    default: Any = parameter.default
    if typed and default is None:
        hint = typing.Optional[hint]  # noqa: UP045 - "units: int = None" means Optional
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


def _type_hint(parameter: Parameter, names: dict[str, Any]) -> Any:
    """Return a parameter's type; ``_UNREADABLE`` if its names exist only for type checkers."""
    if parameter.annotation is Parameter.empty:
        return Parameter.empty
    annotated = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(annotated, names, include_extras=True)[parameter.name]
    except Exception:  # noqa: BLE001 - an annotation can run any code
        return _UNREADABLE


def _collector(parameters: Sequence[Parameter], doc: str | None) -> Callable[..., Any]:
    """Return a function that returns its own arguments, so that parsing does not run the target."""

    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    collect.__annotations__ = {
        p.name: p.annotation for p in parameters if p.annotation is not Parameter.empty
    }
    collect.__doc__ = doc
    return collect


def _has_shell_form(parameter: Parameter) -> bool:
    """Return whether tyro can make an option of a parameter, which shows in its ``--help``."""
    import tyro  # noqa: PLC0415 - see above

    if parameter.annotation is _UNREADABLE:
        return False
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tyro.cli(_collector([parameter], None), prog="", args=["--help"], console_outputs=False)
    except SystemExit as end:
        return not end.code
    except Exception:  # noqa: BLE001 - tyro fails on some types
        return False
    return True


def _parameter_list(parameters: Sequence[Parameter]) -> str:
    """List parameters with their types, for a sentence."""
    return ", ".join(
        p.name
        if p.annotation in (Parameter.empty, _UNREADABLE)
        else f"{p.name} ({inspect.formatannotation(p.annotation)})"
        for p in parameters
    )
