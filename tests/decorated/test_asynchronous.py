"""Coroutines, tasks, threads and generators: every value in its own run, every run under its own parent."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from mlwrap import current_run, model_run, tracked_training
from mlwrap.errors import MlwrapWarning
from mlwrap.testing import capture_runs

MANY = 100


def test_a_coroutine_is_a_run(runs):
    """Open from its first step to its last; it is a coroutine function as before."""
    result = {"accuracy": 0.9}

    @tracked_training
    async def train(units, epochs=2):
        """Train."""
        assert current_run() is train.last_run
        await asyncio.sleep(0)
        assert train.last_run.status == "RUNNING"
        return result

    assert inspect.iscoroutinefunction(train)
    assert asyncio.iscoroutinefunction(train)
    coroutine = train(3)
    assert inspect.iscoroutine(coroutine)
    assert train.last_run is None
    assert asyncio.run(coroutine) is result
    run = runs()["train"]
    assert run.info.status == train.last_run.status == "FINISHED"
    assert run.data.params == {"units": "3", "epochs": "2"}
    assert run.data.metrics == {"accuracy": 0.9}


def test_coroutines_of_every_kind():
    """Methods, partials, callable objects, and static and class methods in either order."""

    async def train(units, epochs):
        return {"result": float(units * epochs)}

    class Training:
        @tracked_training
        async def method(self, units):
            return {"result": float(units)}

        @tracked_training
        @classmethod
        async def class_inside(cls, units):
            return {"result": float(units)}

        @staticmethod
        @tracked_training
        async def static_outside(units):
            return {"result": float(units)}

        async def __call__(self, units):
            return {"result": float(units)}

    calls = [
        functools.partial(tracked_training(functools.partial(train, 2), name="partial"), 3),
        functools.partial(Training().method, 6),
        functools.partial(Training.method, Training(), 6),
        functools.partial(Training.class_inside, units=6),
        functools.partial(Training().static_outside, 6),
        functools.partial(tracked_training(Training(), name="object"), 6),
    ]
    with capture_runs() as captured:
        for call in calls:
            assert asyncio.run(call()) == {"result": 6.0}
    names = ["partial", "method", "method", "class_inside", "static_outside", "object"]
    assert sorted(run.name for run in captured) == sorted(names)
    for run in captured:
        assert run.status == "FINISHED"
        assert run.metrics["result"][0].value == 6.0
        assert "self" not in run.params
        assert "cls" not in run.params


def test_how_a_coroutine_ends():
    """An exception is FAILED, cancelling and a time-out KILLED; the caller gets what it would have got."""

    @tracked_training(ignore="begun")
    async def train(seconds, case=None, begun=None):
        if begun is not None:
            begun.set()
        await asyncio.sleep(seconds)
        raise ValueError("the loss is on fire")

    async def cancelled():
        begun = asyncio.Event()
        task = asyncio.create_task(train(600, "cancelled", begun))
        await begun.wait()
        task.cancel()
        await task

    with capture_runs() as captured:
        with pytest.raises(ValueError, match="on fire") as caught:
            asyncio.run(train(0, "raises"))
        assert caught.value.__cause__ is caught.value.__context__ is None
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled())
        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(train(600, "late"), 0.01))
        with pytest.raises(TypeError, match="seconds"):
            asyncio.run(train(case="does not fit"))
    statuses = {run.params["case"]: run.status for run in captured}
    assert statuses == {"raises": "FAILED", "cancelled": "KILLED", "late": "KILLED", "does not fit": "FAILED"}


def test_a_coroutine_that_nobody_awaits_is_no_run():
    """Python says so, with the function's own name."""

    @tracked_training
    async def train(): ...

    with capture_runs() as captured:
        with pytest.warns(RuntimeWarning, match=r"train' was never awaited"):
            train()
        assert list(captured) == []


def test_a_coroutine_that_is_closed_ends_its_run():
    """There is no loop any more to wait in."""

    @tracked_training
    async def train():
        await asyncio.sleep(600)

    async def start():
        coroutine = train()
        coroutine.send(None)
        coroutine.close()

    with capture_runs() as captured, warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(start())
    assert [run.status for run in captured] == ["KILLED"]


def test_waiting_for_delivery_holds_up_no_other_task():
    """A server that is itself a task of the loop can answer, also where all the loop's threads are taken."""
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        release = threading.Event()
        busy = loop.run_in_executor(None, release.wait)
        server = await asyncio.start_server(answer, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        async with model_run("r", tracking_uri=f"http://127.0.0.1:{port}"):
            assert not asked
        assert asked
        release.set()
        await busy
        server.close()

    with pytest.warns(MlwrapWarning, match="403"):
        asyncio.run(main())


def test_a_run_whose_end_is_cancelled_is_delivered_all_the_same(runs):
    """The thread that tells MLflow goes on; the loop's end does not wait, but the interpreter's does."""
    ended = []

    async def train():
        async with model_run("r") as run:
            ended.append(run)
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(train())
    for thread in threading.enumerate():
        if thread.name.startswith("mlwrap"):
            thread.join()
    assert ended[0].status == "FINISHED"
    assert runs()["r"].info.status == "FINISHED"


def check_tree(captured) -> None:
    """Each outer run holds its own number and nothing else, and so does each inner one, under its outer."""
    captured = list(captured)
    by_key = {run.key: run for run in captured}
    outer = [run for run in captured if run.name == "outer"]
    inner = [run for run in captured if run.name == "inner"]
    assert len(outer) == len(inner) == MANY
    for run in (*outer, *inner):
        assert run.status == "FINISHED"
        for metric in ("number", "returned"):
            assert [value.value for value in run.metrics[metric]] == [float(run.params["number"])]
    assert {run.params["number"] for run in outer} == {str(number) for number in range(MANY)}
    assert all(run.parent is None for run in outer)
    for run in inner:
        assert by_key[run.parent].params["number"] == run.params["number"]


def test_a_hundred_runs_in_threads():
    """All open at once, each with one inside it."""
    together = threading.Barrier(MANY)

    @tracked_training
    def inner(number):
        current_run().log_metric("number", number)
        together.wait(60)
        return {"returned": number}

    @tracked_training
    def outer(number):
        current_run().log_metric("number", number)
        together.wait(60)
        inner(number)
        assert inner.last_run.name == "inner"
        assert current_run() is outer.last_run
        return {"returned": number}

    with capture_runs() as captured:
        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(outer, range(MANY)))
        check_tree(captured)
    assert current_run() is None


def test_a_hundred_runs_in_tasks():
    """The same, in one thread; each task's last_run is its own."""

    @tracked_training
    async def inner(number):
        current_run().log_metric("number", number)
        for _ in range(number % 7):
            await asyncio.sleep(0)
        return {"returned": number}

    @tracked_training
    async def outer(number):
        current_run().log_metric("number", number)
        await asyncio.sleep(0)
        await inner(number)
        assert inner.last_run.status == "FINISHED"
        assert current_run() is outer.last_run
        return {"returned": number}

    async def main():
        await asyncio.gather(*(outer(number) for number in range(MANY)))
        assert outer.last_run.status == "FINISHED"  # the newest of all: this task made no call

    with capture_runs() as captured:
        asyncio.run(main())
        check_tree(captured)


def test_a_hundred_runs_in_tasks_that_use_threads():
    """A thread that asyncio starts knows the run that it was started in."""

    @tracked_training
    def inner(number):
        current_run().log_metric("number", number)
        return {"returned": number}

    @tracked_training
    async def outer(number):
        await asyncio.to_thread(inner, number)
        current_run().log_metric("number", number)
        return {"returned": number}

    with capture_runs() as captured:
        with ThreadPoolExecutor(4) as pool:
            numbers = [range(start, MANY, 4) for start in range(4)]

            async def some(numbers):
                await asyncio.gather(*(outer(number) for number in numbers))

            list(pool.map(lambda numbers: asyncio.run(some(numbers)), numbers))
        check_tree(captured)


def test_a_thread_started_inside_a_run():
    """It knows of the run if it is started in a copy of the context, as contextvars has it."""
    with capture_runs() as captured, model_run("r") as run, ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_run).result() is None
        assert pool.submit(contextvars.copy_context().run, current_run).result() is run
        pool.submit(contextvars.copy_context().run, run.log_metric, "loss", 0.5).result()
    assert captured[0].metrics["loss"][0].value == 0.5


def test_last_run_is_of_this_thread():
    """Another's newer call does not come between a call and its last_run."""

    @tracked_training
    def train(case):
        return None

    def newest() -> str:
        return next(run.params["case"] for run in captured if run.key == train.last_run.key)

    with capture_runs() as captured, ThreadPoolExecutor(1) as pool:
        pool.submit(train, "theirs").result()
        assert newest() == "theirs"  # this thread has made no call
        train("ours")
        pool.submit(train, "theirs again").result()
        assert newest() == "ours"
        assert pool.submit(newest).result() == "theirs again"


def test_generators_that_end_out_of_order():
    """No run that has ended stays the current one, and what is closed early is KILLED."""

    def steps(name: str) -> Iterator[None]:
        with model_run(name):
            yield
            yield

    with capture_runs() as captured, model_run("around") as around:
        first, second = steps("first"), steps("second")
        next(first)
        next(second)
        assert current_run().name == "second"
        list(first)
        assert current_run().name == "second"
        second.close()
        assert current_run() is around
    assert current_run() is None
    status = {run.name: run.status for run in captured}
    assert status == {"around": "FINISHED", "first": "FINISHED", "second": "KILLED"}


def test_tasks_share_mlflows_stack_and_still_know_their_parents(runs):
    """MLflow's active run may be another task's; once all have ended there is none."""

    async def one(number: int) -> None:
        async with model_run(f"outer{number}"):
            await asyncio.sleep(0)
            async with model_run(f"inner{number}"):
                for _ in range(3 - number):
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(3)))
        assert mlflow.active_run() is None
        async with model_run("after"):
            pass

    asyncio.run(main())
    found = runs()
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    assert parents.pop("after") is None
    for number in range(3):
        assert parents[f"outer{number}"] is None
        assert parents[f"inner{number}"] == found[f"outer{number}"].info.run_id
    assert {run.info.status for run in found.values()} == {"FINISHED"}
