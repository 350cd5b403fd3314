"""What the scheduler offers beside running tasks, a file for each subject. None of them opens what is the user's.

base.py         what they share
operations.py   calls of many workers or nannies at once
plugins.py      plugins, and what clients may call here by name
life.py         deaths, restarts, the end of an idle cluster
questions.py    who holds what, who runs what
reasons.py      why a task is where it is, and dumps of everything
keeping.py      values that the scheduler keeps, with the futures inside
coordination.py locks, semaphores, events, queues, variables, datasets
news.py         events by topic
moving.py       replicate, rebalance, retire_workers
"""

from __future__ import annotations

from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.coordination import Coordination
from distributed_core.servers.extensions.keeping import Keeping
from distributed_core.servers.extensions.life import Life
from distributed_core.servers.extensions.moving import Moving
from distributed_core.servers.extensions.news import News
from distributed_core.servers.extensions.operations import Operations
from distributed_core.servers.extensions.plugins import Plugins
from distributed_core.servers.extensions.questions import Questions
from distributed_core.servers.extensions.reasons import Reasons

EXTENSIONS: tuple[type[Extension], ...] = (
    Operations,
    Plugins,
    Life,
    Questions,
    Moving,
    Reasons,
    Keeping,
    Coordination,
    News,
)
