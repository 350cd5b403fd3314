"""The whole cluster on virtual time, from a seed: the real machines over a simulated network, with faults.

    world.py     virtual clock, event heap, links that delay but keep their order
    workload.py  random graphs and what each of their tasks must give
    workers.py   a worker: the real machine, simulated threads and data
    run.py       one world from a seed to its end, with the oracle that judges it

The same seed gives the same trace. `python -m tests sim --seeds N` runs many; a failing one prints its replay.
"""

from distributed_core.sim.run import Outcome, simulate

__all__ = ["Outcome", "simulate"]
