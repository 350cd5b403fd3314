"""Every error that dec2 raises, as one tree; each knows the exit code of the command that ends with it.

    Dec2Error               1
    |-- WrongUsage          2   an option, a name or a file of the caller is wrong
    |-- NoSuchCluster       1   nothing of that name exists
    |-- ProviderError       1   the provider refused or failed
    |   |-- LaunchFailed    1   nodes could not be made
    |   `-- NotGone         1   something of a cluster is left after destroy
    |-- NodeUnreachable     1   a node does not answer as it should
    |-- NotRegistered       1   some workers did not register in time
    `-- EngineMissing       1   the engine's package is not installed here

Messages say what is wrong, whose fault it is and what to do next, in one sentence.
"""

from __future__ import annotations

__all__ = [
    "Dec2Error",
    "EngineMissing",
    "LaunchFailed",
    "NoSuchCluster",
    "NodeUnreachable",
    "NotGone",
    "NotRegistered",
    "ProviderError",
    "WrongUsage",
]


class Dec2Error(Exception):
    """The root of this package's errors."""

    exit_code = 1


class WrongUsage(Dec2Error):
    """The caller asked for something that cannot be."""

    exit_code = 2


class NoSuchCluster(Dec2Error):
    """Nothing of that name exists where dec2 looked."""


class ProviderError(Dec2Error):
    """The provider refused a request, or failed."""


class LaunchFailed(ProviderError):
    """Nodes could not be made."""


class NotGone(ProviderError):
    """Something of the cluster is still there after it was destroyed."""


class NodeUnreachable(Dec2Error):
    """A node does not answer, or not as it should."""


class NotRegistered(Dec2Error):
    """Some workers did not register before the deadline.

    Attributes
    ----------
    missing
        The name of each missing node, with the tail of its log.
    """

    def __init__(self, message: str, missing: dict[str, str]) -> None:
        super().__init__(message)
        self.missing = missing


class EngineMissing(Dec2Error):
    """The package of the wanted engine is not installed on this machine."""
