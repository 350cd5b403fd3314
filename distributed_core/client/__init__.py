"""The client: futures, and one connection to the scheduler.

cells.py     futures as user threads see them, beside `machines/client`
session.py   the machine's shell: the connection, on a loop
future.py    Future
client.py    Client, blocking or asynchronous over the same session
waiting.py   wait, as_completed
blocking.py  the bridge from other threads to the loop
plugging.py  functions on workers as such, plugins, uploads, calls on the scheduler
lives.py     restarts, and the end of the cluster
questions.py who has what, versions, logs
"""
