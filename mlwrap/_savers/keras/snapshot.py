"""A Keras 3 model as it is now: saved by another thread while the training goes on.

Within a ``keras.StatelessScope``, which holds for one thread alone, a variable has the value that the scope
gives it. So what is kept is the value of every variable, and they are written as those of a model are.

* TensorFlow's variables share their memory with what was read of them, and an update copies it first if
  somebody else holds it. So a value costs nothing until the training goes on. That of a variable on
  another device than the CPU is copied to the host, so that no memory is taken of the device's.
* JAX gives the memory of one step to the next, and PyTorch changes its tensors where they are: there it is a
  copy in the host's memory.

The configuration is the one of that moment, too, for callbacks of the user's may change what is in it.
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

MIN_BYTES = 8 << 20  # bytes; what is smaller is written before anything of this could be a gain
_ELEMENT = 4  # bytes; nearly all variables are of 32 bits
_PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp")
_unfit: WeakSet[Any] = WeakSet()  # models that could not be saved this way


class Snapshot:
    """Stands for a model where it is saved.

    Args:
        model: The model, which may change.
        config: Its configuration, as JSON.
        variables: Its variables, by their ids; they are held, so that no other gets an id of theirs.
        values: The values of these.
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
        """Write the model as :func:`write_folder` would have when this was made.

        Raises:
            SaveError: A variable was read that is not in here.
        """
        try:
            return self._write(folder)
        except OSError:  # the disk's fault
            raise
        except BaseException:
            _unfit.add(self.model)
            raise

    def _write(self, folder: Path) -> Zip:
        scope = _scope(self._values)
        left_out()  # is found by making an optimizer, whose variables can't be made in a scope
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
    """The model as it is now, or ``None`` where that can't be had, or is no gain.

    ``None`` is said of small models; where there is little memory, or with ``free`` where it takes any; of
    models with parts that write more than Keras's own do; of those that a strategy or a distribution spreads
    over devices or processes; and of one that could not be saved this way before.
    """
    keras: Any = sys.modules.get("keras")
    if not hasattr(keras, "StatelessScope") or not _is_alone(model, keras):
        return None
    backend = keras.backend.backend()
    if free and not _shares_memory(backend):
        return None
    if not _is_large(model) or model in _unfit or not _keras_writes(model, "save"):
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
    keep = _keep(backend)
    values = {key: keep(variable) for key, variable in variables.items()}
    return Snapshot(model, config, variables, values)


def _internal(name: str) -> Any:
    return import_module(f"keras.src.{name}")


def _is_alone(model: Any, keras: Any) -> bool:
    """Whether each variable is one array on one device."""
    if keras.distribution.distribution() is not None:
        return False
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's
    return strategy is None or type(strategy).__name__ == "_DefaultDistributionStrategy"


def _is_large(model: Any) -> bool:
    """By what the model and its optimizer say of themselves; to look at all of their parts takes longer."""
    optimizer = getattr(model, "optimizer", None)
    return _bytes_of_variables([*model.variables, *getattr(optimizer, "variables", ())]) >= MIN_BYTES


def _bytes_of_variables(variables: Iterable[Any]) -> int:
    """Of their values, in bytes."""
    return sum(_ELEMENT * math.prod(variable.shape) for variable in variables)


def _keras_writes(item: object, method: str) -> bool:
    """Whether what is written of ``item`` by a method is in its variables and its configuration."""
    module = getattr(getattr(type(item), method, None), "__module__", "keras")
    return module.partition(".")[0] in _PACKAGES


def _parts(model: Any) -> Iterator[Any]:
    """The variables, and all that may have any: layers, optimizers, metrics, generators of random numbers."""
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
    """Whether a value that is kept is the variable's own memory, until that changes."""
    if backend != "tensorflow":
        return False
    devices = sys.modules["tensorflow"].config.list_logical_devices()
    return all(device.device_type == "CPU" for device in devices)


def _keep(backend: str) -> Callable[[Any], Any]:
    """What keeps the value of a variable."""
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


def _scope(values: Mapping[int, Any]) -> Any:
    """A scope in which variables have these values; one that is asked for another is noted."""
    keras: Any = sys.modules["keras"]

    class Scope(keras.StatelessScope):  # type: ignore[misc]  # Keras is imported by whoever has a model
        def __init__(self) -> None:
            super().__init__(initialize_variables=False)
            self.missed: set[str] = set()

        def get_current_value(self, variable: Any) -> Any:
            value = values.get(id(variable))
            if value is None:
                self.missed.add(variable.path)
            return value

    return Scope()
