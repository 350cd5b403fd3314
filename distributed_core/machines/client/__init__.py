"""The client's machine: what it would have to say again, what of its work may leave, what became of its futures.

    futures.py     what is known of one future
    lineage.py     what futures are made from, as long as any of it is held
    window.py      how much of that is at the scheduler at once
    machine.py     events in, instructions out
    invariants.py  what must hold after every event

Nothing of it is on a disk: what a client does not say again is lost with its scheduler.
"""

from distributed_core.machines.client.machine import ClientMachine

__all__ = ["ClientMachine"]
