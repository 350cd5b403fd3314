"""Faults of the house itself, planted to see that a run notices them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plant:
    """Where a planted fault sits, and a word that the complaint about it must have."""

    name: str
    complaint: str
    scheduler: bool = False
    worker: bool = False

    @property
    def preload_scheduler(self) -> list[str]:
        return ["--preload", f"tests.chaos.planted.{self._module}"] if self.scheduler else []

    @property
    def preload_worker(self) -> list[str]:
        return ["--preload", f"tests.chaos.planted.{self._module}"] if self.worker else []

    @property
    def _module(self) -> str:
        return self.name.replace("-", "_")


PLANTS = {
    plant.name: plant
    for plant in (
        Plant("wrong-value", "instead of"),
        Plant("leaked-file", "files at rest", scheduler=True),
        Plant("forgotten-task", "waits", scheduler=True),
        Plant("kept-data", "has data", worker=True),
        Plant("left-process", "process", worker=True),
        Plant("left-file", "file", worker=True),
        Plant("lost-error", "Task exception was never", worker=True),
    )
}
