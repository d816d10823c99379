"""Hostile files, made here: each is refused before anything in it is imported, unpacked or rebuilt."""

from __future__ import annotations

import json
import sys
import zipfile

import pytest

from mlwrap import savers
from mlwrap._savers import saver_registry
from mlwrap._savers.keras_checks.archive import check_archive, check_hdf5
from mlwrap.errors import LoadError, SaveError
from tests.corpus.archives import (
    HOSTILE_CONFIGS,
    HOSTILE_MEMBERS,
    HOSTILE_WEIGHTS,
    archive,
    function,
    weights,
)


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each Keras that is installed here."""
    pytest.importorskip("tensorflow")
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE_MEMBERS)
def test_a_hostile_member_is_refused(tmp_path, case):
    """By its name, its kind or its size; the error names the file and the member."""
    extra, words = HOSTILE_MEMBERS[case]
    with pytest.raises(LoadError, match=words) as caught:
        check_archive(archive(tmp_path / "model.keras", extra))
    assert str(tmp_path / "model.keras") in str(caught.value)


def test_too_many_members(tmp_path):
    """Each costs an inode."""
    with pytest.raises(LoadError, match=r"10,0\d\d members, more than 10,000"):
        check_archive(archive(tmp_path / "model.keras", *((f"assets/{i}", b"") for i in range(10_010))))


def test_members_that_overlap(tmp_path):
    """The directory names the same bytes many times: more comes out than is in."""
    path = archive(tmp_path / "model.keras", ("assets/a", bytes(1000)), ("assets/b", bytes(10)))
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    entry = content.index(b"PK\x01\x02", content.index(b"assets/b", directory) - 50)
    sizes = (1_000_000).to_bytes(4, "little") * 2
    path.write_bytes(content[: entry + 20] + sizes + content[entry + 28 :])
    with pytest.raises(LoadError, match="long together, the file is"):
        check_archive(path)


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"PK\x03\x04", weights()], ids=["empty", "rubbish", "torn", "h5"]
)
def test_what_is_no_zip(tmp_path, content):
    """Keras 2 would open HDF5 by any name, with the code in it."""
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(LoadError, match="expected a zip archive"):
        check_archive(tmp_path / "model.keras")


def test_a_file_that_is_not_there(tmp_path):
    """A sentence too."""
    with pytest.raises(LoadError, match=r"model\.keras is refused"):
        check_archive(tmp_path / "model.keras")


def test_a_file_without_weights(tmp_path):
    """What is missing is named."""
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(LoadError, match=r"has no model\.weights\.h5"):
        check_archive(tmp_path / "model.keras")


@pytest.mark.parametrize("case", HOSTILE_WEIGHTS)
def test_hostile_weights_are_refused(tmp_path, case):
    """Inside of a .keras file, and by themselves."""
    write, words = HOSTILE_WEIGHTS[case]
    content = weights(write)
    with pytest.raises(LoadError, match=words):
        check_archive(archive(tmp_path / "model.keras", h5=content))
    (tmp_path / "model.weights.h5").write_bytes(content)
    with pytest.raises(LoadError, match=words):
        check_hdf5(tmp_path / "model.weights.h5", "the weights")


def test_broken_weights_are_refused(tmp_path):
    """Cut, or nothing of the kind."""
    for content in (b"", b"rubbish", weights()[:-1000]):
        with pytest.raises(LoadError, match="can't be read"):
            check_archive(archive(tmp_path / "model.keras", h5=content))


def test_a_circle_of_groups_ends(tmp_path):
    """A hard link that leads back is no trouble, and no endless walk."""
    check_archive(
        archive(tmp_path / "m.keras", h5=weights(lambda f: f.__setitem__("layers/dense/up", f["layers"])))
    )


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_a_hostile_configuration_is_refused(keras, tmp_path, monkeypatch, case):
    """What it names is neither imported nor looked up, and nothing is rebuilt."""
    config, words = HOSTILE_CONFIGS[case]
    (tmp_path / "data").mkdir()
    archive(tmp_path / "data" / "model.keras", config=config)
    monkeypatch.setattr(
        keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was asked to load it")
    )
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    with pytest.raises(LoadError, match=words):
        saver_registry.by_name("keras").load(
            tmp_path, {"keras": keras.__name__, "version": keras.__version__}
        )
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_configuration_that_nests_at_will(keras, tmp_path, depth):
    """However deep, it is walked, or refused where Python's own reader gives up."""
    (tmp_path / "data").mkdir()
    path = archive(tmp_path / "data" / "model.keras")
    deep = '{"a":' * depth + json.dumps(function("os", "system")) + "}" * depth
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", deep)
        file.writestr("model.weights.h5", weights())
    with pytest.raises(LoadError, match=r"os\.system|can't be read"):
        saver_registry.by_name("keras").load(
            tmp_path, {"keras": keras.__name__, "version": keras.__version__}
        )


def test_a_keras_that_the_file_names_is_one_of_keras(tmp_path):
    """The name comes from MLmodel, and is imported: only Keras's own are."""
    with pytest.raises(LoadError, match="Expected a model of keras or tf_keras, got one of 'antigravity'"):
        saver_registry.by_name("keras").load(tmp_path, {"keras": "antigravity", "version": "3.0"})
    assert "antigravity" not in sys.modules


def test_weights_are_checked_with_trust_too(keras, tmp_path):
    """Trust is for code: nobody's Keras writes a link."""
    (tmp_path / "data").mkdir()
    archive(tmp_path / "data" / "model.keras", h5=weights(HOSTILE_WEIGHTS["soft link"][0]))
    with pytest.raises(LoadError, match="leads elsewhere"):
        saver_registry.by_name("keras").load(
            tmp_path, {"keras": keras.__name__, "version": keras.__version__}, trust=True
        )


@pytest.mark.parametrize("case", ["external link", "external storage"])
def test_hdf5_that_somebody_returned_is_checked_too(keras, tmp_path, case):
    """Weights, and whole models that are trusted: links lead out of them all the same."""
    (tmp_path / "data").mkdir()
    content = weights(HOSTILE_WEIGHTS[case][0])
    for name in ("model.h5", "model.weights.h5"):
        (tmp_path / "data" / name).write_bytes(content)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(LoadError, match=HOSTILE_WEIGHTS[case][1]):
        saver_registry.by_name("keras_weights").load(
            tmp_path, {"weights": "data/model.weights.h5"}, into=model
        )
    written_by = {"keras": keras.__name__, "version": keras.__version__}
    with pytest.raises(LoadError, match=HOSTILE_WEIGHTS[case][1]):
        saver_registry.by_name("keras_hdf5").load(tmp_path, written_by, trust=True)


def test_a_hostile_file_that_is_returned_is_not_passed_on(tmp_path):
    """What load_model would refuse is not logged as a model."""
    path = archive(tmp_path / "best.keras", ("assets/../../evil.txt", b"x"))
    (tmp_path / "out").mkdir()
    with pytest.raises(
        SaveError, match=r"best\.keras is no \.keras file that loads.*leads out of the folder"
    ):
        saver_registry.find(path).save(path, tmp_path / "out", savers.SaveOptions())
