"""The scheduler's machine: which task runs where, who holds which data, and who still wants it.

tasks.py        the task and its states, each carrying its own data
peers.py        what the scheduler believes of workers and clients
table.py        the legal moves between the states of a task
ledger.py       all records and the outbox; the only place that changes the state of a task
transitions.py  what a move means for the tasks around it
placement.py    which worker: a pure policy
views.py        what workers believe, compared and mended
machine.py      events in, instructions out
invariants.py   what must hold after every event
"""

from distributed_core.machines.scheduler.machine import SchedulerMachine

__all__ = ["SchedulerMachine"]
