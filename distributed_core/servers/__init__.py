"""Thin shells: tornado TCPServers that feed events to a machine and carry out its instructions.

shell.py      listening, the greeting, handlers that `rpc` reaches
scheduler.py  Scheduler
worker.py     Worker
executor.py   the threads that run user code
nanny.py      Nanny, and the child process that it keeps alive
child.py      what runs in that process
attendance.py what accompanies a worker's tasks: plugins, preloaded modules, its lifetime
errands.py    functions that clients run on a worker or nanny as such; the plugins there
preloads.py   modules that an operator names
logs.py       the last lines that this process logged
extensions/   what the scheduler offers beside running tasks
"""
