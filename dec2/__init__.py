"""Puts a cluster on EC2, or on this machine, in one command; and takes it away so that nothing is left.

    0  errors
    1  options (how one is declared)
    1  spec (what is wanted)   inventory (what exists)
    2  plan (pure)   tags   cloud_init   engines/ (core, dask)
    3  ssh   providers/ (ec2, local)
    4  apply   config (files, environment, command line)
    5  cluster (the Python API)
    6  cli/ (a file for each command)

`ClusterSpec` and `Inventory` go into `plan`, which returns actions; `apply` carries them out through a provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dec2.cluster import Cluster

__all__ = ["Cluster"]


def __getattr__(name: str) -> Any:
    if name == "Cluster":
        from dec2.cluster import Cluster

        return Cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
