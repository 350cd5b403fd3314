"""The whole cluster on virtual time, from a seed: the real machines over a simulated network, with faults.

    world.py     virtual clock, processes with clocks of their own, links that delay but keep their order
    workload.py  random graphs and what each of their tasks must give
    scenario.py  a seed becomes plain data: workers, clients, faults
    clients.py   a client: the real machine, and what its user submits, lets go of, tries again
    workers.py   a worker: the real machine, simulated threads and data
    nannies.py   who starts another process: the real nanny's machine, or an operator
    peers.py     how both find the scheduler, and hear that a connection is no more
    faults.py    what goes wrong, by name
    run.py       one world from its scenario to its end
    oracle.py    what must be true at every moment, and at the end
    golden.py    scenarios as readable lines
    reduce.py    the smallest scenario that still fails
    replay.py    what a scheduler recorded, done again: `python -m distributed_core.sim replay FILE`

The same seed gives the same trace. `python -m tests sim --seeds N` runs many; a failing one prints its replay.
"""

from distributed_core.sim.run import Outcome, simulate
from distributed_core.sim.scenario import Scenario, expand

__all__ = ["Outcome", "Scenario", "expand", "simulate"]
