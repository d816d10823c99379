"""What ``import mlwrap`` costs, and what it promises."""

from __future__ import annotations

import mlwrap


def test_importing_mlwrap_loads_nothing_heavy(python):
    """Neither TensorFlow, Keras, MLflow nor what they bring."""
    done = python(
        "import sys, mlwrap\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'mlflow', 'numpy', 'pandas', 'rich', 'wrapt'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert done.stdout == "[]\n"


def test_decorating_loads_nothing_heavy(python):
    """A script that only defines its training functions starts as fast as without mlwrap."""
    done = python(
        "import sys, mlwrap\n"
        "@mlwrap.tracked_training\n"
        "def train(units=1): ...\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'numpy', 'pandas'} & set(sys.modules)))\n"
    )
    assert done.stdout == "[]\n"


def test_the_training_half_never_imports_mlflow(python):
    """A whole run, written down for later: nothing on the way imports MLflow, or a module that does."""
    done = python(
        "import sys, mlwrap\n"
        "with mlwrap.model_run('r', params={'a': 1}) as run:\n"
        "    run.log_metric('loss', 0.5)\n"
        "    run.record({'accuracy': 0.9})\n"
        "print([name for name in sys.modules if name == 'mlflow' or name.startswith('mlwrap._mlflow.')])\n",
        MLWRAP_DELIVERY="off",
    )
    assert done.stdout == "['mlwrap._mlflow.undocumented']\n"  # it names MLflow's modules, and imports none


def test_every_public_name_is_there():
    """What ``__all__`` promises loads, and is sorted."""
    assert mlwrap.__all__ == sorted(mlwrap.__all__)
    for name in mlwrap.__all__:
        assert getattr(mlwrap, name) is not None
    assert set(mlwrap.__all__) <= set(dir(mlwrap))


def test_a_name_that_is_not_there_is_an_attribute_error():
    """As of any module."""
    assert not hasattr(mlwrap, "nothing")
