"""What the scheduler offers beside running tasks, a file for each subject. None of them opens what is the user's.

base.py   what they share
"""

from __future__ import annotations

from distributed_core.servers.extensions.base import Extension

EXTENSIONS: tuple[type[Extension], ...] = ()
