"""Right and wrong uses, for mypy and pyright: each mark must stay necessary. See ``make types``."""

from __future__ import annotations

from typing_extensions import assert_type

import mlwrap
from mlwrap import Run, TrackedFunction, configure, current_run, model_run, tracked_training


@tracked_training
def bare(units: int, *, rate: float = 0.1) -> str:
    """Decorated without options."""
    return "model"


@tracked_training(experiment="digits", strict=True, tags={"team": "vision"}, spool=None)
def called(units: int) -> list[int]:
    """Decorated with some."""
    return [units]


@tracked_training
async def asynchronous(units: int) -> str:
    """A coroutine function."""
    return "model"


class Trainer:
    """Methods of every kind."""

    @tracked_training
    def method(self, units: int) -> str:
        """A method."""
        return "model"

    @tracked_training(name="named")
    def with_options(self, units: int) -> str:
        """Another."""
        return "model"

    @staticmethod
    @tracked_training
    def static(units: int) -> str:
        """A static method."""
        return "model"


def right() -> None:
    """What it returns, what its methods are bound to, and what is known of its runs."""
    assert_type(bare(3), str)
    assert_type(bare(units=3, rate=0.5), str)
    assert_type(called(3), list[int])
    assert_type(bare.__wrapped__(3), str)
    assert_type(bare.last_run, Run | None)
    assert_type(Trainer().method(3), str)
    assert_type(Trainer().with_options(units=3), str)
    assert_type(Trainer.method(Trainer(), 3), str)
    assert_type(Trainer().method.last_run, Run | None)
    assert_type(Trainer.static(3), str)
    assert_type(current_run(), Run | None)
    taken: TrackedFunction[[int], list[int]] = called
    assert_type(taken(3), list[int])
    with model_run("r", params={"units": 3}, delivery="off") as run:
        assert_type(run, Run)
    configure(experiment="digits", deadline=3.0)


async def right_in_a_coroutine() -> None:
    """Awaited, and with a block."""
    assert_type(await asynchronous(3), str)
    async with model_run("r") as run:
        assert_type(run, Run)


def wrong() -> None:
    """Calls that do not fit, options that there are not, and values of a wrong type."""
    bare("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare(3, speed=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Trainer().method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Trainer().method("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Trainer.static("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare.last_run.run_id  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]  # noqa: B018
    bare.last_rum  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]  # noqa: B018
    tracked_training(experimnt="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tracked_training(experiment=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tracked_training(delivery="pigeon")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tracked_training(verify="later")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tracked_training(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    model_run("r", strict="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    model_run("r", nothing=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    configure(deadline="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mlwrap.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]  # noqa: B018
