"""Frameworks that MLflow has a flavor for: without pickle where that can be, else only if asked.

What needs a framework that is not installed is skipped; ``make test-more`` has them all.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlwrap import savers
from mlwrap._savers import saver_registry
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

X, Y = load_iris(return_X_y=True)


class Kind(NamedTuple):
    """One kind of model.

    Attributes:
        build: Makes a small, trained one; skips the test where its framework is missing.
        predict: What it says of some data, as an array.
        files: What it is saved as.
        pyfunc: What MLflow's generic flavor is to be fed, and says the same of.
        trust: Whether loading it needs trust.
    """

    build: Callable[[], Any]
    predict: Callable[[Any], Any]
    files: set[str]
    pyfunc: Any = X
    trust: bool = False


def of(package: str) -> Any:
    """A framework, or a skipped test."""
    return pytest.importorskip(package, reason=f"{package} is not installed here")


@functools.cache
def logistic() -> Any:
    """One for all tests, none of which changes it."""
    return LogisticRegression(max_iter=500).fit(X, Y)


def boosted(package: str, name: str) -> Any:
    """A booster that looks like scikit-learn's models, after three rounds with an evaluation set."""
    quiet = {"xgboost": {"n_jobs": 1}, "lightgbm": {"n_jobs": 1, "verbose": -1}}[package]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of LightGBM's new names for old arguments
        return getattr(of(package), name)(n_estimators=3, **quiet).fit(X, Y, eval_set=[(X[::2], Y[::2])])


def lightgbm_booster() -> Any:
    """LightGBM's own model."""
    lightgbm = of("lightgbm")
    return lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 3)


def catboost_model() -> Any:
    """With an evaluation set, and no files in the working folder."""
    made = of("catboost").CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False)
    return made.fit(X, Y, eval_set=(X[::2], Y[::2]))


def onnx_model() -> Any:
    """A graph of one node."""
    of("onnxruntime")
    onnx = of("onnx")
    sides = [onnx.helper.make_tensor_value_info(side, onnx.TensorProto.FLOAT, [None, 4]) for side in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", sides[:1], sides[1:])
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)])


def run_onnx(model: Any) -> Any:
    """What the graph makes of the data."""
    session = of("onnxruntime").InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": X.astype("float32")})[0]


def spacy_model() -> Any:
    """A pipeline that sorts texts."""
    nlp = of("spacy").blank("en")
    nlp.add_pipe("textcat_multilabel").add_label("good")
    nlp.initialize()
    return nlp


DAYS = pd.DataFrame({"ds": pd.date_range("2020-01-01", periods=60), "y": np.arange(60.0)})

KINDS = {
    "sklearn": Kind(logistic, lambda m: m.predict(X), {"model.skops"}),
    "xgboost": Kind(lambda: boosted("xgboost", "XGBClassifier"), lambda m: m.predict(X), {"model.ubj"}),
    "xgboost booster": Kind(
        lambda: boosted("xgboost", "XGBRegressor").get_booster(),
        lambda m: m.predict(of("xgboost").DMatrix(X)),
        {"model.ubj"},
    ),
    "lightgbm": Kind(lambda: boosted("lightgbm", "LGBMClassifier"), lambda m: m.predict(X), {"model.skops"}),
    "lightgbm ranker": Kind(
        lambda: of("lightgbm").LGBMRanker(n_estimators=3, verbose=-1).fit(X, Y, group=[150]),
        lambda m: m.predict(X),
        {"model.skops"},
    ),
    "lightgbm booster": Kind(lightgbm_booster, lambda m: m.predict(X), {"model.lgb"}),
    "catboost": Kind(catboost_model, lambda m: m.predict(X), {"model.cb"}),
    "onnx": Kind(onnx_model, run_onnx, {"model.onnx"}, {"x": X.astype("float32")}),
    "spacy": Kind(
        spacy_model,
        lambda m: np.array([m("a fine day").cats["good"]]),
        {"model.spacy/config.cfg", "model.spacy/meta.json"},
        None,
        trust=True,  # its configuration names functions
    ),
    "prophet": Kind(
        lambda: of("prophet").Prophet().fit(DAYS),
        lambda m: m.predict(DAYS).trend.to_numpy(),
        {"model.pr"},
        None,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_without_pickle(kind: str, keep):
    """By mlwrap, by the flavor's own loader and by MLflow's generic one, it predicts the same."""
    build, predict, files, data, trust = KINDS[kind]
    model = build()
    kept = keep(model)
    flavor = kind.partition(" ")[0]
    assert kept.saver.name == flavor
    assert kept.saver.default_name == f"{flavor}_model"
    there = {path.relative_to(kept.folder).as_posix() for path in kept.folder.rglob("*") if path.is_file()}
    assert files | {"MLmodel"} <= there
    assert len(files) > 1 or there == files | {"MLmodel"}  # spaCy writes a folder of its own
    expected = predict(model)
    if trust:
        with pytest.raises(LoadError, match=r"not loaded: .* calls what its files name.*trust=True"):
            kept.load()
    again = kept.load(trust=trust)
    assert type(again) is type(model)
    np.testing.assert_array_equal(predict(again), expected)
    stock = importlib.import_module(f"mlflow.{flavor}").load_model(str(kept.folder))
    np.testing.assert_array_equal(predict(stock), expected)
    if data is not None:
        got = kept.pyfunc().predict(data)
        np.testing.assert_array_equal(got["y"] if isinstance(got, dict) else got, expected)
    assert os.environ.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION") is None  # as it was before loading


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: boosted("xgboost", "XGBClassifier"), ["validation_0/mlogloss"]),
        (lambda: boosted("lightgbm", "LGBMClassifier"), ["valid_0/multi_logloss"]),
        (catboost_model, ["learn/MultiClass", "validation/MultiClass"]),
    ],
    ids=["xgboost", "lightgbm", "catboost"],
)
def test_what_evaluation_sets_said_becomes_metrics(build, names: list[str]):
    """A step for each round."""
    model = build()
    records = saver_registry.training_metrics(saver_registry.find(model), model)
    assert [record.step for record in records] == [0, 1, 2]
    assert sorted(records[-1].values) == names
    assert records[-1].numbers()[names[0]] < records[0].numbers()[names[0]]


def test_a_model_without_evaluation_sets_has_no_metrics():
    """That is no reason for a warning."""
    model = logistic()
    assert saver_registry.training_metrics(saver_registry.find(model), model) == []


def test_what_can_not_predict_is_saved_too(keep):
    """A scaler has no generic flavor, and comes back all the same."""
    kept = keep(StandardScaler().fit(X))
    assert kept.saved.pyfunc is None
    np.testing.assert_array_equal(kept.load().transform(X), StandardScaler().fit_transform(X))


def test_what_skops_does_not_vouch_for_needs_trust(keep):
    """A forest is saved without pickle, but its trees are raw memory, which a crafted file could misuse."""
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    kept = keep(forest)
    with pytest.raises(LoadError, match=r"vouch for sklearn\.tree\._tree\.Tree in .*trust=True"):
        kept.load()
    np.testing.assert_array_equal(kept.load(trust=True).predict(X), forest.predict(X))
    np.testing.assert_array_equal(mlflow.sklearn.load_model(str(kept.folder)).predict(X), forest.predict(X))


def pipeline(function: Callable[..., Any]) -> Any:
    """With a function of the user's own in it."""
    return make_pipeline(FunctionTransformer(function), LogisticRegression(max_iter=500)).fit(X, Y)


def save(value: Any, folder: Path, **options: Any) -> savers.Saved:
    """Save with the saver that fits, whatever the format."""
    folder.mkdir()
    return saver_registry.find(value).save(value, folder, savers.SaveOptions(**options))


def test_what_skops_can_not_write_is_pickled_only_if_asked(tmp_path: Path, as_model):
    """The error says what is in the way, and both ways out of it."""
    model = pipeline(lambda x: x)
    with pytest.raises(
        SaveError, match=r"skops writes no .*<lambda>.*Define it in a module.*trust=True"
    ) as caught:
        save(model, tmp_path / "safe")
    assert caught.value.value is model
    assert list((tmp_path / "safe").iterdir()) == []
    kept = as_model(
        tmp_path / "pickled", save(model, tmp_path / "pickled", trust=True), saver_registry.find(model)
    )
    assert (kept.folder / "model.pkl").is_file()
    with pytest.raises(LoadError, match=r"not loaded: it is a pickle\. Pass trust=True only if you trust"):
        kept.load()
    np.testing.assert_array_equal(kept.load(trust=True).predict(X), model.predict(X))


def test_a_class_of_the_main_program_is_warned_of(keep, monkeypatch: pytest.MonkeyPatch):
    """Another program will not find it."""
    main = importlib.import_module("__main__")

    def double(x):
        return 2 * x

    double.__module__, double.__qualname__ = "__main__", "double"
    monkeypatch.setattr(main, "double", double, raising=False)
    with pytest.warns(MlwrapWarning, match=r"only in a program that defines __main__\.double itself"):
        keep(pipeline(double))


def test_what_has_no_safe_format_is_saved_only_if_asked(tmp_path: Path, as_model):
    """Results of statsmodels are pickles to MLflow."""
    statsmodels = of("statsmodels.api")
    fitted = statsmodels.OLS(Y, X).fit()
    with pytest.raises(SaveError, match=r"no format without pickle for a statsmodels.*trust=True"):
        save(fitted, tmp_path / "safe")
    kept = as_model(
        tmp_path / "pickled", save(fitted, tmp_path / "pickled", trust=True), saver_registry.find(fitted)
    )
    with pytest.raises(LoadError, match=r"a model of statsmodels is a pickle.*trust=True"):
        kept.load()
    np.testing.assert_array_equal(kept.load(trust=True).predict(X), fitted.predict(X))
    np.testing.assert_array_equal(kept.pyfunc().predict(X), fitted.predict(X))


class Hostile:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def rewrite(folder: Path, flavor: str, **config: Any) -> None:
    """Change what an ``MLmodel`` says of a flavor."""
    file = folder / "MLmodel"
    content = yaml.safe_load(file.read_text())
    content["flavors"][flavor].update(config)
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"serialization_format": "pickle"}, "it is a pickle"),
        ({"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}, "it is a pickle"),
        ({"skops_trusted_types": ["os.system", "builtins.eval"]}, r"vouch for builtins\.eval, os\.system"),
        ({"code": "code"}, "brings code of its own"),
        ({"model_class": "os.abort"}, r"built by os\.abort, which is not sklearn's"),
    ],
)
def test_an_mlmodel_that_wants_code_to_run_is_refused(keep, config: dict[str, Any], says: str):
    """Before anything is read but the ``MLmodel``."""
    kept = keep(logistic())
    rewrite(kept.folder, "sklearn", **config)
    with pytest.raises(LoadError, match=f"not loaded: .*{says}.*trust=True"):
        kept.load()


def test_a_pickle_under_another_name_is_not_run(keep, tmp_path: Path):
    """What calls itself skops is read as skops."""
    import cloudpickle  # noqa: PLC0415 - what a hostile file is made with

    kept = keep(logistic())
    (kept.folder / "model.skops").write_bytes(cloudpickle.dumps(Hostile(tmp_path / "trace")))
    with pytest.raises(LoadError, match=r"mlflow\.sklearn could not load this model"):
        kept.load()
    assert not (tmp_path / "trace").exists()


def test_a_framework_that_is_not_here_is_named(keep, monkeypatch: pytest.MonkeyPatch):
    """With the file to install from."""
    kept = keep(logistic())
    monkeypatch.setitem(importlib.import_module("sys").modules, "mlflow.sklearn", None)
    with pytest.raises(LoadError, match=r"Expected scikit-learn to be installed.*requirements\.txt"):
        kept.load()


def network() -> Any:
    """A small one in PyTorch, with dropout, as it is while it is trained."""
    torch = of("torch")
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.ReLU())


def test_a_torch_module_is_exported_with_an_example(keep):
    """What comes back computes what the module does when it is not trained, for batches of any size."""
    torch = of("torch")
    net = network()
    kept = keep(net, input_example=torch.ones(2, 4))
    assert net.training
    assert all(module.training for module in net)
    assert kept.saved.signature.inputs == (savers.TensorSpec(dtype="float32", shape=(-1, 4)),)
    data = X.astype("float32")
    expected = net.eval()(torch.tensor(data)).detach().numpy()
    for loaded in (kept.load(), mlflow.pytorch.load_model(str(kept.folder))):
        np.testing.assert_allclose(loaded(torch.tensor(data)).detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(kept.pyfunc().predict(data), expected, rtol=1e-6)


def test_a_torch_module_of_several_inputs(keep):
    """They are a list, and named by their number."""
    torch = of("torch")

    class Sum(torch.nn.Module):
        def forward(self, a, b):
            return a + b

    kept = keep(Sum(), input_example=[np.ones((2, 4), "float32"), np.ones((2, 4), "float32")])
    assert [spec.name for spec in kept.saved.signature.inputs] == ["input_0", "input_1"]
    assert kept.load()(torch.ones(3, 4), torch.ones(3, 4)).sum() == 24


def test_a_torch_module_without_example_is_pickled_only_if_asked(tmp_path: Path, as_model):
    """The error names both ways out."""
    torch = of("torch")
    net = network()
    with pytest.raises(SaveError, match=r"Pass input_example=.*trust=True"):
        save(net, tmp_path / "safe")
    kept = as_model(
        tmp_path / "pickled", save(net, tmp_path / "pickled", trust=True), saver_registry.find(net)
    )
    with pytest.raises(LoadError, match=r"pickle.*trust=True"):
        kept.load()
    x = torch.ones(2, 4)
    assert torch.equal(kept.load(trust=True).eval()(x), net.eval()(x))


def test_an_exported_module_with_a_pickle_in_it_is_refused(keep, tmp_path: Path):
    """A .pt2 file is a zip whose parts torch would unpickle."""
    torch = of("torch")
    kept = keep(network(), input_example=torch.ones(2, 4))
    torch.save({"state": Hostile(tmp_path / "trace")}, kept.folder / "data" / "model.pt2")
    with pytest.raises(LoadError, match=r"mlflow\.pytorch could not load this model.*trust=True"):
        kept.load()
    assert not (tmp_path / "trace").exists()
