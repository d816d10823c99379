"""Each kind of result in its file, and read back from there."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlwrap._returned import results
from mlwrap._returned.unpack import unpack
from mlwrap._savers import paths
from mlwrap._savers.figures import write_figure
from mlwrap.errors import MlwrapWarning, SaveError, SpoolError


@pytest.fixture
def written(tmp_path):
    """Write the one result in a value; gives its file."""

    def write(value) -> Path:
        (output,) = unpack(value).outputs
        file = tmp_path / "written" / output.path
        file.parent.mkdir(parents=True, exist_ok=True)
        output.content(file)
        return file

    return write


ARRAYS = {
    "floats": np.linspace(0, 1, 12).reshape(3, 4),
    "not contiguous": np.arange(24).reshape(4, 6)[::2, ::3],
    "Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), "int8"),
    "booleans": np.array([True, False]),
    "text": np.array(["cat", "déjà"]),
    "complex": np.array([1 + 2j]),
    "times": np.array(["2024-01-01"], "M8[D]"),
    "structured": np.array([(1, 0.5)], dtype=[("id", "i4"), ("score", "f8")]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays(written, array):
    """As numpy writes them, without pickle: type, shape and every bit."""
    found = np.load(written(array), allow_pickle=False)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([None, 1]), r"Python objects can't be written without pickle \(its shape is \(2,\)\)"),
        (np.ma.masked_array([1, 2], [True, False]), "has no masks. Return the parts, .data and .mask"),
    ],
)
def test_an_array_that_has_no_file_is_refused(written, array, words):
    """With what to do instead."""
    with pytest.raises(SaveError, match=words):
        written(array)


TABLES = {
    "a frame": (pd.DataFrame({"a": [1, 2], "b": [0.1, 1 / 3], "c": ["x", "y,z"], "d": [True, False]}), None),
    "a meaningful index": (pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="key")), "key"),
    "infinity and gaps": (pd.DataFrame({"a": [math.inf, -math.inf, math.nan, 1e300]}), None),
    "no rows": (pd.DataFrame({"a": pd.Series(dtype="float64")}), None),
}


@pytest.mark.parametrize(("frame", "index"), TABLES.values(), ids=TABLES.keys())
def test_tables(written, frame, index):
    """CSV, which every tool and MLflow's page read; floats to their last digit."""
    found = pd.read_csv(written(frame), index_col=index)
    pd.testing.assert_frame_equal(found, frame, check_dtype=bool(len(frame)), check_exact=True)


def test_series_and_times(written):
    """A series has one column; times are ISO 8601, with their zone."""
    series = pd.Series([1.5, 2.5], index=pd.date_range("2024-01-01", periods=2, tz="UTC"), name="load")
    file = written({"hourly": series})
    assert file.name == "hourly.csv"
    assert file.read_text() == ",load\n2024-01-01 00:00:00+00:00,1.5\n2024-01-02 00:00:00+00:00,2.5\n"


def test_text_that_no_encoding_has(written):
    """It is written as an escape, and costs no other row."""
    assert written(pd.DataFrame({"a": ["\udcff", "b"]}, dtype=object)).read_text() == "a\n\\udcff\nb\n"


def test_a_large_table_is_cut_with_a_warning(written, monkeypatch):
    """By its values: two columns of four rows are eight."""
    monkeypatch.setattr(results, "_MAX_CELLS", 8)
    whole = pd.DataFrame({"a": range(4), "b": range(4)})
    assert len(pd.read_csv(written({"t": whole}))) == 4
    with pytest.warns(MlwrapWarning, match=r"table of 5 rows is logged as its first 4 in u\.csv"):
        file = written({"u": pd.concat([whole, whole[:1]], ignore_index=True)})
    pd.testing.assert_frame_equal(pd.read_csv(file), whole)


def plotly_figure():
    """A figure of plotly."""
    return pytest.importorskip("plotly.graph_objects", reason="plotly is not installed").Figure()


def altair_chart():
    """Two charts of Altair, one on the other."""
    altair = pytest.importorskip("altair", reason="Altair is not installed")
    chart = altair.Chart(pd.DataFrame({"x": [1, 2]})).mark_point().encode(x="x")
    return chart + chart


def bokeh_figure():
    """A figure of Bokeh."""
    figure = pytest.importorskip("bokeh.plotting", reason="Bokeh is not installed").figure()
    figure.line([0, 1], [2, 3])
    return figure


@pytest.mark.parametrize("made", [plotly_figure, altair_chart, bokeh_figure])
def test_interactive_figures_are_html(written, tmp_path, made):
    """Returned or given to ``log_figure``; its JavaScript comes from the web, so the file is small."""
    figure = made()
    file = written({"curves": figure})
    assert file.name == "curves.html"
    write_figure(figure, tmp_path / "given.html")
    for path in (file, tmp_path / "given.html"):
        text = path.read_text()
        assert "<html" in text.lower()
        assert "https://cdn" in text
        assert len(text) < 100_000


def test_a_given_figure_has_the_format_of_its_ending(tmp_path):
    """Axes stand for their figure, here too; an image of Pillow is one, and so is what has a ``savefig``."""
    figure = Figure(figsize=(2, 1), dpi=100)

    class Grid:
        def savefig(self, path):
            figure.savefig(path)

    for value in (figure, figure.subplots(1, 2), Grid(), Image.new("RGB", (200, 100))):
        write_figure(value, tmp_path / "given.jpg")
        with Image.open(tmp_path / "given.jpg") as found:
            assert (found.format, found.size) == ("JPEG", (200, 100))


def test_what_is_no_figure_is_refused(tmp_path):
    """With what was expected."""
    with pytest.raises(TypeError, match=r"dict is no figure.*matplotlib, plotly"):
        write_figure({}, tmp_path / "given.png")


def test_a_bokeh_figure_is_refused_as_a_picture(tmp_path):
    """With the ending that it takes."""
    with pytest.raises(TypeError, match=r"Bokeh figure is written as \.html"):
        write_figure(bokeh_figure(), tmp_path / "given.png")


def test_figures_and_axes(written):
    """A picture of the whole figure, however much of it was returned."""
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = figure.subplots(1, 2)
    axes[0].plot([1, 2])
    inner = Figure().subfigures(1, 2)[0].subplots()
    for value in (figure, axes, axes[0], (figure, axes), [*axes], {"roc": (figure, axes)}):
        with Image.open(written(value)) as picture:
            assert (picture.format, picture.size) == ("PNG", (200, 100))
    with Image.open(written({"inner": inner})) as picture:
        assert picture.size == (640, 480)


@pytest.mark.parametrize(
    ("mode", "ending"), [("RGB", ".png"), ("1", ".png"), ("F", ".tiff"), ("CMYK", ".tiff")]
)
def test_images(written, mode, ending):
    """Every pixel, in PNG or in what has such pixels."""
    image = Image.new(mode, (3, 2))
    file = written({"sample": image})
    assert file.name == f"sample{ending}"
    with Image.open(file) as found:
        assert (found.mode, found.size, found.tobytes()) == (mode, (3, 2), image.tobytes())


@pytest.mark.parametrize("value", [b"\0\xff", bytearray(b"\0\xff"), memoryview(b"\0\xff")])
def test_bytes(written, value):
    """As they are."""
    assert written(value).read_bytes() == b"\0\xff"


def test_hyperparameters_of_keras_tuner(written):
    """The value of each, as a tuner's are returned beside its best model."""
    keras_tuner = pytest.importorskip("keras_tuner")
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Int("units", 2, 4)
    hyperparameters.Choice("rate", [0.1, 0.2])
    file = written((1.0, hyperparameters))
    assert json.loads(file.read_text()) == {"units": 2, "rate": 0.1}


class TestPaths:
    """Copies of what is no model."""

    def test_files_and_folders(self, written, tmp_path):
        """As they are when they are returned."""
        (tmp_path / "plots" / "deep").mkdir(parents=True)
        (tmp_path / "plots" / "deep" / "a.txt").write_text("a")
        folder = written(tmp_path / "plots")
        (tmp_path / "plots" / "deep" / "a.txt").write_text("b")
        assert (folder / "deep" / "a.txt").read_text() == "a"
        assert written({"note": tmp_path / "plots" / "deep" / "a.txt"}).read_text() == "b"

    def test_what_can_not_be_copied_is_named(self, written, tmp_path):
        """What is not there, what is empty, and a link in a folder."""
        with pytest.raises(SpoolError, match="gone is not there"):
            written(tmp_path / "gone")
        (tmp_path / "empty" / "deep").mkdir(parents=True)
        with pytest.raises(SaveError, match="empty holds no files"):
            written(tmp_path / "empty")
        (tmp_path / "empty" / "link").symlink_to(tmp_path)
        with pytest.raises(SpoolError, match="empty/link is a link"):
            written(tmp_path / "empty")

    @pytest.mark.parametrize(("limit", "value"), [("_MAX_BYTES", 5), ("_MAX_FILES", 1)])
    def test_more_than_anybody_expects_is_not_copied(self, written, tmp_path, monkeypatch, limit, value):
        """A folder of data that was returned with the settings."""
        monkeypatch.setattr(paths, limit, value)
        (tmp_path / "data").mkdir()
        for name in ("a", "b"):
            (tmp_path / "data" / name).write_bytes(b"123")
        with pytest.raises(SaveError, match=r"data holds more than .* run\.log_artifact\(\) logs it"):
            written(tmp_path / "data")
        assert written(tmp_path / "data" / "a").read_bytes() == b"123"


def test_a_large_array_is_not_held_twice(written):
    """Neither one that lies in order, nor one that does not."""
    array = np.zeros((64, 1 << 17))  # 64 MiB
    for value in (array, array.T):
        tracemalloc.start()
        try:
            file = written({"x": value})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 32 << 20
        assert np.load(file, mmap_mode="r").shape == value.shape


class TestTensors:
    """Tensors and variables of whatever framework is here."""

    def test_of_tensorflow(self, written):
        """Type and values; what numpy's files have no name for is written as what holds it."""
        tf = pytest.importorskip("tensorflow")
        wide = np.arange(6, dtype="int32").reshape(2, 3)
        for value in (tf.constant(wide), tf.Variable(wide), tf.constant(wide[:0])):
            found = np.load(written(value))
            np.testing.assert_array_equal(found, np.asarray(value))
            assert found.dtype == "int32"
        half = np.load(written(tf.constant([0.5, 1.5], tf.bfloat16)))
        assert (half.dtype, half.tolist()) == (np.float32, [0.5, 1.5])
        with pytest.raises(SaveError, match="without pickle"):
            written(tf.constant(["a", "b"]))

    def test_piece_by_piece(self, written, monkeypatch):
        """A tensor of more than one piece is whole in its file."""
        tf = pytest.importorskip("tensorflow")
        monkeypatch.setattr(results, "_CHUNK_SIZE", 100)
        value = tf.random.stateless_uniform((37, 5), (1, 2))
        np.testing.assert_array_equal(np.load(written(value)), value.numpy())

    def test_variables_of_keras(self, written):
        """A model's own weights."""
        keras = pytest.importorskip("tensorflow").keras
        dense = keras.layers.Dense(2)
        dense.build((None, 3))
        np.testing.assert_array_equal(np.load(written(dense.kernel)), np.asarray(dense.kernel))

    def test_of_torch(self, written):
        """With its gradient left behind; bfloat16 as float32."""
        torch = pytest.importorskip("torch")
        value = torch.arange(6.0).reshape(2, 3).T
        for tensor in (value, torch.nn.Parameter(value)):
            np.testing.assert_array_equal(np.load(written(tensor)), value.numpy())
        assert np.load(written(torch.ones(2, dtype=torch.bfloat16))).dtype == np.float32

    def test_of_jax(self, written):
        """The same."""
        numpy = pytest.importorskip("jax.numpy")
        value = numpy.arange(6.0).reshape(2, 3)
        np.testing.assert_array_equal(np.load(written(value)), np.asarray(value))
        assert np.load(written(numpy.ones(2, numpy.bfloat16))).dtype == np.float32

    def test_what_is_no_table_of_numbers_is_not_known(self):
        """Ragged and sparse tensors have no one shape; a symbolic one has no values."""
        tf = pytest.importorskip("tensorflow")
        odd = {
            "ragged": tf.ragged.constant([[1], [2, 3]]),
            "sparse": tf.sparse.from_dense([[1, 0]]),
            "symbolic": tf.keras.layers.Input((3,)),
        }
        unpacked = unpack(odd)
        assert unpacked.outputs == []
        assert [place for place, _ in unpacked.unknown] == ["['ragged']", "['sparse']", "['symbolic']"]
