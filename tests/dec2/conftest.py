from __future__ import annotations

from moto_fixtures.plugin import cloud, light_cloud

__all__ = ["cloud", "light_cloud"]
