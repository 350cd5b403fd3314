"""What is wanted: a cluster, as the options describe it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dec2.errors import WrongUsage

PROVIDERS = ("ec2", "local")
ENGINES = ("core", "dask")
COUNT_MAX = 5000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether a cluster may have this name."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """Accept the name of a cluster.

    Raises
    ------
    WrongUsage
        No cluster can have that name.
    """
    if not is_name(text):
        raise WrongUsage(f"{text!r} is no name for a cluster; use 1 to 40 lower-case letters, digits and dashes")


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster that somebody wants.

    Attributes
    ----------
    count
        Instances, the scheduler's among them: 4 is one scheduler and three workers, 1 is one instance with both.
    type, scheduler_type
        Instance types; the scheduler's is the workers' by default.
    keyname, keypair
        The name of the EC2 key pair, and the file with its private key, if it is not where SSH looks.
    volume_size_gb
        The root volume of each instance.
    nthreads, nprocs
        Of each worker; 0 threads is one per core.
    timeout_s
        How long the nodes may take until all workers are registered.
    """

    name: str = "dec2"
    provider: str = "ec2"
    engine: str = "core"
    count: int = 4
    region: str | None = None
    type: str = "m7i.large"
    scheduler_type: str | None = None
    ami: str | None = None
    keyname: str | None = None
    keypair: str | None = None
    username: str | None = None
    subnet: str | None = None
    volume_size_gb: int = 20
    wheelhouse: str | None = None
    index_url: str | None = None
    nthreads: int = 0
    nprocs: int = 1
    memory_limit: str = "auto"
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.provider not in PROVIDERS:
            raise WrongUsage(f"there is no provider {self.provider!r}; choose one of {', '.join(PROVIDERS)}")
        if self.engine not in ENGINES:
            raise WrongUsage(f"there is no engine {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.engine == "dask" and self.provider != "local":
            raise WrongUsage("the engine dask works with --provider local in this release; on ec2 use --engine core")
        if not 1 <= self.count <= COUNT_MAX:
            raise WrongUsage(f"--count is from 1 to {COUNT_MAX} instances, not {self.count}")
        if self.provider == "ec2" and not self.keyname:
            raise WrongUsage(
                "ec2 needs the name of your key pair: --keyname NAME (aws ec2 describe-key-pairs lists them)"
            )

    def lasting_options(self) -> dict[str, str]:
        """Return, by name, the options that a node has for life: another value needs another node."""
        lasting = ["nthreads", "nprocs", "memory_limit"]
        if self.provider == "ec2":
            lasting += ["type", "scheduler_type", "ami", "subnet", "volume_size_gb"]
        return {name: str(getattr(self, name)) for name in lasting if getattr(self, name) is not None}

    @property
    def workers(self) -> int:
        """How many nodes run a worker."""
        return max(1, self.count - 1)

    def sentence(self) -> str:
        """Return what will be made, for people."""
        if self.count == 1:
            return "1 instance: scheduler and worker in one"
        workers = "worker" if self.workers == 1 else "workers"
        return f"{self.count} instances: 1 scheduler, {self.workers} {workers}"
