"""The fixtures of the test cloud, for its own tests."""

from moto_fixtures.plugin import cloud, light_cloud

__all__ = ["cloud", "light_cloud"]
