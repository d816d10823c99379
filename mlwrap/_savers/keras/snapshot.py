"""Take a snapshot of a Keras 3 model, which another thread saves while the training continues.

In a ``keras.StatelessScope``, which applies to one thread only, a variable has the value that the scope gives
it. So the snapshot keeps the value of every variable, and they are written like those of a model.

* TensorFlow's variables share their memory with the values read from them, and an update copies the memory
  first if another object uses it. So a value costs nothing until the training continues. The value of a
  variable on a device other than the CPU is copied to the host, to take no memory on the device.
* JAX reuses the memory of one step in the next, and PyTorch changes its tensors in place. There the value is
  copied to the host.

The configuration is the one of that moment, too, because the user's callbacks may change it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakSet

from mlwrap._journal.records import Zip
from mlwrap._savers.keras.folder_writer import left_out, write_folder
from mlwrap._savers.keras.free_memory import free_memory
from mlwrap.errors import SaveError

MIN_BYTES = 8 << 20  # bytes; a smaller model is written before a snapshot could save any time
_ELEMENT = 4  # bytes; nearly all variables have 32 bits
_PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp")
_unsupported: WeakSet[Any] = WeakSet()  # models that could not be saved this way


class Snapshot:
    """Stands for a model while it is saved.

    Args:
        model: The model, which may change.
        config: Its configuration, as JSON.
        variables: Its variables, by their ids; references to them keep the ids unique.
        values: The values of the variables, by the same ids.
    """

    def __init__(
        self, model: Any, config: str, variables: Mapping[int, Any], values: Mapping[int, Any]
    ) -> None:
        self.model = model
        self.name = model.name
        self._config = config
        self._variables = variables
        self._values = values

    def write_folder(self, folder: Path) -> Zip:
        """Write the model as :func:`write_folder` would have when the snapshot was taken.

        Raises:
            SaveError: Keras read a variable that the snapshot does not contain.
        """
        try:
            return self._write(folder)
        except OSError:  # a problem of the disk, not of the model
            raise
        except BaseException:
            _unsupported.add(self.model)
            raise

    def _write(self, folder: Path) -> Zip:
        scope = _make_scope(self._values)
        left_out()  # creates optimizers, whose variables can't be created in a scope
        with scope:
            written = write_folder(self.model, folder)
        if scope.missed:
            raise SaveError(
                f"Keras read {', '.join(sorted(scope.missed))} while it saved the model {self.name!r} in the "
                "background, of which no value was kept. From now on the training waits while it is saved.",
                self.model,
            )
        (folder / "config.json").write_text(self._config)
        return written


def take_snapshot(model: Any, *, free: bool = False) -> Snapshot | None:
    """Return a snapshot of the model; ``None`` if that is impossible or saves no time.

    It is ``None`` for small models; if there is little memory, or with ``free`` if it takes any; for models
    with parts that override how Keras saves them; for models that a strategy or a distribution spreads
    over devices or processes; and for a model that could not be saved from a snapshot before.
    """
    keras: Any = sys.modules.get("keras")
    if not hasattr(keras, "StatelessScope") or not _is_alone(model, keras):
        return None
    backend = keras.backend.backend()
    if free and not _shares_memory(backend):
        return None
    if not _is_large(model) or model in _unsupported or not _keras_writes(model, "save"):
        return None
    variables: dict[int, Any] = {}
    for item in _parts(model):
        if isinstance(item, keras.Variable):
            variables[id(item)] = item
        elif not all(_keras_writes(item, method) for method in ("save_own_variables", "save_assets")):
            return None
    size = _bytes_of_variables(variables.values())
    if not (free or free_memory() >= 2 * size):
        return None
    with _internal("saving.serialization_lib").ObjectSharingScope():
        config = json.dumps(keras.saving.serialize_keras_object(model))
    keep = _value_keeper(backend)
    values = {key: keep(variable) for key, variable in variables.items()}
    return Snapshot(model, config, variables, values)


def _internal(name: str) -> Any:
    return import_module(f"keras.src.{name}")


def _is_alone(model: Any, keras: Any) -> bool:
    """Return whether each variable is one array on one device."""
    if keras.distribution.distribution() is not None:
        return False
    strategy = getattr(model, "distribute_strategy", None)  # an attribute on TensorFlow
    return strategy is None or type(strategy).__name__ == "_DefaultDistributionStrategy"


def _is_large(model: Any) -> bool:
    """Return whether the variables of the model and its optimizer are large; checking all parts is slower."""
    optimizer = getattr(model, "optimizer", None)
    return _bytes_of_variables([*model.variables, *getattr(optimizer, "variables", ())]) >= MIN_BYTES


def _bytes_of_variables(variables: Iterable[Any]) -> int:
    """Return the size of the variables' values, in bytes."""
    return sum(_ELEMENT * math.prod(variable.shape) for variable in variables)


def _keras_writes(item: object, method: str) -> bool:
    """Return whether Keras's own code saves an object, so that variables and configuration are all of it."""
    module = getattr(getattr(type(item), method, None), "__module__", "keras")
    return module.partition(".")[0] in _PACKAGES


def _parts(model: Any) -> Iterator[Any]:
    """Yield the variables and all objects that may have any: layers, optimizers, metrics, seed generators."""
    seen: dict[int, Any] = {}
    stack = [model]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen[id(item)] = item
        if isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif any(cls.__module__.startswith("keras.") for cls in type(item).__mro__):
            yield item
            stack.extend(getattr(item, "__dict__", {}).values())


def _shares_memory(backend: str) -> bool:
    """Return whether a kept value shares the variable's memory until the variable changes."""
    if backend != "tensorflow":
        return False
    devices = sys.modules["tensorflow"].config.list_logical_devices()
    return all(device.device_type == "CPU" for device in devices)


def _value_keeper(backend: str) -> Callable[[Any], Any]:
    """Return a function that keeps the value of a variable."""
    if backend == "tensorflow":
        tensorflow: Any = sys.modules["tensorflow"]

        def keep(variable: Any) -> Any:
            with tensorflow.device("CPU:0"):
                return tensorflow.identity(tensorflow.convert_to_tensor(variable))

        return keep
    if backend == "torch":
        return lambda variable: variable.value.detach().to("cpu", copy=True)
    numpy: Any = sys.modules["numpy"]
    return lambda variable: numpy.array(variable.value)


def _make_scope(values: Mapping[int, Any]) -> Any:
    """Return a scope in which the variables have these values; it records the others that are read."""
    keras: Any = sys.modules["keras"]

    class Scope(keras.StatelessScope):  # type: ignore[misc]  # Keras is imported if there is a model
        def __init__(self) -> None:
            super().__init__(initialize_variables=False)
            self.missed: set[str] = set()

        def get_current_value(self, variable: Any) -> Any:
            value = values.get(id(variable))
            if value is None:
                self.missed.add(variable.path)
            return value

    return Scope()
