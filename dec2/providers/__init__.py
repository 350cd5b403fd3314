"""Where nodes come from."""

from __future__ import annotations

from dec2.errors import WrongUsage
from dec2.providers.base import Provider


def opened(name: str, region: str | None = None) -> Provider:
    """Return the provider of that name.

    Raises
    ------
    WrongUsage
        There is none, or it is not set up on this machine.
    """
    if name == "local":
        from dec2.providers.local import LocalProvider

        return LocalProvider()
    if name == "ec2":
        from dec2.providers.ec2.provider import EC2Provider

        return EC2Provider(region)
    raise WrongUsage(f"there is no provider {name!r}; choose ec2 or local")


def aws_is_set_up() -> bool:
    """Whether this machine has credentials and a region for EC2."""
    from dec2.providers.ec2.api import is_set_up

    return is_set_up()
