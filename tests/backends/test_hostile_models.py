"""The corpus: none of its models is loaded, and none writes, imports, runs or takes all memory.

It is a test in every environment: of each framework the files that it would do harm through. Good models of
the same kinds load beside them, without trust.
"""

from __future__ import annotations

import re
import resource
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlwrap import load_model
from mlwrap._journal.input_example import Example
from mlwrap._savers.keras_checks.config import declared
from mlwrap.errors import LoadError
from tests.corpus.models import EXAMPLES, Case, corpus, describe

CASES = corpus()
HAS_TENSORFLOW = find_spec("tensorflow") is not None
if HAS_TENSORFLOW:
    from tests.corpus import graphs

MOST_MEMORY = 1 << 20  # KiB that this process may come to take beside what it had
NEVER_IMPORTED = {
    "antigravity",
    "this",
    "tqdm.__main__",
    "flask.__main__",
    "pygments.__main__",
    "pip.__main__",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a model goes; nothing that it may do beside is left unseen."""
    (tmp_path / "SECRET.txt").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    for name in NEVER_IMPORTED & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    before, memory = sorted(tmp_path.iterdir()), _memory()
    yield tmp_path / "model"
    assert sorted(path for path in tmp_path.iterdir() if path.name != "model") == before
    assert not NEVER_IMPORTED & set(sys.modules)
    assert _memory() - memory < MOST_MEMORY


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def refuse(folder: Path, case: Case) -> None:
    """See that a model is not loaded, and that the reason is a sentence."""
    case.build(folder)
    for trust in (False, True) if case.trust else (False,):
        with pytest.raises(LoadError) as caught:
            load_model(folder, trust=trust, into=object())
        assert str(caught.value).rstrip().endswith((".", "first.", ")"))
        # Refused by mlwrap, and not by a framework that had opened it already.
        assert not re.search(r"can't be read\. |could not be rebuilt", str(caught.value))


def test_the_corpus_is_large():
    """A hundred files at least, wherever it runs."""
    assert len(CASES) >= 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_model_is_refused(folder, name):
    """Before anything of it is imported, unpacked, rebuilt or run."""
    refuse(folder, CASES[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_hostile_example_is_refused(folder, name):
    """It is inflated by nobody."""
    folder.mkdir()
    (folder / "mlwrap-example.npz").write_bytes(EXAMPLES[name])
    with pytest.raises(LoadError, match=r"example .* can't be read"):
        Example.read(folder)


def test_no_model_is_thought_to_be_larger_than_it_is():
    """What is counted of a configuration is at most what Keras makes of it."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    x = layers.Input((8, 8, 3))
    y = layers.Flatten()(layers.SeparableConv2D(4, 3)(layers.Conv2D(6, 3, groups=3)(x)))
    words = layers.Input((5,))
    z = layers.Bidirectional(layers.LSTM(4))(layers.Embedding(50, 6)(words))
    shared = layers.Dense(7)
    both = layers.Concatenate()([layers.Dense(7)(y), shared(shared(layers.Dense(7)(z)))])
    model = keras.Model([x, words], layers.TimeDistributed(layers.Dense(2))(layers.Reshape((7, 2))(both)))
    config = keras.saving.serialize_keras_object(model)
    assert 0 < declared(config) <= model.count_params()


if HAS_TENSORFLOW:

    @pytest.fixture(scope="module")
    def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder of SavedModels that do no harm."""
        folder = tmp_path_factory.mktemp("good")
        graphs.save_words(folder)
        graphs.save_words_of_tf1(folder)
        return folder

    def logged(source: Path, folder: Path) -> Path:
        """A logged model of a SavedModel that lies in its folder."""
        source.rename(folder / "tf2model")
        describe(folder, "saved_model")
        return folder

    def changed(good: Path, folder: Path, name: str) -> None:
        """A logged model of a SavedModel that was changed."""
        age, what = name.split(": ")
        folder.mkdir()
        harm = graphs.HARM_IN_TF1 if age == "TF 1" else graphs.HARM_IN_TF2
        source = good / ("words1" if age == "TF 1" else "words")
        graphs.changed(source, folder / "tf2model", harm[what])
        describe(folder, "saved_model")

    GRAPHS = [f"TF 2: {name}" for name in graphs.HARM_IN_TF2] + [
        f"TF 1: {name}" for name in graphs.HARM_IN_TF1
    ]
    UNSAFE_WITH_TRUST = ("an asset outside", "an absolute asset", "an asset without a name", "no graph")

    @pytest.mark.parametrize("name", GRAPHS)
    def test_a_hostile_graph_is_refused(folder, good, name):
        """Whatever runs it and whenever, before TensorFlow opens it; assets stay inside with trust, too."""
        trust = name.endswith(UNSAFE_WITH_TRUST)
        refuse(folder, Case(lambda folder: changed(good, folder, name), trust=trust))

    @pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
    def test_another_file_is_not_taken_for_the_graph(folder, good, name):
        """What TensorFlow might open in its place is not looked at."""
        changed(good, folder, "TF 2: initializer runs WriteFile")
        file = folder / "tf2model" / "saved_model.pb"
        file.with_name(name).write_bytes(file.read_bytes())
        if name.endswith("cpb"):
            file.write_bytes((good / "words" / "saved_model.pb").read_bytes())
        else:
            file.unlink()
        describe(folder, "saved_model")
        with pytest.raises(LoadError):
            load_model(folder)

    @pytest.mark.parametrize("name", ["words", "words1"])
    def test_tables_assets_and_variables_load_without_trust(tmp_path, good, name):
        """Of TensorFlow 2 and of TensorFlow 1."""
        graphs.changed(good / name, tmp_path / "copy", lambda model: None)
        (tmp_path / "model").mkdir()
        loaded = load_model(logged(tmp_path / "copy", tmp_path / "model"))
        import tensorflow as tf  # noqa: PLC0415  # only where it is

        call = loaded if callable(loaded) else loaded.signatures["serving_default"]
        found = call(tf.constant(["b", "x"]))
        found = next(iter(found.values())) if isinstance(found, dict) else found
        assert found.numpy().tolist()[0] == 2.0

    @pytest.mark.parametrize("save", [graphs.save_writing, graphs.save_writing_of_tf1])
    def test_what_writes_when_it_is_loaded_needs_trust(tmp_path, save):
        """These are real: with trust they do write. The sentence names the operation and the function."""
        canary = tmp_path / "written"
        source = save(tmp_path, canary)
        canary.unlink(missing_ok=True)
        (tmp_path / "model").mkdir()
        model = logged(source, tmp_path / "model")
        with pytest.raises(LoadError, match=r"WriteFile in .* writes files when it is loaded.*trust=True"):
            load_model(model)
        assert not canary.exists()
        load_model(model, trust=True)
        assert canary.exists()
