"""The error tree of the test cloud.

TestCloudError
├── HostLacking          this computer cannot carry machines (a package, root, a kernel feature is missing)
├── NotIsolated          machines were asked for outside a throw-away namespace
├── ImageBuildFailed     the base image could not be built
├── WheelhouseFailed     the wheels could not be collected
├── MotoChanged          the installed moto lacks something that the test cloud relies on
└── MachineFailed        a machine could not be started or changed

`ApiRefusal` is not part of it: that is an answer of the EC2 API to its caller, and it never leaves the server.
"""

from __future__ import annotations


class TestCloudError(Exception):
    """Base of all errors of the test cloud.  The text is one sentence: what is wrong, where, and what to do."""

    __test__ = False  # pytest takes names that begin with Test for tests


class HostLacking(TestCloudError):
    """This computer cannot carry the machines of a test cloud."""


class NotIsolated(TestCloudError):
    """Machines were asked for in a network namespace from which packets could leave."""


class ImageBuildFailed(TestCloudError):
    """The base image of the machines could not be built."""


class WheelhouseFailed(TestCloudError):
    """The wheels for a list of requirements could not be collected."""


class MotoChanged(TestCloudError):
    """The installed moto lacks an internal name that the test cloud relies on."""


class MachineFailed(TestCloudError):
    """A machine could not be started, stopped or changed."""
