"""How each kind of fault is done, and healed."""

from __future__ import annotations

import signal
from collections.abc import Callable

from distributed_core.errors import EngineError
from tests.chaos.cluster import Cluster
from tests.chaos.hosts import MEMORY_BYTES, Host
from tests.chaos.schedule import Fault

#: How much memory a host that runs out of it has left.
MEMORY_LEFT_BYTES = 4 << 20
RETIRE_TIMEOUT_S = 0.5


class Faults:
    """Does faults on a cluster.

    deaths: how many workers each fault has killed, by its number; for the one who judges results.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopped: dict[int, tuple[Host, list[int]]] = {}
        self._killed_for_memory: dict[int, int] = {}
        self.deaths: dict[int, int] = {}

    def begin(self, fault: Fault) -> None:
        """Let it happen."""
        self._BEGIN[fault.kind](self, fault)

    def heal(self, fault: Fault) -> None:
        """Let it be over."""
        action = self._HEAL.get(fault.kind)
        if action is not None:
            action(self, fault)

    def _host(self, fault: Fault) -> Host:
        return self._cluster.hosts[fault.hosts[0]]

    # --- processes that die -----------------------------------------------------------------------

    def _kill_worker(self, fault: Fault) -> None:
        host = self._host(fault)
        self.deaths[fault.number] = host.kill(host.worker_pids())

    def _kill_nanny(self, fault: Fault) -> None:
        self._cluster.expect_end(fault.hosts[0])
        process = self._cluster.services[fault.hosts[0]].process
        if process is not None:
            process.kill()
            self.deaths[fault.number] = 1

    def _kill_host(self, fault: Fault) -> None:
        """As if the power failed: nobody says goodbye, because the cable is dead before the processes are."""
        host = self._host(fault)
        self._cluster.expect_end(host.name, fault.lasts_s)
        self._cluster.cables.set(host.name, cut=True)
        self.deaths[fault.number] = min(1, host.kill(host.pids()))

    def _boot_host(self, fault: Fault) -> None:
        host = self._host(fault)
        host.empty_disk()
        self._cluster.cables.set(host.name)

    def _kill_scheduler(self, fault: Fault) -> None:
        self._cluster.expect_end("s", fault.lasts_s)
        process = self._cluster.services["s"].process
        if process is not None:
            process.kill()

    def _kill_client(self, fault: Fault) -> None:
        living = self._cluster.living_clients()
        victim = living[int(fault.amount * len(living)) % len(living)]
        victim.killed = True
        victim.process.kill()
        self._cluster.say(self._cluster.add_client(), "go")

    # --- processes that stand still ---------------------------------------------------------------

    def _stop(self, fault: Fault) -> None:
        host = self._host(fault)
        service = self._cluster.services[host.name].process
        own = [service.pid] if service is not None else []
        pids = host.worker_pids() if fault.kind == "stop-worker" else own
        host.kill(pids, signal.SIGSTOP)
        self._stopped[fault.number] = (host, pids)

    def _continue(self, fault: Fault) -> None:
        host, pids = self._stopped.pop(fault.number)
        alive = set(host.pids())
        host.kill([pid for pid in pids if pid in alive], signal.SIGCONT)

    def _freeze(self, fault: Fault) -> None:
        self._host(fault).cage.freeze()

    def _thaw(self, fault: Fault) -> None:
        self._host(fault).cage.thaw()

    # --- network ----------------------------------------------------------------------------------

    def _spoil_cable(self, fault: Fault) -> None:
        amount = fault.amount
        cut = {"cut": True}
        how = {
            "cut": cut,
            "cut-scheduler": cut,
            "cut-client": cut,
            "latency": {"delay_s": 0.02 + 0.2 * amount, "jitter_s": 0.02 * amount},
            "loss": {"loss": 0.02 + 0.2 * amount},
            "slow": {"bytes_per_s": 100e3 + 5e6 * amount},
        }
        self._cluster.cables.set(fault.hosts[0], **how[fault.kind])

    def _mend_cable(self, fault: Fault) -> None:
        self._cluster.cables.set(fault.hosts[0])

    def _part(self, fault: Fault) -> None:
        self._cluster.network.part(*_pair(fault))

    def _join_again(self, fault: Fault) -> None:
        self._cluster.network.join(*_pair(fault))

    def _reset(self, fault: Fault) -> None:
        self._cluster.network.reset(self._host(fault))

    # --- resources --------------------------------------------------------------------------------

    def _take_memory(self, fault: Fault) -> None:
        host = self._host(fault)
        self._killed_for_memory[fault.number] = host.kills_for_memory()
        self._cluster.services[host.name].expected = True  # the kernel may choose the nanny
        try:
            host.limit_memory(host.memory_used_bytes() + MEMORY_LEFT_BYTES)
        except OSError:
            pass  # it has grown meanwhile, and the kernel could not take back so much

    def _give_memory(self, fault: Fault) -> None:
        host = self._host(fault)
        host.limit_memory(MEMORY_BYTES)
        self.deaths[fault.number] = host.kills_for_memory() - self._killed_for_memory.pop(fault.number)
        service = self._cluster.services[host.name]
        if service.process is not None and service.process.poll() is None:
            service.expected = False

    def _fill_disk(self, fault: Fault) -> None:
        self._host(fault).fill_disk()

    def _empty_disk(self, fault: Fault) -> None:
        self._host(fault).empty_disk()

    def _jump(self, fault: Fault) -> None:
        """Set the clock on the wall up to a day ahead, or half an hour back."""
        seconds = 86_400 * fault.amount if fault.amount > 0.5 else -1_800
        self._host(fault).clock.write_text(f"{seconds:+.0f}")

    def _jump_back(self, fault: Fault) -> None:
        self._host(fault).clock.write_text("+0")

    # --- in good order ----------------------------------------------------------------------------

    def _add_worker(self, fault: Fault) -> None:
        self._cluster.services[fault.hosts[0]].wanted = True

    def _dismiss_worker(self, fault: Fault) -> None:
        service = self._cluster.services[fault.hosts[0]]
        service.wanted = False
        if service.process is not None:
            service.process.terminate()

    def _retire(self, fault: Fault) -> None:
        """Let a worker hand over what it has and leave; what looks after the service starts it again."""
        name = fault.hosts[0]
        self._cluster.services[name].expected = True
        try:
            self._cluster.ask("retire_workers", RETIRE_TIMEOUT_S, workers=[name], n=None, close=True)
        except (EngineError, TimeoutError):
            pass  # it goes on there; or there is no scheduler, or no such worker, just now

    def _terminate(self, fault: Fault) -> None:
        self._cluster.expect_end(fault.hosts[0])
        process = self._cluster.services[fault.hosts[0]].process
        if process is not None:
            process.terminate()
            self.deaths[fault.number] = 1

    _BEGIN: dict[str, Callable[[Faults, Fault], None]] = {
        "kill-worker": _kill_worker,
        "kill-nanny": _kill_nanny,
        "kill-host": _kill_host,
        "kill-scheduler": _kill_scheduler,
        "kill-client": _kill_client,
        "stop-worker": _stop,
        "stop-nanny": _stop,
        "stop-scheduler": _stop,
        "freeze-host": _freeze,
        "cut": _spoil_cable,
        "cut-scheduler": _spoil_cable,
        "cut-client": _spoil_cable,
        "latency": _spoil_cable,
        "loss": _spoil_cable,
        "slow": _spoil_cable,
        "partition-workers": _part,
        "partition-scheduler": _part,
        "reset": _reset,
        "reset-scheduler": _reset,
        "reset-client": _reset,
        "out-of-memory": _take_memory,
        "full-disk": _fill_disk,
        "clock-jump": _jump,
        "join": _add_worker,
        "retire": _retire,
        "terminate": _terminate,
    }
    _HEAL: dict[str, Callable[[Faults, Fault], None]] = {
        "kill-host": _boot_host,
        "stop-worker": _continue,
        "stop-nanny": _continue,
        "stop-scheduler": _continue,
        "freeze-host": _thaw,
        "cut": _mend_cable,
        "cut-scheduler": _mend_cable,
        "cut-client": _mend_cable,
        "latency": _mend_cable,
        "loss": _mend_cable,
        "slow": _mend_cable,
        "partition-workers": _join_again,
        "partition-scheduler": _join_again,
        "out-of-memory": _give_memory,
        "full-disk": _empty_disk,
        "clock-jump": _jump_back,
        "join": _dismiss_worker,
    }


def _pair(fault: Fault) -> tuple[str, str]:
    one, *others = fault.hosts
    return one, (others[0] if others else "s")
