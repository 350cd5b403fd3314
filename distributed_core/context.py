"""Which task this thread runs, so that code inside a task finds its worker and its client."""

from __future__ import annotations

import threading
from typing import Any


class Context(threading.local):
    """Set by the worker's threads.

    Attributes
    ----------
    worker
        The `Worker` whose thread this is, or None outside of tasks.
    run, task
        The run that the thread is at, and the task that it is of; 0 between tasks.
    """

    worker: Any = None
    run: int = 0
    task: int = 0


context = Context()
