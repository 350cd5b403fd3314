"""Ctrl-C, as a terminal sends it: to every process of the group. What waits ends at once, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.distributed_core.launching import BIN, DEADLINE_S

pytestmark = pytest.mark.process

#: A shell that starts commands in the background lets them ignore Ctrl-C; these are to be as in the foreground.
FOREGROUND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
PROMPT_S = 5.0

PRELUDE = """
import contextlib, os, sys, threading, time
from distributed_core import Client, LocalCluster, Lock, Queue, as_completed, wait
from distributed_core.client import backlog

def say(*words):
    # In one piece, whatever buffers there are: other processes write to the same pipe.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def never(path, *inputs):
    import os, time
    while not os.path.exists(path):
        time.sleep(0.01)
    return path

def add_one(value):
    return value + 1

def tell_when_blocked(name):
    \"\"\"Say so when the main thread has stood at one place for a while.\"\"\"
    main = threading.main_thread().ident
    def watch():
        last, same = None, 0
        while same < 5:
            time.sleep(0.02)
            frame = sys._current_frames()[main]
            place = (id(frame), frame.f_lasti)
            same = same + 1 if place == last else 0
            last = place
        say("blocked", name)
    threading.Thread(target=watch, daemon=True).start()

def interrupted(name, call):
    tell_when_blocked(name)
    try:
        call()
    except KeyboardInterrupt:
        say("interrupted", name)
    else:
        say("returned", name)
"""

CALLS = """
folder = sys.argv[1]
with LocalCluster(1, 2) as cluster, cluster.client() as client:
    stuck = client.submit(never, folder + "/gate", key="stuck")
    after = client.submit(add_one, stuck)
    lock, queue = Lock("lock", client=client), Queue("queue", client=client)
    held = client.submit(add_one, 0)
    held.result()
    def flood():
        backlog.BACKLOG_BYTES_MAX = 10_000
        client._session.window.tasks_max = 2
        kept = [client.submit(add_one, after) for _ in range(10_000)]
    calls = {
        "result": stuck.result,
        "result with a time limit": lambda: stuck.result(timeout=1000),
        "exception": after.exception,
        "gather": lambda: client.gather([stuck, after]),
        "wait": lambda: wait([stuck, after]),
        "as_completed": lambda: next(as_completed([stuck, after])),
        "as_completed with a time limit": lambda: next(as_completed([stuck, after], timeout=1000)),
        "wait_for_workers": lambda: client.wait_for_workers(99),
        "a queue": queue.get,
        "submit": flood,
    }
    for name, call in calls.items():
        interrupted(name, call)
        # It can be used as before.
        backlog.BACKLOG_BYTES_MAX, client._session.window.tasks_max = 64 << 20, 100_000
        assert client.submit(add_one, 1, pure=False).result(timeout=60) == 2
        assert lock.acquire(timeout=30)
        lock.release()
    open(folder + "/gate", "w").close()
    assert client.gather([stuck, held], errors="raise") == [folder + "/gate", 1]
say("closed")
"""

CLOSING = """
import signal
cluster = LocalCluster(1, 1)
client = cluster.client()
os.kill(client.submit(os.getpid).result(), signal.SIGSTOP)
interrupted("close", cluster.close)
say("closed")
"""

CONNECTING = """
interrupted("connect", lambda: Client(sys.argv[1], timeout=1000, reconnect_timeout=1000))
say("closed", threading.active_count() <= 3)
"""

STARTING = """
from distributed_core.client import connected
connected.OWN_WORKERS_TIMEOUT_S = 1000
from distributed_core.servers import nanny
nanny.sys = type("Slow", (), {"executable": sys.argv[1], "exc_info": sys.exc_info})
interrupted("start", lambda: Client(n_workers=2, threads_per_worker=1))
say("closed")
"""


class Foreground:
    """A program in a group of its own, as a terminal has one in the foreground."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
            )

    def line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline().rstrip("\n")
        assert text, f"it ended with {self.process.wait(DEADLINE_S)}: {self.log.read_text()}"
        return text

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def members(self) -> list[psutil.Process]:
        """Return the processes of its session that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                pass
        return found

    def end(self) -> tuple[int, str]:
        """Return its exit code and what it said on stderr; nothing of it may be left."""
        code = self.process.wait(DEADLINE_S)
        _, alive = psutil.wait_procs(self.members(), PROMPT_S)
        assert alive == []
        return code, self.log.read_text()


Starts = Callable[..., Foreground]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    made: list[Foreground] = []

    def begin(*argv: str) -> Foreground:
        made.append(Foreground([sys.executable, *argv], tmp_path / f"{len(made)}.log"))
        return made[-1]

    yield begin
    for each in made:
        for process in each.members():
            process.kill()
        each.process.wait(DEADLINE_S)
        assert each.process.stdout is not None
        each.process.stdout.close()


def expect(program: Foreground, name: str) -> None:
    """Interrupt a program that says that it is blocked; it must be free at once."""
    assert program.line() == f"blocked {name}"
    program.ctrl_c()
    assert program.line() == f"interrupted {name}"


def test_ctrl_c_in_calls_that_wait(start: Starts, tmp_path: Path) -> None:
    """Each ends with KeyboardInterrupt, and the client works as before; the tasks go on, nobody asked to end them."""
    program = start("-c", FOREGROUND + PRELUDE + CALLS, str(tmp_path))
    count = 0
    while (line := program.line()) != "closed":
        assert line.startswith("blocked "), line
        program.ctrl_c()
        assert program.line() == line.replace("blocked", "interrupted")
        count += 1
    assert count == 10
    assert program.end() == (0, "")


def test_ctrl_c_while_a_cluster_closes(start: Starts) -> None:
    """A process that does not answer holds up the orderly end: a Ctrl-C makes it short."""
    program = start("-c", FOREGROUND + PRELUDE + CLOSING)
    expect(program, "close")
    assert program.line() == "closed"
    code, said = program.end()
    assert code == 0
    assert "Traceback" not in said
    assert "destroyed" not in said


def test_ctrl_c_while_a_client_connects(start: Starts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = start("-c", FOREGROUND + PRELUDE + CONNECTING, f"127.0.0.1:{silent.getsockname()[1]}")
        expect(program, "connect")
        assert program.line() == "closed True"
        assert program.end() == (0, "")


def test_ctrl_c_while_a_cluster_starts(start: Starts, tmp_path: Path) -> None:
    """Its workers are processes that never say anything, and do not ignore the signal yet."""
    slow = tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport os, time\nos.write(1, b'begun\\n')\ntime.sleep(1000)\n")
    slow.chmod(0o700)
    program = start("-c", FOREGROUND + PRELUDE + STARTING, str(slow))
    lines = {program.line() for _ in range(3)}
    assert lines == {"begun", "blocked start"}
    program.ctrl_c()
    assert program.line() == "interrupted start"
    assert program.line() == "closed"
    assert program.end() == (0, "")


def command(name: str) -> str:
    """Return a program that is one of the commands."""
    return FOREGROUND + f"exec(compile(open({str(BIN / name)!r}).read(), {name!r}, 'exec'))"


def test_ctrl_c_while_dcluster_logs_in(start: Starts) -> None:
    """At a host that accepts the connection and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        program = start("-c", command("dcluster"), "127.0.0.1", "--ssh-port", port)
        peer, _ = silent.accept()
        program.ctrl_c()
        code, said = program.end()
        peer.close()
    assert code == 0
    assert "Traceback" not in said


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("words", ["dscheduler", "dworker", "dworker --no-nanny"])
def test_ctrl_c_at_the_commands(start: Starts, words: str, times: int) -> None:
    """An orderly end with exit code 0; a second one ends at once. No traceback from any process of the group."""
    scheduler = start("-c", command("dscheduler"), "--host", "127.0.0.1", "--port", "0")
    address = scheduler.line().split()[-1]
    program = scheduler
    if words != "dscheduler":
        name, *options = words.split()
        program = start("-c", command(name), address, "--nthreads", "1", *options)
        assert program.line().startswith("Start worker at")
        assert program.line().startswith("Registered")
    for _ in range(times):
        program.ctrl_c()
    code, said = program.end()
    assert code in ((0,) if times == 1 else (0, 1))
    assert "Traceback" not in said
    if program is not scheduler:
        scheduler.ctrl_c()
        assert scheduler.end()[0] == 0
