"""The worker's machine: what to fetch, what to run, what to report.

    runs.py        one attempt at a task
    replicas.py    data wanted, in flight, held
    beliefs.py     what is there, for the scheduler to compare
    machine.py     events in, instructions out
    invariants.py  what must hold after every event

A run and the data that it leaves are two records, so that "cancelled while it runs" needs no state of its own: the run
is forgotten, and its late answer finds nobody.
"""

from distributed_core.machines.worker.machine import WorkerMachine

__all__ = ["WorkerMachine"]
