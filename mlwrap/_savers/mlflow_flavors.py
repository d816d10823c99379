"""Save and load the models of frameworks that MLflow has a flavor for, with ``mlflow.<flavor>``.

This is the only saver that imports MLflow in the training process, and only while it saves or loads. It keeps
the files of ``save_model`` and moves the content of its ``MLmodel`` into :class:`Saved`, because delivery
describes models of every kind in one way, with requirements and environment.

If a framework has no format without pickle, or that format can't hold the object, the object is pickled, but
only with ``trust=True``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved, Signature, TensorSpec, now
from mlwrap._savers.identify import class_name, has_class
from mlwrap._savers.pickle_free import (
    SaveFormat,
    is_skops,
    load_skops,
    mlflow_module,
    no_pickle,
    own_format,
    pt2,
    skops,
)
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap.errors import LoadError, SaveError, describe_error

_MLMODEL = "MLmodel"
# MLflow writes these for every flavor; delivery writes them again for every kind of model.
_MLFLOWS_OWN = (
    _MLMODEL, "conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt",
    "input_example.json", "serving_input_example.json",
)  # fmt: skip
_CHECKS_PT2 = (3, 17)  # from this version MLflow looks for pickles in a .pt2 file before it opens it


@dataclasses.dataclass(frozen=True)
class FlavorSaver:
    """Saves the models of ``mlflow.<name>``.

    Attributes:
        name: MLflow's name of the flavor.
        package: The top-level module of its classes.
        classes: Names of the classes, or of their base classes.
        requires: Distributions that loading needs.
        safe: The format without pickle, or ``None`` if there is none.
        pickled: Arguments that make ``save_model`` use pickle, or ``None`` if it never does.
        types: Types that skops does not know, and that run no code of the model when skops builds them.
        data_only: Whether the files are only data; otherwise they name functions, which loading calls.
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
        """The default name of a model, such as ``sklearn_model``."""
        return f"{self.name}_model"

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The framework's package."""
        return (self.package,)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is an object of one of the classes."""
        return has_class(value, *self.classes, packages=(self.package,))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Write ``value`` with MLflow, without pickle if possible.

        Raises:
            SaveError: It can't be written without pickle, and pickle is not allowed or fails too.
        """
        flavor = mlflow_module(self.name)
        formats = [self.safe] if self.safe else []
        if options.trust and self.pickled is not None:
            formats.append(self._pickle)
        last_error: Exception | None = None
        for save_format in formats:
            try:
                with save_format(value, folder, options) as arguments:
                    # Without pip_requirements MLflow would load the model in a child process to guess them.
                    flavor.save_model(value, str(folder), pip_requirements=["mlflow"], **arguments)
                return self._read_mlmodel(folder)
            except Exception as error:  # noqa: BLE001 - frameworks raise any error: the next format may work
                last_error = error
                _clear_folder(folder)
        raise SaveError(self._failure_message(value, options, last_error), value) from last_error

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Yield the evaluation results that boosted trees record, one step for each round."""
        try:
            results = value.evals_result_
        except Exception:  # noqa: BLE001 - most models have none; some raise without an evaluation set
            return
        rounds: dict[int, dict[str, float]] = {}
        for dataset, series in results.items() if isinstance(results, Mapping) else ():
            for metric, values in series.items():
                for step, number in enumerate(values):
                    rounds.setdefault(step, {})[f"{dataset}/{metric}"] = float(number)
        when = now()
        for step, numbers in sorted(rounds.items()):
            yield Metrics.of(numbers, step=step, time=when)

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Return the result of ``mlflow.<flavor>.load_model``.

        For a ``.pt2`` file that is a module that computes the same, but not of the original class.

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
        config = _load_mlmodel(folder).flavors.get(self.name, {})
        if not trust:
            self._refuse_code(config)
        guard = contextlib.nullcontext() if trust or self.safe is skops else no_pickle()
        try:
            with guard:
                if self.safe is skops and is_skops(config) and not trust:
                    return load_skops(folder, config)
                return flavor.load_model(str(folder))
        except Exception as error:
            advice = "" if trust else " If it holds pickles that you trust, pass trust=True."
            raise LoadError(
                f"mlflow.{self.name} could not load this model: {describe_error(error)}{advice}"
            ) from error

    @contextlib.contextmanager
    def _pickle(self, value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        taken = self._save_arguments()  # an MLflow without another format has no argument for it
        yield {name: argument for name, argument in (self.pickled or {}).items() if name in taken}

    def _save_arguments(self) -> set[str]:
        """Return the names of the arguments that this MLflow's ``save_model`` takes."""
        return set(inspect.signature(mlflow_module(self.name).save_model).parameters)

    def _read_mlmodel(self, folder: Path) -> Saved:
        """Return the content of MLflow's ``MLmodel``, and delete the files that delivery writes itself."""
        model = _load_mlmodel(folder)
        flavors = {name: config for name, config in model.flavors.items() if name != "python_function"}
        pyfunc = model.flavors.get("python_function")
        if pyfunc is not None:
            pyfunc = {
                key: option
                for key, option in pyfunc.items()
                if key not in {"env", "python_version"} and option is not None
            }
        for name in _MLFLOWS_OWN:
            (folder / name).unlink(missing_ok=True)
        type_packages = {
            name.partition(".")[0] for name in flavors[self.name].get("skops_trusted_types") or ()
        }
        other_packages = sorted(type_packages - {self.package, "__main__", *sys.stdlib_module_names})
        return Saved(
            flavors=flavors,
            pyfunc=pyfunc,
            signature=_from_mlflow_signature(model.signature),
            packages=tuple(dict.fromkeys((*self.requires, *other_packages))),
        )

    def _failure_message(self, value: Any, options: SaveOptions, error: Exception | None) -> str:
        pickle_hint = (
            ""
            if options.trust or self.pickled is None
            else " Pass trust=True to have it pickled; whoever loads it then runs what is in the file."
        )
        if error is None:
            return f"MLflow has no format without pickle for a {class_name(value)}.{pickle_hint}"
        qualifier = "" if options.trust else " without pickle"
        reason = str(error) if isinstance(error, SaveError) else describe_error(error)
        return f"A {class_name(value)} could not be saved{qualifier}: {reason}{pickle_hint}"

    def _refuse_code(self, config: Mapping[str, Any]) -> None:
        """Refuse a model that, by its ``MLmodel``, would run code that came with it.

        Raises:
            LoadError: It would run code.
        """
        reason = None
        model_class = str(config.get("model_class") or f"{self.package}.")
        if self.safe is None:
            reason = f"a model of {self.package} is a pickle"
        elif not self.data_only:
            reason = f"{self.package} calls what its files name"
        elif config.get("code"):
            reason = "it brings code of its own"
        elif not model_class.startswith(f"{self.package}."):
            reason = f"it is to be built by {model_class}, which is not {self.package}'s"
        elif self.safe is skops and config.get("serialization_format") != "skops":
            reason = "it is a pickle"
        elif self.safe is skops and "skops_trusted_types" not in self._save_arguments():
            # An MLflow before skops reads a pickle, whatever the MLmodel says.
            reason = (
                f"MLflow {mlflow_module('version').VERSION} reads models of {self.package} as pickles alone"
            )
        elif untrusted := sorted(
            {str(name) for name in config.get("skops_trusted_types") or ()} - {*self.types}
        ):
            reason = f"skops does not vouch for {', '.join(untrusted)} in a file from somewhere else"
        elif self.safe is pt2 and _mlflow_version() < _CHECKS_PT2:
            reason = f"only MLflow {'.'.join(map(str, _CHECKS_PT2))} looks for pickles in a .pt2 file"
        if reason is not None:
            raise LoadError(
                f"This model was not loaded: {reason}. Pass trust=True only if you trust where it comes from."
            )


# In order of precedence: scikit-learn wrappers of the boosters are scikit-learn estimators too.
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


def _mlflow_version() -> tuple[int, ...]:
    major, minor, *_ = str(mlflow_module("version").VERSION).split(".")
    return int(major), int(minor)


def _load_mlmodel(folder: Path) -> Any:
    return mlflow_module("models").Model.load(str(folder))


def _clear_folder(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _from_mlflow_signature(signature: Any) -> Signature | None:
    """Return MLflow's signature as a :class:`Signature`, if it is one of tensors; else ``None``."""
    if signature is None or signature.inputs is None or not signature.inputs.is_tensor_spec():
        return None
    outputs = signature.outputs if signature.outputs and signature.outputs.is_tensor_spec() else ()
    return Signature(inputs=_specs_of_schema(signature.inputs), outputs=_specs_of_schema(outputs))


def _specs_of_schema(schema: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=spec.name, dtype=spec.type.name, shape=tuple(spec.shape)) for spec in schema)
