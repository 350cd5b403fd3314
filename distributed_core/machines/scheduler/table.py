"""The legal moves of a task, with what each is for. Everything else is a bug, and raises."""

from __future__ import annotations

from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Erred,
    Forgotten,
    Held,
    Ready,
    Released,
    TaskState,
    Waiting,
)

MOVES: dict[tuple[type[TaskState], type[TaskState]], str] = {
    (Released, Waiting): "wanted, and some inputs are missing",
    (Released, Ready): "wanted, and all inputs are held",
    (Released, Arriving): "a client is about to send its data",
    (Released, Erred): "scattered data that is needed again, but gone",
    (Released, Forgotten): "nobody can ask for it any more",
    (Waiting, Ready): "the last missing input is held",
    (Waiting, Held): "a copy turned up on a worker",
    (Ready, Held): "a copy turned up on a worker",
    (Waiting, Assigned): "it runs already: its worker was out of touch",
    (Waiting, Erred): "an input has no result",
    (Waiting, Released): "no longer wanted",
    (Ready, Waiting): "an input was lost before it was assigned",
    (Ready, Assigned): "placed on a worker",
    (Ready, Erred): "an input has no result any more",
    (Ready, Released): "no longer wanted",
    (Assigned, Held): "ran",
    (Assigned, Erred): "raised, or its worker died too often",
    (Assigned, Ready): "its worker died",
    (Assigned, Waiting): "the worker could not get an input",
    (Assigned, Released): "no longer wanted",
    (Arriving, Held): "the worker has the data",
    (Arriving, Erred): "the worker died before the data came",
    (Arriving, Released): "no longer wanted",
    (Held, Held): "one more holder, or one less",
    (Held, Released): "no longer wanted, or lost and computable",
    (Held, Erred): "lost, and it was scattered data",
    (Erred, Released): "to be tried again",
    (Erred, Forgotten): "nobody can ask for it any more",
}
