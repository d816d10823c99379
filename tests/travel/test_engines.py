"""Real Dask and Ray: two worker processes each, functions of a module and of ``__main__``."""

from __future__ import annotations

import pytest

DASK = """
if __name__ == "__main__":
    from distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        with model_run("outer"):
            for function in (of_main, of_module):
                client.gather(client.map(function, range(3)))
    print(os.getpid())
"""

RAY = """
if __name__ == "__main__":
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

    with model_run("outer"):
        task = ray.remote(lambda function, point: function(point))
        ray.get([task.remote(of_module, point) for point in range(3)])
        task = ray.remote(lambda point: of_main(point))
        ray.get([task.remote(point) for point in range(3)])
    ray.shutdown()
    print(os.getpid())
"""


@pytest.mark.parametrize(("engine", "script"), [("distributed", DASK), ("ray", RAY)])
def test_an_engine(travel, engine: str, script: str):
    """Each call is a run; its workers, which were there before, know of no run around it."""
    pytest.importorskip(engine, reason=f"{engine} is not installed here: 'make test-more' has it")
    found = travel(script)
    assert found.pop("outer")
    assert {run.parent for runs in found.values() for run in runs} == {None}
