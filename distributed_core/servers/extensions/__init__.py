"""What the scheduler offers beside running tasks, a file for each subject. None of them opens what is the user's.

base.py    what they share
moving.py  replicate, rebalance, retire_workers
"""

from __future__ import annotations

from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.moving import Moving

EXTENSIONS: tuple[type[Extension], ...] = (Moving,)
