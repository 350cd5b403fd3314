"""Patch cables in user space: a kernel without netem can still delay, lose, slow down and cut.

Each cable has a TAP device at each end. This process relays the frames of all cables, so that its load is its own:

    python -m tests.chaos.cable NAME [NAME ...]

One end of cable NAME is `eth0` in the network namespace NAME, the other `p-NAME` here. A line of JSON on stdin sets how
a cable is from now on: {"cable": NAME, "delay_s": .., "jitter_s": .., "loss": .., "bytes_per_s": .., "cut": ..}, and is
answered by a line when it is so. The end of stdin ends all.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from typing import Any

_SET_INTERFACE = 0x400454CA
_TAP, _PLAIN_FRAMES = 2, 0x1000
_NETWORK_NAMESPACE = 0x40000000
FRAME_BYTES_MAX = 1 << 16
#: What a slow cable keeps before it drops, as a router would.
QUEUE_S_MAX = 0.5


class Cable:
    """How one cable is, and its two ends."""

    def __init__(self, name: str) -> None:
        self.ends = (_tap(f"/run/netns/{name}", "eth0"), _tap(None, f"p-{name}"))
        self.heal()

    def heal(self, **how: Any) -> None:
        """Be as good as new, but for what is named."""
        self.delay_s: float = how.get("delay_s", 0.0)
        self.jitter_s: float = how.get("jitter_s", 0.0)
        self.loss: float = how.get("loss", 0.0)
        self.bytes_per_s: float = how.get("bytes_per_s", 0.0)
        self.cut: bool = how.get("cut", False)
        self.free_at = [0.0, 0.0]

    @property
    def plain(self) -> bool:
        return not (self.delay_s or self.loss or self.bytes_per_s or self.cut)

    def due(self, end: int, nbytes: int, now: float) -> float | None:
        """Return when a frame from this end arrives at the other; None: never."""
        if self.cut or (self.loss and random.random() < self.loss):
            return None
        at = now
        if self.bytes_per_s:
            at = max(now, self.free_at[end])
            if at - now > QUEUE_S_MAX:
                return None
            at = self.free_at[end] = at + nbytes / self.bytes_per_s
        return at + self.delay_s + random.random() * self.jitter_s


def _tap(namespace: str | None, name: str) -> int:
    """Return the descriptor of a new TAP device in a namespace."""
    made: list[int] = []

    def make() -> None:  # a thread enters a namespace by itself, and this one ends there
        if namespace is not None:
            place = os.open(namespace, os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(place, _NETWORK_NAMESPACE) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            os.close(place)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), _TAP | _PLAIN_FRAMES))
        made.append(device)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Relay:
    """Carries frames until stdin ends."""

    def __init__(self, names: list[str]) -> None:
        self._cables = {name: Cable(name) for name in names}
        self._ends = {fd: (cable, end) for cable in self._cables.values() for end, fd in enumerate(cable.ends)}
        self._later: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._words = b""

    def run(self) -> None:
        poll = select.epoll()
        for fd in (0, *self._ends):
            poll.register(fd, select.EPOLLIN)
        print("ready", flush=True)
        while True:
            left_s = max(0.0, self._later[0][0] - time.monotonic()) if self._later else -1
            for fd, _ in poll.poll(left_s):
                if fd == 0:
                    if not self._obey():
                        return
                else:
                    self._take(fd)
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, _, other, frame = heapq.heappop(self._later)
                _put(other, frame)

    def _take(self, fd: int) -> None:
        cable, end = self._ends[fd]
        other = cable.ends[1 - end]
        for _ in range(64):  # then others have their turn
            try:
                frame = os.read(fd, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            if cable.plain:
                _put(other, frame)
                continue
            at = cable.due(end, len(frame), time.monotonic())
            if at is not None:
                self._count += 1
                heapq.heappush(self._later, (at, self._count, other, frame))

    def _obey(self) -> bool:
        read = os.read(0, 1 << 16)
        *lines, self._words = (self._words + read).split(b"\n")
        for line in lines:
            how = json.loads(line)
            self._cables[how.pop("cable")].heal(**how)
            print("done", flush=True)
        return bool(read)


def _put(fd: int, frame: bytes) -> None:
    try:
        os.write(fd, frame)
    except OSError:
        pass  # the device is down, or its queue is full: then the frame is lost


class Cables:
    """The process of all cables, from outside."""

    def __init__(self, names: list[str]) -> None:
        command = [sys.executable, "-m", "tests.chaos.cable", *names]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear("ready")

    def set(self, name: str, **how: Any) -> None:
        """Let a cable be so; without more words: as good as new."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"cable": name, **how}) + "\n")
        self._process.stdin.flush()
        self._hear("done")

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != word:
            raise RuntimeError(f"the process of the cables said {said!r} instead of {word}")

    def close(self) -> None:
        """End the process; the devices go with it."""
        self._process.communicate()


if __name__ == "__main__":
    Relay(sys.argv[1:]).run()
