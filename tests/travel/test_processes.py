"""Pools of processes: fork, spawn, forkserver, loky; from a module, ``__main__`` and a notebook."""

from __future__ import annotations

import pytest

POOL = """
if __name__ == "__main__":
    with model_run("outer"):
        {pool}
            for function in (of_main, of_module):
                list(pool.map(function, range(3)))
    print(os.getpid())
"""
STANDARD = """import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("{method}")) as pool:"""
LOKY = """from joblib.externals.loky import get_reusable_executor
        with get_reusable_executor(2) as pool:"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "loky"])
def test_a_pool(travel, method: str):
    """Each call is a run of its own, under the run that the pool was made in."""
    pool = LOKY if method == "loky" else STANDARD.format(method=method)
    found = travel(POOL.format(pool=pool))
    (outer,) = found.pop("outer")
    assert {run.parent for runs in found.values() for run in runs} == {outer.key}


JOBLIB = """
class Trainer:
    def __init__(self, scale):
        self.scale = scale

    @tracked_training(name="method", tags={"kept": "yes"})
    def method(self, point):
        return {"point": point * self.scale, "process": os.getpid()}

    @tracked_training(name="static", tags={"kept": "yes"})
    @staticmethod
    def static(point):
        return {"point": point, "process": os.getpid()}

def nested():
    scale = 1
    @tracked_training(name="nested", tags={"kept": "yes"})
    def train(point):
        return {"point": point * scale, "process": os.getpid()}
    return train

if __name__ == "__main__":
    from joblib import Parallel, delayed
    for function in (Trainer(1).method, Trainer.static, nested()):
        Parallel(2)(delayed(function)(point) for point in range(3))
    print(os.getpid())
"""


def test_methods_and_nested_functions_by_joblib(travel):
    """They travel by value, with what they are bound to or closed over."""
    travel(JOBLIB, names=("method", "static", "nested"))


NOTEBOOK = """
import nbformat
from nbclient import NotebookClient

cell = nbformat.v4.new_code_cell
cells = [
    SOURCE,
    '''
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from joblib.externals.loky import get_reusable_executor
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    list(pool.map(of_module, range(3)))
with get_reusable_executor(2) as pool:
    list(pool.map(of_main, range(3)))
print(os.getpid())
''',
]
notebook = nbformat.v4.new_notebook(cells=[cell(source) for source in cells])
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(notebook.cells[1].outputs[-1].text)
"""


def test_a_notebook(travel):
    """What its cells define is in no file; it travels by value."""
    pytest.importorskip("nbclient", reason="nbclient is in the dependency group 'engines'")
    pytest.importorskip("ipykernel", reason="ipykernel is in the dependency group 'engines'")
    from tests.travel.conftest import MAIN  # noqa: PLC0415

    travel(f"SOURCE = {MAIN!r}\n{NOTEBOOK}")
