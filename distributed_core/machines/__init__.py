"""Pure machines: what scheduler, worker, nanny and client decide, without IO, clock, randomness, threads or logs.

The contract: `machine.handle(event, now) -> list of instructions`. `now` is seconds of a monotonic clock. An event
says what happened (`WorkerLost`), an instruction asks for an effect (`Send`); a timer is an instruction too. The
servers, and the simulation, feed events and carry out instructions, in order. The same events give the same
instructions, under any hash seed: a machine never iterates over a set.
"""
