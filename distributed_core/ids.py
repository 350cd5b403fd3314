"""Names for the numbers that travel on the wire.

All are small integers that the scheduler (or, for `Number`, the client) counts up and never uses twice, so that a late
message about a finished thing can never be taken for one about a new thing.
"""

from __future__ import annotations

TaskId = int
"""A task of the scheduler: a run to do, and afterwards the data that it left."""

RunId = int
"""One assignment of a task to a worker; an answer with an old run id is dropped."""

FunctionId = int
"""A function body that the scheduler forwards without opening it."""

WorkerId = int
ClientId = int

PeerId = int
"""A connection of the scheduler, whatever is at its other end; worker ids and client ids are peer ids."""

Number = int
"""A future, as its own client counts it."""

SCHEDULER: PeerId = 0
"""The scheduler, in the machines of its peers."""
