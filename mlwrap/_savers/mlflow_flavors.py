"""Frameworks that MLflow has a flavor for: saved and loaded by MLflow's own ``mlflow.<flavor>``.

The one saver that imports MLflow in the training process, and only while it saves or loads. What
``save_model`` wrote is kept, and what its ``MLmodel`` says goes into :class:`Saved`: delivery describes a
model of any kind in one way, requirements and environment included.

Where a framework has no format without pickle, or it can't take the object, the object is pickled, and
only with ``trust=True``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved, Signature, TensorSpec, now
from mlwrap._savers.identify import class_name, has_class
from mlwrap._savers.pickle_free import SaveFormat, mlflow_module, no_pickle, own_format, pt2, skops
from mlwrap._savers.saver import SaveOptions
from mlwrap.errors import LoadError, SaveError, describe_error

_MLMODEL = "MLmodel"
# Written by MLflow for every flavor, and again by delivery for every kind of model.
_MLFLOWS_OWN = (
    _MLMODEL, "conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt",
    "input_example.json", "serving_input_example.json",
)  # fmt: skip
_CHECKS_PT2 = (3, 17)  # this MLflow looks for pickles in a .pt2 file before it opens it


@dataclasses.dataclass(frozen=True)
class FlavorSaver:
    """Saves what ``mlflow.<name>`` knows.

    Attributes:
        name: MLflow's name of the flavor.
        package: The top-level module that its objects come from.
        classes: Names of their classes, or of those that they are derived from.
        requires: Distributions that loading needs.
        safe: How it is saved without pickle, or ``None`` if it can't be.
        pickled: What tells ``save_model`` to use pickle, or ``None`` if it never does.
        types: Types that skops does not know, and that run no code of the model's when it builds them.
        data_only: Whether what is saved is data; else it names functions, which loading calls.
    """

    name: str
    package: str
    classes: tuple[str, ...]
    requires: tuple[str, ...]
    safe: SaveFormat | None = own_format
    pickled: Mapping[str, Any] | None = None
    types: tuple[str, ...] = ()
    data_only: bool = True
    format: int = 1

    @property
    def default_name(self) -> str:
        """``sklearn_model`` and its like."""
        return f"{self.name}_model"

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The one package."""
        return (self.package,)

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is of one of the classes."""
        return has_class(value, *self.classes, packages=(self.package,))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Let MLflow write ``value``, without pickle if that can be.

        Raises:
            SaveError: It can't be, and pickle is not allowed or fails too.
        """
        flavor = mlflow_module(self.name)
        ways = [self.safe] if self.safe else []
        if options.trust and self.pickled is not None:
            ways.append(self._pickle)
        trouble: Exception | None = None
        for way in ways:
            try:
                with way(value, folder, options) as arguments:
                    # Given requirements: MLflow would load the model in a child process to guess them.
                    flavor.save_model(value, str(folder), pip_requirements=["mlflow"], **arguments)
                return self._taken(folder)
            except Exception as error:  # noqa: BLE001 - frameworks raise anything: another way may do
                trouble = error
                _empty(folder)
        raise SaveError(self._why_not(value, options, trouble), value) from trouble

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """What boosted trees remember of their evaluation sets, a step for each round."""
        try:
            results = value.evals_result_
        except Exception:  # noqa: BLE001 - most have none; those that were fitted without a set raise
            return
        rounds: dict[int, dict[str, float]] = {}
        for of, series in results.items() if isinstance(results, Mapping) else ():
            for metric, values in series.items():
                for step, number in enumerate(values):
                    rounds.setdefault(step, {})[f"{of}/{metric}"] = float(number)
        when = now()
        for step, numbers in sorted(rounds.items()):
            yield Metrics.of(numbers, step=step, time=when)

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back what ``mlflow.<flavor>.load_model`` makes of it.

        Of a ``.pt2`` file that is a module which computes the same, and not the class it was.

        Raises:
            LoadError: The framework is not installed, or the model does not load without ``trust=True``.
        """
        try:
            flavor = mlflow_module(self.name)
        except ImportError as error:
            raise LoadError(
                f"Expected {self.requires[0]} to be installed, which this model was made with: {error}. "
                f"Install it, as in pip install -r {folder / 'requirements.txt'}."
            ) from error
        if not trust:
            self._refuse_code(_mlmodel(folder).flavors.get(self.name, {}))
        guard = contextlib.nullcontext() if trust or self.safe is skops else no_pickle()
        try:
            with guard:
                return flavor.load_model(str(folder))
        except Exception as error:
            advice = "" if trust else " If it holds pickles that you trust, pass trust=True."
            raise LoadError(
                f"mlflow.{self.name} could not load this model: {describe_error(error)}{advice}"
            ) from error

    @contextlib.contextmanager
    def _pickle(self, value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        yield dict(self.pickled or {})

    def _taken(self, folder: Path) -> Saved:
        """What MLflow's ``MLmodel`` says, and the folder without what delivery writes itself."""
        model = _mlmodel(folder)
        flavors = {name: config for name, config in model.flavors.items() if name != "python_function"}
        pyfunc = model.flavors.get("python_function")
        if pyfunc is not None:
            pyfunc = {k: v for k, v in pyfunc.items() if k not in {"env", "python_version"} and v is not None}
        for name in _MLFLOWS_OWN:
            (folder / name).unlink(missing_ok=True)
        homes = {name.partition(".")[0] for name in flavors[self.name].get("skops_trusted_types") or ()}
        others = sorted(homes - {self.package, "__main__", *sys.stdlib_module_names})
        return Saved(
            flavors=flavors,
            pyfunc=pyfunc,
            signature=_from_mlflow_signature(model.signature),
            packages=tuple(dict.fromkeys((*self.requires, *others))),
        )

    def _why_not(self, value: Any, options: SaveOptions, trouble: Exception | None) -> str:
        pickle = (
            ""
            if options.trust or self.pickled is None
            else " Pass trust=True to have it pickled; whoever loads it then runs what is in the file."
        )
        if trouble is None:
            return f"MLflow has no format without pickle for a {class_name(value)}.{pickle}"
        without = "" if options.trust else " without pickle"
        said = str(trouble) if isinstance(trouble, SaveError) else describe_error(trouble)
        return f"A {class_name(value)} could not be saved{without}: {said}{pickle}"

    def _refuse_code(self, config: Mapping[str, Any]) -> None:
        """Refuse what would run code that came with the model, as its ``MLmodel`` has it.

        Raises:
            LoadError: It would.
        """
        why = None
        made_by = str(config.get("model_class") or f"{self.package}.")
        if self.safe is None:
            why = f"a model of {self.package} is a pickle"
        elif not self.data_only:
            why = f"{self.package} calls what its files name"
        elif config.get("code"):
            why = "it brings code of its own"
        elif not made_by.startswith(f"{self.package}."):
            why = f"it is to be built by {made_by}, which is not {self.package}'s"
        elif self.safe is skops and config.get("serialization_format") != "skops":
            why = "it is a pickle"
        elif strange := sorted(
            {str(name) for name in config.get("skops_trusted_types") or ()} - {*self.types}
        ):
            why = f"skops does not vouch for {', '.join(strange)} in a file from somewhere else"
        elif self.safe is pt2 and _version() < _CHECKS_PT2:
            why = f"only MLflow {'.'.join(map(str, _CHECKS_PT2))} looks for pickles in a .pt2 file"
        if why is not None:
            raise LoadError(
                f"This model was not loaded: {why}. Pass trust=True only if you trust where it comes from."
            )


# Asked in this order: what the boosters have for scikit-learn is scikit-learn's too.
FLAVORS = (
    FlavorSaver("xgboost", "xgboost", ("Booster", "XGBModel"), ("xgboost",)),
    FlavorSaver(
        "lightgbm",
        "lightgbm",
        ("Booster", "LGBMModel"),
        ("lightgbm", "skops"),
        safe=skops,
        pickled={"serialization_format": "cloudpickle"},
        types=(
            "collections.OrderedDict",
            "lightgbm.basic.Booster",
            "lightgbm.sklearn.LGBMClassifier",
            "lightgbm.sklearn.LGBMRanker",
            "lightgbm.sklearn.LGBMRegressor",
        ),
    ),
    FlavorSaver("catboost", "catboost", ("CatBoost",), ("catboost",)),
    FlavorSaver("onnx", "onnx", ("ModelProto",), ("onnx", "onnxruntime")),
    FlavorSaver("spacy", "spacy", ("Language",), ("spacy",), data_only=False),
    FlavorSaver("prophet", "prophet", ("Prophet",), ("prophet",)),
    FlavorSaver(
        "pytorch", "torch", ("Module",), ("torch",), safe=pt2, pickled={"serialization_format": "pickle"}
    ),
    FlavorSaver(
        "statsmodels", "statsmodels", ("Results", "ResultsWrapper"), ("statsmodels",), safe=None, pickled={}
    ),
    FlavorSaver(
        "sklearn",
        "sklearn",
        ("BaseEstimator",),
        ("scikit-learn", "skops"),
        safe=skops,
        pickled={"serialization_format": "cloudpickle"},
    ),
)


def _version() -> tuple[int, ...]:
    major, minor, *_ = str(mlflow_module("version").VERSION).split(".")
    return int(major), int(minor)


def _mlmodel(folder: Path) -> Any:
    return mlflow_module("models").Model.load(str(folder))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _from_mlflow_signature(signature: Any) -> Signature | None:
    """MLflow's signature in the journal's words, where it is one of tensors."""
    if signature is None or signature.inputs is None or not signature.inputs.is_tensor_spec():
        return None
    outputs = signature.outputs if signature.outputs and signature.outputs.is_tensor_spec() else ()
    return Signature(inputs=_specs(signature.inputs), outputs=_specs(outputs))


def _specs(schema: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=spec.name, dtype=spec.type.name, shape=tuple(spec.shape)) for spec in schema)
