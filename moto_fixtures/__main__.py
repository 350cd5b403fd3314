"""`python -m moto_fixtures`: a test cloud for a shell or a command.

python -m moto_fixtures                       a shell in a fresh test cloud
python -m moto_fixtures -- COMMAND ARGS...    COMMAND in a fresh test cloud; ends with its exit code
python -m moto_fixtures isolate -- COMMAND    COMMAND in the namespace only; it opens test clouds by itself
python -m moto_fixtures tests [ARGS...]       the tests that boot machines (pytest -m cloud ARGS), in a namespace; where
                                              this computer cannot, it says why and skips them all, unless
                                              DEC2_TESTCLOUD_REQUIRED=1
python -m moto_fixtures build                 build the base image, if need be, and print its path
python -m moto_fixtures wheels [REQUIREMENT...]
                                              collect wheels for machines, if need be, and print their folder;
                                              without a requirement, those that this project needs when it runs
python -m moto_fixtures check                 say what this computer lacks; exit code 1 if anything
python -m moto_fixtures packages              the Debian packages that the host needs
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from moto_fixtures import host, image, wheelhouse
from moto_fixtures.errors import TestCloudError
from moto_fixtures.isolation import python_module, run_isolated

USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """The exit code of the command line."""
    words = list(arguments)
    try:
        if not words:
            return run_isolated(python_module("moto_fixtures", "inside", "--", os.environ.get("SHELL") or "/bin/bash"))
        if words[0] == "--" and len(words) > 1:
            return run_isolated(python_module("moto_fixtures", "inside", *words))
        if words[:2] == ["isolate", "--"] and len(words) > 2:
            return run_isolated(words[2:])
        if words[:2] == ["inside", "--"] and len(words) > 2:
            return _inside(words[2:])
        if words[0] == "tests":
            return _tests(words[1:])
        if words == ["build"]:
            print(image.build())
            return 0
        if words[0] == "wheels":
            print(wheelhouse.wheelhouse(words[1:] or wheelhouse.project_requirements()))
            return 0
        if words == ["check"]:
            lacking = host.missing()
            print(lacking or "This computer can carry machines.")
            return 1 if lacking else 0
        if words == ["packages"]:
            print(" ".join(host.DEBIAN_PACKAGES))
            return 0
    except TestCloudError as error:
        print(error, file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return USAGE


def _tests(arguments: list[str]) -> int:
    lacking = host.missing()
    if lacking:
        required = os.environ.get("DEC2_TESTCLOUD_REQUIRED") == "1"
        print(f"{'Failed' if required else 'Skipped'} the tests that boot machines: {lacking}", file=sys.stderr)
        return 1 if required else 0
    wheelhouse.wheelhouse(wheelhouse.project_requirements())  # there is no index in the namespace
    # In the namespace there is no reason to skip any more.
    return run_isolated(python_module("pytest", "-m", "cloud", *arguments), {"DEC2_TESTCLOUD_REQUIRED": "1"})


def _inside(command: list[str]) -> int:
    """In the namespace: open a cloud and run the command with the environment that finds it."""
    from moto_fixtures.cloud import TestCloud

    with TestCloud() as cloud:
        if sys.stdin.isatty() and len(command) == 1:
            print(_banner(cloud.environment()), flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
        # The commands of the environment that this interpreter belongs to, dec2 among them, are found first.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, **cloud.environment(), "PATH": path}
        process = subprocess.Popen(command, env=environment, preexec_fn=_listen_to_interrupts)
        code = process.wait()
    return 128 - code if code < 0 else code


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _banner(environment: dict[str, str]) -> str:
    return f"""\
A test cloud: an EC2 API at {environment["AWS_ENDPOINT_URL"]}; its instances are machines on this computer.
  aws ec2 run-instances --image-id $TESTCLOUD_IMAGE --instance-type m5.large --key-name $TESTCLOUD_KEY_NAME
  aws ec2 authorize-security-group-ingress --group-name default --protocol tcp --port 22 --cidr $TESTCLOUD_CALLER/32
  ssh -i $TESTCLOUD_KEY_FILE {image.USERNAME}@PUBLIC-IP
  dec2 up --count 2 --keyname $TESTCLOUD_KEY_NAME --keypair $TESTCLOUD_KEY_FILE
Nothing in here can reach the network.  Leave the shell, and all of it is gone."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
