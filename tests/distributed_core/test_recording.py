"""What a scheduler records is done again, and stands where the scheduler stood."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_core import Client, messages
from distributed_core.errors import UsageError
from distributed_core.machines.scheduler import SchedulerMachine, events
from distributed_core.machines.scheduler.journal import EVENTS, Journal, digest, restored
from distributed_core.servers.recording import Recording
from distributed_core.settings import SchedulerSettings
from distributed_core.sim import expand
from distributed_core.sim.replay import replay, report
from distributed_core.sim.run import Simulation
from tests.distributed_core.fuzzing import inputs
from tests.distributed_core.launching import Launcher

SECRET = "hunter2-in-an-argument"


def wait_for(path: str, *inputs: object) -> str:
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return SECRET


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("seed", range(12))
def test_a_recorded_world_replays_to_the_same_state(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    scenario = expand(seed).derived()
    # A recording is of one scheduler.
    scenario.faults = [fault for fault in scenario.faults if fault.kind not in ("crash", "doom")]
    simulation = Simulation(scenario)
    recording = Recording(path, simulation.scheduler)
    checks: list[tuple[int, str]] = []

    def note() -> None:
        checks.append((recording.events, digest(simulation.scheduler.ledger)))

    for at_s in (0.3, 0.9, 1.7):
        simulation.world.later(at_s, note)
    simulation.run()
    recording.close()
    done = replay(path, check_every=50)
    assert (done.broken, done.events) == ("", recording.events)
    assert done.digest == digest(simulation.scheduler.ledger)
    for count, expected in checks:
        assert replay(path, events_max=count, check_every=1000).digest == expected


def test_every_event_goes_there_and_back() -> None:
    journal = Journal(b"secret")
    samples = [
        events.WorkerJoined(1, "a:1", "a", 2, {"resources": {"GPU": 1.0}, "memory_limit_bytes": 5}, returns=True),
        events.WorkerLost(1, -9, 5, alive=True),
        events.ClientJoined(2, "c", 2.0, returns=True),
        events.ClientLost(2),
        events.Received(2, [messages.Release([1, 2]), messages.Wish([[3, "k"]])]),
        events.LivenessChecked(),
        events.Continued(),
        events.RecoveryChecked(),
        events.CopiesWanted([[1, 2]]),  # type: ignore[list-item]
        events.ReplicasUnwanted([[1, 2]]),  # type: ignore[list-item]
        events.RetirementWanted([1]),
        events.RetirementPursued({1: ""}),
        events.RetirementEnded([1]),
    ]
    for event in samples:
        assert restored(json.loads(json.dumps(journal.event(event)))) == event
    # One that is new to the machine must be taught to the journal, or shown here to need no teaching.
    assert {type(each).__name__ for each in samples} == set(EVENTS)


def test_nothing_of_the_users_is_recorded() -> None:
    journal = Journal(b"secret")
    hidden = SECRET.encode()
    said = [
        messages.Submission([[b"digest", "f", hidden]], [[1, "key", b"digest", [hidden], [], 0, {"retries": 1}]]),
        messages.Completion(1, 1, 8, 0.1, hidden),
        messages.Failure(1, 1, [hidden], SECRET, 0.1, "exception"),
        messages.Heartbeat({"argv": SECRET}),
        messages.Cancellation([1], False, SECRET),
    ]
    text = json.dumps(journal.event(events.Received(1, said)))
    assert SECRET not in text
    assert hidden.hex() not in text
    assert "key" in text


def test_a_full_recording_ends_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "recording"
    path.write_text("was there before")
    machine = SchedulerMachine(SchedulerSettings(fill_s=0.5))
    recording = Recording(path, machine, bytes_max=2000)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 200):
            machine.handle(events.ClientJoined(number, f"c{number}"), float(number))
    assert "is full" in caplog.text
    assert path.stat().st_size < 3000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = replay(path)
    assert done.events == recording.events < 199
    assert "the recording was full" in report(done)
    assert done.machine.settings.fill_s == 0.5


def test_a_recording_that_was_cut_off_ends_where_it_can(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    machine = SchedulerMachine()
    recording = Recording(path, machine)
    for number in range(1, 5):
        machine.handle(events.ClientJoined(number, f"c{number}"), float(number))
    recording.close()
    path.write_bytes(path.read_bytes()[:-7])
    assert replay(path).events == 3
    path.write_text("no recording\n")
    with pytest.raises(UsageError, match="broken"):
        replay(path)
    with pytest.raises(UsageError, match="cannot be read"):
        replay(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="cannot be written"):
        Recording(tmp_path / "no" / "folder", SchedulerMachine())


HEAD = b'{"format": 1, "settings": {}}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xd0\xff" * 50 + b"\n",
        b'{"format": 1}\n',
        b'{"format": 1, "settings": 5}\n[1, "Continued"]\n',
        b'{"format": 1, "settings": {"fill_s": "x"}}\n[1, "Continued"]\n',
        HEAD + b"5\n",
        HEAD + b"[]\n",
        HEAD + b'["x", "Continued"]\n',
        HEAD + b"[1, 2]\n",
        HEAD + b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_recording(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        replay(path)
    assert "\n" not in str(caught.value)
    for kind in (tmp_path, Path("/dev/zero"), tmp_path / "pipe"):
        if kind.name == "pipe":
            os.mkfifo(kind)
        with pytest.raises(UsageError):
            replay(kind)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A recording of a whole simulated world."""
    path = tmp_path_factory.mktemp("whole") / "recording"
    simulation = Simulation(expand(3).derived())
    recording = Recording(path, simulation.scheduler)
    simulation.run()
    recording.close()
    return path.read_bytes()


@inputs(100)
@given(st.data())
def test_recordings_that_were_tampered_with(whole: bytes, data: st.DataObject) -> None:
    """100 by default: bytes changed, lines lost, doubled or moved. It says what broke, or that it is no recording."""
    lines = whole.splitlines(keepends=True)[: data.draw(st.integers(2, 200))]
    for _ in range(data.draw(st.integers(1, 3))):
        place, other = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        kind = data.draw(st.sampled_from(["change", "lose", "double", "move"]))
        if kind == "change" and lines[place]:
            at = data.draw(st.integers(0, len(lines[place]) - 1))
            put = data.draw(
                st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"-1", b"null", b"[]", b"9" * 30]))
            )
            lines[place] = lines[place][:at] + put + lines[place][at + 1 :]
        elif kind == "lose" and len(lines) > 1:
            del lines[place]
        elif kind == "double":
            lines.insert(place, lines[place])
        elif kind == "move":
            lines.insert(other, lines.pop(place))
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(lines))
        file.flush()
        try:
            told = report(replay(Path(file.name), check_every=50))
        except UsageError as error:
            told = str(error)
            assert "\n" not in told
    assert "Traceback" not in told


@pytest.mark.process
def test_a_stopped_cluster_becomes_a_replay(launch: Launcher, tmp_path: Path) -> None:
    path, go = tmp_path / "recording", str(tmp_path / "go")
    scheduler, address = launch.scheduler("--record", str(path))
    launch.worker(address, "--nthreads", "1", "--name", "one")
    client = Client(address, timeout=20)
    done = client.submit(str, SECRET, key="before")
    assert done.result(timeout=20) == SECRET
    failed = client.submit(fail, SECRET)
    assert isinstance(failed.exception(timeout=20), ValueError)
    stuck = client.submit(wait_for, go, done, key="stuck")
    after = client.submit(len, stuck, key="after")
    unmet = client.submit(len, stuck, key="unmet", resources={"GPU": 1})
    assert "runs on" in client.explain(stuck)
    client.dump_state(tmp_path / "state.json")
    told = json.loads((tmp_path / "state.json").read_text())["scheduler"]["recording"]
    scheduler.end(signal.SIGKILL)
    again = subprocess.run(
        [sys.executable, "-m", "distributed_core.sim", "replay", str(path), "--events", str(told["events"])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"digest {told['digest']}" in again
    assert "all invariants hold" in again
    assert "after waits for 1 of its 1 inputs: stuck. Of these stuck runs on" in again
    assert "unmet" in again
    assert SECRET not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Path(go).touch()
    del done, failed, stuck, after, unmet
    client.close()


def logged(folder: str, number: int, *inputs: object) -> str:
    with open(os.path.join(folder, str(number)), "a") as file:
        file.write("ran\n")
    return f"{SECRET}-{number}"


@pytest.mark.process
def test_a_scheduler_that_is_killed_and_one_that_comes_in_its_place_are_both_replayed(
    launch: Launcher, tmp_path: Path
) -> None:
    """`kill -9` in the middle of work, another scheduler that the workers and the client come back to, and again."""
    ran, go = tmp_path / "ran", str(tmp_path / "go")
    ran.mkdir()
    first, second = tmp_path / "first", tmp_path / "second"
    scheduler, address = launch.scheduler("--record", str(first))
    for name in ("one", "two"):
        launch.worker(address, "--nthreads", "1", "--name", name, "--no-nanny", "--memory-limit", "300MB")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(2, timeout=30)
        done = [client.submit(logged, str(ran), number, SECRET) for number in range(50)]
        client.gather(done)
        stuck = client.submit(wait_for, go, *done, key="stuck")
        rest = [client.submit(logged, str(ran), 100 + number, stuck) for number in range(50)]
        while client.processing() and "runs on" not in client.explain(stuck):
            pass
        before = recorded(client, tmp_path)
        scheduler.end(signal.SIGKILL)
        again = launch.start(
            "dscheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--record", str(second)
        )
        assert again.line().endswith(address)
        client.wait_for_workers(2, timeout=60)
        assert client.gather(done, direct=False) == [f"{SECRET}-{number}" for number in range(50)]
        Path(go).touch()
        assert client.gather(rest) == [f"{SECRET}-{100 + number}" for number in range(50)]
        after = recorded(client, tmp_path)
        again.end(signal.SIGKILL)
        for path, told in ((first, before), (second, after)):
            replayed = replay(path, events_max=told["events"])
            assert (replayed.digest, replayed.broken) == (told["digest"], "")
            assert len(replayed.machine.ledger.workers) == 2
            assert {each.limit_bytes for each in replayed.machine.ledger.workers.values()} == {300_000_000}
            whole = path.read_bytes()
            assert SECRET.encode() not in whole
            assert SECRET.encode().hex().encode() not in whole
            assert b"PRIVATE KEY" not in whole
            assert len(whole) < 200 * 1024
            # Whatever was on its way to the disk when it was killed: the file can be read to its end.
            assert replay(path).broken == ""
        # Nothing ran twice, although the second scheduler began with nothing.
        assert {each.name: each.read_text() for each in ran.iterdir()} == {
            str(base + number): "ran\n" for base in (0, 100) for number in range(50)
        }
        client.close(timeout=1)


def recorded(client: Client, folder: Path) -> dict[str, Any]:
    """Return where the recording stands, as the live scheduler tells it."""
    client.dump_state(folder / "state.json")
    return dict(json.loads((folder / "state.json").read_text())["scheduler"]["recording"])
