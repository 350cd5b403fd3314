"""Machines of systemd-nspawn: real systemd, sshd and cloud-init on a root file system and an address of their own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from moto_fixtures import cage, host, image
from moto_fixtures.account import MotoRegion, instance_group_ids
from moto_fixtures.errors import HostLacking, ImageBuildFailed, MachineFailed
from moto_fixtures.firewall import ruleset
from moto_fixtures.lifecycle import BootOrder, Lifecycle
from moto_fixtures.region import NSPAWN_FOLDER, IsolatedRegion, assert_isolated
from moto_fixtures.runs import cgroup_prefix, run_folder

#: How long an orderly shutdown may take before the machine is killed.
GRACE_S = 15.0

#: systemd-nspawn ends with it if the machine asked for a restart.
REBOOT_EXIT_CODE = 133

# In its own mount namespace, so the overlay goes with the machine.  nspawn alone would show the interfaces of the
# region in /sys, so nsenter goes into the network first.  Arguments: base, folder, namespace, host name, cgroup doors.
_SPAWN = """\
base=$1 folder=$2 namespace=$3 hostname=$4
shift 4
for door; do echo 0 > "$door" || exit 101; done
mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/disk,workdir=$folder/work" "$folder/root" || exit 102
exec nsenter --net="/run/netns/$namespace" systemd-nspawn --quiet --boot --keep-unit --register=no \
    --machine="$namespace" --hostname="$hostname" --network-namespace-path="/run/netns/$namespace" \
    --resolv-conf=off --timezone=off --link-journal=no --console=read-only --directory="$folder/root"
"""


class NspawnMachine:
    """The machine of one instance.  A thread follows it from boot to the end."""

    def __init__(self, hall: NspawnMachines, instance_id: str) -> None:
        self.instance_id = instance_id
        #: The name of its network namespace, for `ip netns exec`.
        self.namespace = instance_id
        self._hall = hall
        self._folder = hall.folder / instance_id
        self._cage: cage.Cage | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        #: How often the machine has come up so far, restarts included.
        self.boots = 0
        self._came_up = threading.Condition()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._leaving = threading.Event()  # set: do not restart after a reboot
        self._crashed = False
        self._plugged = False
        self._rules = ruleset([], {})  # nothing may pass until the groups are known

    # -- for tests

    @property
    def pid(self) -> int | None:
        """The first process of the machine, as this namespace numbers it; None while it is down."""
        return self._leader

    @property
    def disk(self) -> Path:
        """What the machine changed on the base image, as an overlay; it stays over stop and start."""
        return self._folder / "disk"

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command inside of the machine, past SSH and security groups; its output.

        Raises MachineFailed if the machine is down or the command fails.
        """
        if self._leader is None:
            raise MachineFailed(f"{self.instance_id} is down, so nothing can run in it: wait for its state first.")
        enter = ("nsenter", "--target", str(self._leader), "--all", "--", "env", "-i", f"PATH={_PATH}")
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=timeout_s)
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise MachineFailed(f"`{' '.join(command)}` failed on {self.instance_id} ({words}): look at its console.")
        return done.stdout

    def wait_boots(self, count: int, timeout_s: float = 60) -> None:
        """Wait until the machine has come up `count` times since its launch.  Raises TimeoutError."""
        with self._came_up:
            if not self._came_up.wait_for(lambda: self.boots >= count, timeout_s):
                raise TimeoutError(f"{self.instance_id} came up {self.boots} times in {timeout_s} s, not {count} times")

    def wait_cloud_init(self, timeout_s: float = 120) -> str:
        """Wait until cloud-init has ended in a machine that runs; its last words, for example `status: done`.

        Raises MachineFailed if it ended with an error, and subprocess.TimeoutExpired.
        """
        return self.run("cloud-init", "status", "--wait", timeout_s=timeout_s).strip(". \n")

    def shut_down(self) -> None:
        """The system of the machine powers itself off, as by a command inside."""
        self._signal_leader(_POWER_OFF)

    def crash(self) -> None:
        """The hardware breaks: all processes are gone at once, and the API goes on saying `running`."""
        self._crashed = True
        self._leaving.set()
        self._signal_leader(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop every process of the machine where it is."""
        if self._cage:
            self._cage.freeze()

    def thaw(self) -> None:
        """Let the machine go on."""
        if self._cage:
            self._cage.thaw()

    def console(self) -> bytes:
        """What the machine wrote to its console so far."""
        log = self._folder / "console.log"
        return log.read_bytes() if log.exists() else b""

    # -- for the keeper

    def boot(self, order: BootOrder) -> None:
        """Start, in a thread of its own."""
        before, self._leaving, self._crashed = self._thread, threading.Event(), False
        self._thread = threading.Thread(
            target=self._live, args=(order, before), name=f"machine {self.instance_id}", daemon=True
        )
        self._thread.start()

    def enforce(self, rules: str) -> None:
        """Replace the packet filter, now or as soon as there is a network.  rules: text for nft."""
        with self._lock:
            if rules != self._rules:
                self._rules = rules
                if self._plugged:
                    self._hall.region.enforce(self.namespace, rules)

    def power_off(self) -> None:
        """Ask for an orderly shutdown; a killer waits for the end of the grace period."""
        with self._lock:
            self._leaving.set()
            process = self._process
        if process is not None:
            process.send_signal(signal.SIGTERM)
        threading.Thread(target=self._kill_after_grace, args=(self._thread,), name="grace", daemon=True).start()

    def reboot(self) -> None:
        """Ask for an orderly restart."""
        self._signal_leader(_REBOOT)

    def kill(self) -> None:
        """Everything stops now."""
        with self._lock:
            self._leaving.set()
            process, leader = self._process, self._leader
        self.thaw()
        for pid in (leader, process.pid if process else None):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait until the machine is gone."""
        if self._thread:
            self._thread.join()

    # -- the life of a machine

    def _live(self, order: BootOrder, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            self._prepare_disk(order)
            self._cage = cage.Cage(self._hall.cgroup_prefix + self.instance_id[-8:], order.memory_bytes_max)
            self._plug(order)
            while self._run_once(order) == REBOOT_EXIT_CODE and not self._leaving.is_set():
                pass
        except (MachineFailed, OSError) as error:
            self._hall.failures.append(error)
            with open(self._folder / "console.log", "a") as log:
                log.write(f"test cloud: {error}\n")
        finally:
            self._clean_up(order)
            report = self._hall.lifecycle.machine_died if self._crashed else self._hall.lifecycle.machine_down
            report(self.instance_id)

    def _plug(self, order: BootOrder) -> None:
        region = self._hall.region
        region.plug(self.namespace, f"v-{order.mac.replace(':', '')[-10:]}", order.private_ip, order.mac)
        with self._lock:
            region.enforce(self.namespace, self._rules)
            self._plugged = True
        if order.public_ip:
            region.publish(order.private_ip, order.public_ip)

    def _prepare_disk(self, order: BootOrder) -> None:
        for name in ("disk", "work", "root"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        seed = self.disk / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"instance-id": order.instance_id, "local-hostname": order.hostname}
        if order.public_key:
            facts["public-keys"] = [order.public_key]
        (seed / "meta-data").write_text(json.dumps(facts))
        (seed / "user-data").write_bytes(order.user_data)

    def _run_once(self, order: BootOrder) -> int:
        """From power on to power off; the exit code of nspawn."""
        assert self._cage is not None
        with _ReadySocket(self.instance_id) as ready, open(self._folder / "console.log", "ab") as log:
            arguments = [str(self._hall.base), str(self._folder), self.namespace, order.hostname, *self._cage.doors()]
            with self._lock:
                if self._leaving.is_set():
                    return 0
                process = self._process = subprocess.Popen(
                    ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SPAWN, "sh", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={"PATH": _PATH, "NOTIFY_SOCKET": ready.name},
                )
            self._leader = ready.wait_leader(process)
            if self._leader is not None:
                self._hall.lifecycle.machine_up(self.instance_id)
                with self._came_up:
                    self.boots += 1
                    self._came_up.notify_all()
                ready.drain_until_end_of(process)
            code = process.wait()
            self._leader = None
            if code in (101, 102):
                raise MachineFailed(f"{self.instance_id} did not start: look at the last lines of its console.")
            return code

    def _clean_up(self, order: BootOrder) -> None:
        region = self._hall.region
        with self._lock:
            self._plugged = False
        if order.public_ip:
            with contextlib.suppress(MachineFailed):
                region.withdraw(order.private_ip, order.public_ip)
        with contextlib.suppress(MachineFailed):
            region.unplug(self.namespace)
        if self._cage:
            self._cage.remove()
            self._cage = None
        self._process = None

    def _kill_after_grace(self, thread: threading.Thread | None) -> None:
        if thread is not None:
            thread.join(GRACE_S)
            if thread.is_alive() and thread is self._thread:
                self.kill()

    def _signal_leader(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._leader is not None:
                os.kill(self._leader, number)
                return
        raise MachineFailed(f"{self.instance_id} is down, so it takes no signal: wait for its state first.")


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What systemd, as the first process, understands by these signals.
_POWER_OFF = signal.SIGRTMIN + 4
_REBOOT = signal.SIGINT


class _ReadySocket:
    """nspawn says through it that the first process of the machine runs, and which one that is."""

    def __init__(self, instance_id: str) -> None:
        self.name = f"{NSPAWN_FOLDER}/{instance_id}.ready"  # short: a socket's name has 107 bytes at most
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> _ReadySocket:
        Path(self.name).unlink(missing_ok=True)
        self._socket.bind(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def wait_leader(self, process: subprocess.Popen[bytes]) -> int | None:
        """The first process of the machine; None if nspawn ended before there was one."""
        end = os.pidfd_open(process.pid)
        leader: int | None = None
        try:
            while True:
                readable, _, _ = select.select([self._socket.fileno(), end], [], [])
                if self._socket.fileno() not in readable:
                    return None
                words = dict(line.partition("=")[::2] for line in self._socket.recv(4096).decode().splitlines())
                leader = int(words.get("X_NSPAWN_LEADER_PID", leader or 0)) or None
                if words.get("READY") == "1":
                    return leader
        finally:
            os.close(end)

    def drain_until_end_of(self, process: subprocess.Popen[bytes]) -> None:
        """Read on: nspawn passes on what the services inside say, and with a full socket it would never end."""
        end = os.pidfd_open(process.pid)
        try:
            while True:
                readable, _, _ = select.select([self._socket.fileno(), end], [], [])
                if self._socket.fileno() not in readable:
                    return
                self._socket.recv(4096)
        finally:
            os.close(end)


class NspawnMachines:
    """Keeps the machines of one cloud; as a context manager.

    The overlay folders lie in a folder of their own, with a lock that says that the cloud lives.  The next cloud sweeps
    what a killed one left there.  Raises NotIsolated, HostLacking or ImageBuildFailed when it is entered.
    """

    lifecycle: Lifecycle

    def __init__(self) -> None:
        self.machines: dict[str, NspawnMachine] = {}
        #: What went wrong in the threads of machines.
        self.failures: list[Exception] = []
        self.region = IsolatedRegion()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> NspawnMachines:
        """Build the network and the folder."""
        lacking = host.missing()
        if lacking:
            raise HostLacking(f"This computer cannot carry machines: {lacking}")
        assert_isolated()
        base = image.built()
        if base is None:
            raise ImageBuildFailed(
                "the base image is missing, and it cannot be built without a network:"
                " run `python -m moto_fixtures build` outside of the namespace first."
            )
        self.base = base
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.region)
            self.folder = undo.enter_context(run_folder())
            self.cgroup_prefix = cgroup_prefix(self.folder)
            undo.callback(self._kill_all)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all machines and remove what they leave."""
        self._undo.close()

    def boot(self, order: BootOrder) -> None:
        """Start the machine of an instance.  `enforce` follows in the same call and brings its rules."""
        self.machines.setdefault(order.instance_id, NspawnMachine(self, order.instance_id)).boot(order)

    def power_off(self, instance_id: str) -> None:
        """Ask for an orderly shutdown."""
        self.machines[instance_id].power_off()

    def reboot(self, instance_id: str) -> None:
        """Ask for an orderly restart."""
        with contextlib.suppress(MachineFailed):  # it is on its way up or down, and will not come up twice
            self.machines[instance_id].reboot()

    def discard(self, instance_id: str) -> None:
        """Remove the disk of a machine that is gone."""
        self.machines.pop(instance_id, None)
        log = self.folder / instance_id / "console.log"
        if log.exists():  # EC2 shows the console of a terminated instance for a while
            shutil.copyfile(log, self.folder / f"{instance_id}.console")
        shutil.rmtree(self.folder / instance_id, ignore_errors=True)

    def console(self, instance_id: str) -> bytes:
        """What a machine wrote to its console, also after its end."""
        for log in (self.folder / instance_id / "console.log", self.folder / f"{instance_id}.console"):
            with contextlib.suppress(FileNotFoundError):
                return log.read_bytes()
        return b""

    def enforce(self, groups: list[Mapping[str, Any]], region: MotoRegion) -> None:
        """Bring the packet filters of all machines in line with the groups.

        groups: the answer of DescribeSecurityGroups.  region: where the instances and their groups are.
        """
        by_id = {group["GroupId"]: group for group in groups}
        belongs: dict[str, set[str]] = {}
        members: dict[str, set[str]] = {group_id: set() for group_id in by_id}
        for instance in region.instances():
            if instance.id in self.machines and instance._state.name != "terminated":
                belongs[instance.id] = instance_group_ids(instance)
                for group_id in belongs[instance.id] & by_id.keys():
                    members[group_id].add(str(instance.private_ip))
        for instance_id, group_ids in belongs.items():
            own = [by_id[group_id] for group_id in sorted(group_ids & by_id.keys())]
            self.machines[instance_id].enforce(ruleset(own, members))

    def _kill_all(self) -> None:
        machines = list(self.machines.values())
        for machine in machines:
            machine.kill()
        for machine in machines:
            machine.join()
