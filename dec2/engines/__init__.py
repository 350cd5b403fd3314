"""The engines that dec2 can start. One more is one more file here, and a line in `named`."""

from __future__ import annotations

from dec2.engines.base import Engine


def named(name: str) -> Engine:
    """Return the engine of that name."""
    if name == "dask":
        from dec2.engines.dask import DaskEngine

        return DaskEngine()
    from dec2.engines.core import CoreEngine

    return CoreEngine()
