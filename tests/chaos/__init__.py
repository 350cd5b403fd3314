"""Real faults on real processes: scheduler, workers and clients on hosts of their own, and every result must be right.

    python -m tests chaos --seconds 120 --seed 7     two minutes
    python -m tests chaos --plants                   faults in the house itself: each must be noticed

A run makes a world that ends with it: a network without an uplink, private mounts and processes. Each host is a network
namespace at the end of a cable that a process of this test relays, so that it can be cut, slowed, delayed or made to
lose frames; it has a control group, so that it can be frozen and be short of memory, and a small disk of its own.

A run is a row of rounds: some time of faults while clients submit work whose answers are known, then quiet. In the
quiet all faults are healed, every job that was begun must end, and the scheduler and the workers must hold nothing.
What lives all the time (scheduler, nannies, clients) must come back to the descriptors and threads that it had. In the
end all are told to end, and nothing may be left: no process, no socket, no file.

How long recovery takes is measured for each fault: from the moment at which it happened (for faults that last: at which
it was healed) until each job that was open then has its right result. So it contains what the jobs take anyway, and
what other faults do to them meanwhile; `--at-once 1` makes one fault at a time.

The same seed makes the same faults at the same times on the clock of the rounds.
"""
