"""Convert a value to its recorded form: a leaf, or a branch with parts.

Frameworks are recognised by the names in a type's method resolution order, never by importing them. Data
and models are described by type, shape and dtype: never iterated, never moved off a device. An object's own
code (``get_config``, ``__repr__``) may raise; the caller handles that.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple

from mlwrap._capture import values
from mlwrap._capture.secret_annotations import annotated_fields
from mlwrap._capture.secret_shapes import REDACTED
from mlwrap._capture.values import PLAIN, Leaf, described, qualified

__all__ = ["Branch", "examine", "is_growing"]

_MAX_PLAIN_ITEMS = 10_000  # items of a list of plain values that are kept; of a longer one, the first few
_MAX_EXAMINED_ITEMS = 1_000  # items of a list that are examined one by one


class Branch(NamedTuple):
    """A value with parts.

    Attributes:
        head: The leaf recorded under the value's own name, or ``None``.
        parts: Name and value of each part; may be endless.
        size: Number of parts, if known.
        secrets: Names of parts that are marked as secret.
    """

    head: Leaf
    parts: Iterable[tuple[object, object]]
    size: int | None = None
    secrets: frozenset[str] = frozenset()


Examiner = Callable[[Any], "Leaf | Branch"]


def examine(value: object) -> Leaf | Branch:
    """Convert a value to a leaf or a branch; raises what the value's own code raises."""
    if isinstance(value, Enum):  # first, since an Enum may also be a str or int
        return value.name or str(value)  # a combination of flags has no name on Python 3.10
    handler = _handler_for(type(value)) or _handler_for(value.__class__)  # a proxy's is the wrapped class
    if handler is None:
        handler = next(handler for fits, handler in _STRUCTURES if fits(value))
    return handler(value)


def is_growing(value: object) -> bool:
    """Return whether a call can add parts to ``value``, as it adds parameters to an Optuna trial."""
    return _handler_for(type(value)) is _trial


def _handler_for(cls: type) -> Examiner | None:
    roots = [(base.__module__.partition(".")[0], base.__name__) for base in cls.__mro__]
    for root, name in roots:
        if handler := _HANDLERS.get(f"{root}.{name}"):
            return handler
    if any(root in _KERAS for root, _ in roots) and hasattr(cls, "get_config"):
        return _component
    return None


# ── values with parts ───────────────────────────────────────────────────────────────────────────


def _mapping(value: Any) -> Branch | Leaf:
    return Branch(None, _items(value), len(value)) if len(value) else "{}"


def _items(value: Any) -> Iterator[tuple[object, object]]:
    for key in value:
        yield key, _read(value.__getitem__, key)


def _read(get: Callable[..., Any], *args: Any) -> Any:
    """Return the result of ``get``; for an unreadable part, as OmegaConf's ``???``, the error's type."""
    try:
        return get(*args)
    except Exception as error:  # noqa: BLE001  the user's code can raise anything; the other parts are kept
        return f"not readable: {type(error).__name__}"


def _sequence(value: Any) -> Leaf | Branch:
    fields = getattr(type(value), "_fields", None)
    if isinstance(fields, tuple):  # a namedtuple
        return _examine_attributes(value, fields)
    items = list(islice(value, _MAX_PLAIN_ITEMS + 1))
    if all(type(item) in PLAIN for item in items):
        return items if len(items) <= _MAX_PLAIN_ITEMS else _shortened(value, items)
    values = _as_leaves(items) if len(items) <= _MAX_EXAMINED_ITEMS else None
    return Branch(None, enumerate(value), len(value)) if values is None else values


def _indexed(value: Any) -> Leaf | Branch:
    """Convert a list whose items may raise when they are read."""
    items = [_read(value.__getitem__, index) for index in range(min(len(value), _MAX_PLAIN_ITEMS + 1))]
    return _sequence(items) if len(items) <= _MAX_PLAIN_ITEMS else _shortened(value, items)


def _as_leaves(items: list[Any]) -> list[Any] | None:
    """Return the items as leaves; ``None`` if one is not a leaf. Containers are not examined."""
    leaves: list[Any] = []
    for item in items:
        try:
            leaf = None if isinstance(item, _CONTAINERS) else (examine(item),)
        except Exception:  # noqa: BLE001  an item can raise anything; the others are kept
            leaf = None
        if leaf is None or isinstance(leaf[0], (Branch, list)):
            return None
        leaves += leaf
    return leaves


def _shortened(value: Any, items: list[Any]) -> Leaf:
    return f"{json.dumps(items[:10], ensure_ascii=False)[:-1]}, … {len(value)} items]"


def _examine_set(value: Any) -> Leaf | Branch:
    """Convert a set to a sorted list, because the order of a set of texts differs between processes."""
    part = _sequence(value)
    return sorted(part, key=lambda item: (type(item).__name__, item)) if isinstance(part, list) else part


def _examine_attributes(value: Any, names: Iterable[str]) -> Branch | Leaf:
    names = tuple(names)
    cls: Any = type(value)
    parts = ((name, _read(getattr, value, name)) for name in names)
    return Branch(None, parts, len(names), annotated_fields(cls)) if names else qualified(cls)


def _dataclass(value: Any) -> Branch | Leaf:
    return _examine_attributes(value, (field.name for field in dataclasses.fields(value)))


def _attrs(value: Any) -> Branch | Leaf:
    return _examine_attributes(value, (field.name for field in type(value).__attrs_attrs__))


def _struct(value: Any) -> Branch | Leaf:
    return _examine_attributes(value, type(value).__struct_fields__)


def _pydantic(value: Any) -> Branch | Leaf:
    cls = type(value)
    fields = cls.model_fields if hasattr(cls, "model_fields") else cls.__fields__
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return _examine_attributes(value, [*fields, *extra])


def _namespace(value: Any) -> Branch | Leaf:
    return _mapping(vars(value))


def _trial(value: Any) -> Branch | Leaf:
    """Convert an Optuna trial: its parameters so far; a running trial may get more."""
    parts = {"number": value.number, "params": value.params}
    return _mapping({name: part for name, part in parts.items() if part != {}})


def _hyperparameters(value: Any) -> Branch | Leaf:
    """Convert KerasTuner's hyperparameters: the chosen value of each name."""
    return _mapping(value.values)


def _flags(value: Any) -> Branch | Leaf:
    """Convert a program's absl flags, parsed or not, without those that absl itself defines."""
    by_module = value.flags_by_module_dict()
    own_flags = {
        f.name: f.value for m, flags in by_module.items() if not m.startswith("absl.") for f in flags
    }
    return _mapping(own_flags)


def _run_config(value: Any) -> Branch | Leaf:
    """Convert a ``tf.estimator.RunConfig``: the properties that its constructor sets."""
    cls = type(value)
    properties = [name for name in dir(cls) if isinstance(getattr(cls, name, None), property)]
    return _examine_attributes(value, [name for name in properties if f"_{name}" in vars(value)])


def _partial(value: Any) -> Branch | Leaf:
    head = _callable_name(value.func)
    parts = [*enumerate(value.args), *value.keywords.items()]
    return Branch(head, parts, len(parts)) if parts else head


def _callable_name(function: Any) -> str:
    return qualified(function) if hasattr(function, "__qualname__") else qualified(type(function))


class _Serialized(NamedTuple):
    """Keras's serialized form of an object within a configuration."""

    class_name: str
    config: Any


def _component(value: Any) -> Branch | Leaf:
    """Convert a layer, optimizer, schedule, loss, metric, …: its class and its configuration."""
    try:
        config = value.get_config()
    except Exception:  # noqa: BLE001  a custom layer without a configuration still has a class
        return type(value).__name__
    return _serialized(_Serialized(type(value).__name__, config))


def _serialized(value: _Serialized) -> Branch | Leaf:
    if not isinstance(value.config, Mapping):  # a function: the class is "function", the config its name
        return str(value.config)
    parts = ((name, _unserialized(part)) for name, part in value.config.items())
    return Branch(value.class_name, parts, len(value.config))


def _unserialized(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("class_name"), str) and "config" in value:
        return _Serialized(value["class_name"], value["config"])
    if type(value) is dict:
        return {name: _unserialized(part) for name, part in value.items()}
    if type(value) is float:  # often the float32 value of a variable
        return values.shortest(value)
    return [_unserialized(item) for item in value] if isinstance(value, list) else value


_CONTAINERS = (Mapping, list, tuple, set, frozenset)
_KERAS = frozenset({"keras", "tf_keras"})

_NAMES: dict[Examiner, str] = {
    values.integer: "builtins.int",
    float.__float__: "builtins.float",
    str.__str__: "builtins.str",
    str: "builtins.complex decimal.Decimal fractions.Fraction uuid.UUID datetime.timedelta builtins.range"
    " numpy.dtype",
    repr: "builtins.slice builtins.ellipsis",
    lambda value: value: "builtins.bool builtins.NoneType",
    lambda value: value.isoformat(): "datetime.datetime datetime.date datetime.time",
    lambda value: value.pattern if isinstance(value.pattern, str) else described(value): "re.Pattern",
    lambda value: value.name: "tensorflow.DType",
    lambda value: value.__name__: "builtins.module",
    lambda _: REDACTED: "pydantic.SecretStr pydantic.SecretBytes pydantic.Secret",
    values.binary: "builtins.bytes builtins.bytearray builtins.memoryview",
    values.file: "_io._IOBase io.IOBase tempfile._TemporaryFileWrapper",
    values.function: "builtins.type builtins.function builtins.builtin_function_or_method builtins.method",
    values.tensor_shape: "tensorflow.TensorShape",
    values.numpy_scalar: "numpy.generic",
    values.numpy_array: "numpy.ndarray",
    values.array: "torch.Tensor jaxlib.ArrayImpl jax.Array jax.Tracer tensorflow.Tensor tensorflow.Variable"
    " tensorflow.RaggedTensor tensorflow.SparseTensor tensorflow.IndexedSlices keras.Variable"
    " keras.KerasVariable keras.KerasTensor tf_keras.KerasTensor pandas.Series pandas.Index polars.Series"
    " pandas.ExtensionArray scipy.spmatrix scipy._spbase cupy.ndarray",
    values.frame: "pandas.DataFrame polars.DataFrame pyarrow.Table",
    values.dataset: "tensorflow.DatasetV2",
    described: "polars.LazyFrame torch.DataLoader torch.Dataset tensorflow.IteratorBase numpy.NpzFile"
    " h5py.HLObject xarray.Dataset xarray.DataArray shelve.Shelf datasets.Dataset pyarrow.ChunkedArray",
    values.model: "keras.Model tf_keras.Model tensorflow.Module torch.Module flax.Module"
    " sklearn.BaseEstimator tensorflow_estimator.Estimator tensorflow.AutoTrackable"
    " xgboost.Booster lightgbm.Booster",
    _component: "keras.Layer tf_keras.Layer keras.Optimizer tf_keras.Optimizer",
    _sequence: "builtins.list builtins.tuple collections.deque",
    _indexed: "omegaconf.ListConfig",
    _examine_set: "builtins.set builtins.frozenset",
    _mapping: "builtins.dict ml_collections.ConfigDict",
    _namespace: "argparse.Namespace types.SimpleNamespace",
    _partial: "functools.partial",
    _trial: "optuna.BaseTrial",
    _hyperparameters: "keras_tuner.HyperParameters",
    _flags: "absl.FlagValues",
    _run_config: "tensorflow_estimator.RunConfig",
    _pydantic: "pydantic.BaseModel",
    _serialized: "mlwrap._Serialized",
}
_HANDLERS = {name: handler for handler, names in _NAMES.items() for name in names.split()}
"""Handlers by package and name of a class; the first class in the resolution order with an entry decides.

The key omits submodules, which move between versions.
"""

_STRUCTURES: list[tuple[Callable[[Any], bool], Examiner]] = [
    (dataclasses.is_dataclass, _dataclass),
    (lambda value: hasattr(type(value), "__attrs_attrs__"), _attrs),
    (lambda value: hasattr(type(value), "__struct_fields__"), _struct),
    (lambda value: isinstance(value, Mapping), _mapping),
    (lambda value: isinstance(value, os.PathLike), os.fspath),
    (
        lambda value: callable(value) and isinstance(getattr(value, "__qualname__", None), str),
        values.function,
    ),
    (values.holds_data, described),
    (lambda _: True, values.anything),
]
"""Handlers for other types, by what an object provides, most specific first."""
