"""What is wanted: a cluster, as the options describe it. Each option is declared here, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dec2.errors import WrongUsage
from dec2.options import Option, checked, declared, options_of

PROVIDERS = ("ec2", "local")
ENGINES = ("core", "dask")
COUNT_MAX = 5000
DEFAULT_NAME = "dec2"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_NAME_HINT = "use 1 to 40 lower-case letters, digits and dashes"
_EC2 = ("ec2",)


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
        raise WrongUsage(f"{text!r} is no name for a cluster; {_NAME_HINT}")


def _name_problem(text: str) -> str | None:
    return None if is_name(text) else f"it is no name for a cluster; {_NAME_HINT}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster that somebody wants. `dec2 config --example` explains the options.

    Raises
    ------
    WrongUsage
        An option cannot be what it is, or two do not go together.
    """

    name: str = declared(DEFAULT_NAME, "The cluster's name.", "the cluster", says=_name_problem)
    provider: str = declared("ec2", "Where the nodes come from.", "the cluster", choices=PROVIDERS)
    engine: str = declared("core", "What runs on them.", "the cluster", choices=ENGINES)
    count: int = declared(
        4, "Instances, the scheduler's among them: 4 is 1 scheduler and 3 workers, 1 is both in one.", "the cluster",
        lowest=1, highest=COUNT_MAX,
    )  # fmt: skip
    region: str | None = declared(
        None, "The AWS region; by default that of your AWS configuration.", "instances", example="eu-central-1"
    )
    type: str = declared("m7i.large", "The instance type.", "instances", lasting=_EC2)
    scheduler_type: str | None = declared(
        None, "An instance type of its own for the scheduler.", "instances", example="m7i.xlarge", lasting=_EC2
    )
    ami: str | None = declared(
        None, "The image; by default the newest Debian 12.", "instances", example="ami-0123456789abcdef0", lasting=_EC2
    )
    subnet: str | None = declared(
        None, "The subnet; by default one of the default VPC.", "instances", example="subnet-0123abcd", lasting=_EC2
    )
    volume_size_gb: int = declared(
        20, "The root volume of each instance.", "instances", lowest=8, highest=65536, lasting=_EC2
    )
    keyname: str | None = declared(
        None, "The name of your EC2 key pair; ec2 cannot do without.", "access", example="mine"
    )
    keypair: str | None = declared(
        None, "The file with its private key, if it is neither in your SSH agent nor ~/.ssh/NAME.pem.", "access",
        example="~/keys/mine.pem", path=True,
    )  # fmt: skip
    username: str | None = declared(
        None, "The image's user; by default that of the default image.", "access", example="admin"
    )
    wheelhouse: str | None = declared(
        None, "A folder of wheels, for nodes without an index.", "environment", example="wheels", path=True
    )
    index_url: str | None = declared(
        None, "The package index that the nodes use.", "environment", example="https://index.example/simple"
    )
    nthreads: int = declared(
        0, "Threads of each worker process; 0 is one per core.", "workers", lowest=0, highest=4096, lasting=PROVIDERS
    )
    nprocs: int = declared(1, "Worker processes on each node.", "workers", lowest=1, highest=1024, lasting=PROVIDERS)
    memory_limit: str = declared(
        "auto", "Memory of each worker process, such as 4GB; 0 is no limit.", "workers", lasting=PROVIDERS
    )
    timeout_s: float = declared(
        600.0, "How long the nodes may take until all workers are registered.", "patience", lowest=1
    )

    def __post_init__(self) -> None:
        checked(OPTIONS, self)
        if self.engine == "dask" and self.provider != "local":
            raise WrongUsage("the engine dask works with --provider local in this release; on ec2 use --engine core")
        if self.provider == "ec2" and not self.keyname:
            raise WrongUsage(
                "ec2 needs the name of your key pair: --keyname NAME (aws ec2 describe-key-pairs lists them)"
            )

    def lasting_options(self) -> dict[str, str]:
        """Return, by name, the options that a node has for life: another value needs another node."""
        lasting = [option.field for option in OPTIONS if self.provider in option.lasting]
        return {name: str(getattr(self, name)) for name in lasting if getattr(self, name) is not None}

    @property
    def patience_s(self) -> float:
        """How long one node may take before it is replaced: half of the time leaves as much for another one."""
        return self.timeout_s / 2

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


OPTIONS: tuple[Option, ...] = options_of(ClusterSpec)
"""Every option of a cluster, in the order of the annotated example."""
