"""The client: futures, and one connection to the scheduler.

cells.py     what a client knows of each of its futures
session.py   the connection, on a loop
future.py    Future
client.py    Client, blocking or asynchronous over the same session
waiting.py   wait, as_completed
blocking.py  the bridge from other threads to the loop
"""
