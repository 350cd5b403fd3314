"""Thin shells: tornado TCPServers that feed events to a machine and carry out its instructions.

shell.py      listening, the greeting, handlers that `rpc` reaches
scheduler.py  Scheduler
worker.py     Worker
executor.py   the threads that run user code
nanny.py      Nanny, and the child process that it keeps alive
child.py      what runs in that process
"""
