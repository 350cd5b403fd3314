"""Limits and intervals, frozen; the unit is the last word of each name."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_PORT = 8786
#: A peer that neither gives nor takes a byte of data, nor answers a ping, for so long is out of reach.
TRANSFER_SILENCE_MAX_S = 20.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What the scheduler's machine decides by.

    Each worker is filled with expected work of `fill_s` seconds per thread, and with at least one task more than it has
    threads: enough to hide the way to the scheduler and back, not so much that others starve.
    """

    fill_s: float = 0.010
    unknown_duration_s: float = 0.5
    """Assumed for a function that never ran, so that a worker first gets a few of its tasks only."""
    duration_weight: float = 0.5
    """Weight of the newest measurement in the moving mean of a function's duration."""
    bandwidth_bytes_per_s: float = 200e6
    transfer_latency_s: float = 0.001
    allowed_failures: int = 3
    """A task that ran alone when this many workers and one more died is not tried again."""
    allowed_deaths: int = 20
    """Nor is one that may have been running when so many died, alone or not: something is wrong beyond finding out."""
    reserved_workers_fraction: float = 0.25
    """At most this part of the workers (and one) is kept for tasks that are to run alone."""
    steal_latency_s: float = 0.002
    """What taking a task back from a worker and giving it to another costs beside its data's way."""
    steal_transfer_factor: float = 10.0
    """Data that takes longer to move than its task to run is moved only to save this many times the move."""
    log_lines_max: int = 50_000
    """Moves of tasks that `story` remembers."""
    release_numbers_max: int = 2_000
    """Futures of a client that left are released so many at a time, so that nobody waits for all of them."""
    allowed_fetch_failures: int = 10
    unreachable_max_s: float = 90.0
    """A task fails whose input could not be fetched for longer than this, in more than so many tries; longer than a
    worker may be silent, so that the data of dead ones is made again first."""
    recovery_s: float = 30.0
    """What workers that came back have of tasks that nobody asks for is disposed of after so long."""
    recovery_wait_s: float = 5.0
    """Nothing is assigned for so long at most while clients that came back still miss workers that they knew."""
    worker_silence_max_s: float = 60.0
    """A worker that sent nothing, not even a heartbeat, for so long is given up."""
    liveness_interval_s: float = 5.0
    unsure_tallies_max: int = 2
    """After so many heartbeats in a row at which something was under way to a worker, it is asked what it has."""
    held_per_tally: int = 10_000
    """And after as many more as it holds of these, so that asking takes some hundredths of the time at most."""
    client_return_s: float = 10.0
    """A client whose connection broke without a farewell keeps its futures for so long: it may be back in a moment."""
    client_absence_max_s: float = 12 * 3600.0
    """A client whose machine does not answer any more (a laptop that sleeps) keeps its futures for so long."""
    predecessor_silence_max_s: float = 10.0
    """A worker that was silent for so long makes room for another one of its name or address."""
    memory_withhold_fraction: float = 0.5
    """A worker gets no run whose result would bring what it holds in memory, with what its runs will give, above this
    part of its limit; unless it runs nothing."""
    large_result_bytes_min: float = 64 << 10
    """Functions whose results are smaller in the mean are never withheld."""
    withheld_moves_max: int = 2_000
    """Ready tasks set aside for want of memory in one turn, so that nobody waits for a million of them."""
    client_tasks_max: int = 100_000
    client_bytes_max: int = 64 << 20
    """A client sends no more tasks, and bytes of their payloads, while so many of its tasks here are not done."""
    peer_soft_bytes_max: int = 16 << 20
    """To a client that left so much unread results go without their payloads: it fetches them when it wants them."""
    peer_hard_bytes_max: int = 64 << 20
    """A peer that left so much unread is dropped."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker's machine decides by."""

    fetch_tasks_max: int = 1000
    fetch_bytes_max: int = 64 << 20
    """One request to a peer asks for at most so many tasks and bytes."""
    small_fetch_bytes_max: int = 64 << 10
    """Data up to this size does not wait behind larger data of the same peer."""
    transfer_silence_max_s: float = TRANSFER_SILENCE_MAX_S
    heartbeat_interval_s: float = 1.0
    told_at_once_max: int = 1000
    """Results that one message names, when a worker that comes back tells what it holds."""
    inline_result_bytes_max: int = 1024
    """A result up to this size travels inside the report of its completion."""
    interrupt_grace_s: float = 5.0
    """A run that was interrupted has so long to end; then its process is ended, where a nanny starts another one."""
    memory_interval_s: float = 0.2
    memory_target_fraction: float = 0.60
    """Above this part of the limit, by bytes of results, the least recently used ones go to disk."""
    memory_spill_fraction: float = 0.70
    """And above this part, by what the process takes."""
    memory_relief_fraction: float = 0.40
    """Once it began, spilling goes on until only so much of the limit is taken."""
    memory_pause_fraction: float = 0.80
    """Above this part, by what the process takes, the worker gets no new tasks."""
    spilled_result_bytes_min: int = 8 << 10
    """Smaller results stay in memory: a file each would cost more than it frees."""
    disk_retry_s: float = 10.0
    """After a write failed, the next is tried so much later."""


@dataclass(frozen=True, slots=True)
class NannySettings:
    """How a nanny treats the worker process that it keeps alive."""

    first_backoff_s: float = 0.1
    backoff_max_s: float = 10.0
    healthy_after_s: float = 10.0
    """A process that lived so long resets the back-off."""
    stop_grace_s: float = 3.0
    memory_interval_s: float = 0.2
    memory_restart_fraction: float = 0.95
    """Above this part of the limit, measured twice in a row, the process is ended; above the limit at once."""
