"""What is checked before anything is made; and what was found out by it."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import Any

from dec2 import ssh
from dec2.errors import WrongUsage
from dec2.package import Bundle, bundle
from dec2.providers.ec2.api import DEBIAN_OWNER, DEBIAN_USER, EC2Api
from dec2.spec import ClusterSpec

_USERS = {"ubuntu": "ubuntu", "al2023": "ec2-user", "amzn": "ec2-user", "debian": DEBIAN_USER}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an `up` needs to know.

    Attributes
    ----------
    key_file
        The private key; None means the agent's.
    subnet
        The named one, as EC2 describes it.
    """

    image: dict[str, Any]
    username: str
    key_file: str | None
    subnet: dict[str, Any] | None
    bundle: Bundle


def checked(spec: ClusterSpec, api: EC2Api) -> Prepared:
    """Check an `up`, in a number of calls that does not depend on what is wanted.

    Raises
    ------
    WrongUsage, ProviderError
        In one sentence, with what mends it.
    """
    assert spec.keyname is not None
    public = api.key_pair(spec.keyname)
    key_file = ssh.find_private_key(spec.keyname, public, spec.keypair)
    architecture = api.architecture(spec.type)
    if spec.scheduler_type is not None and api.architecture(spec.scheduler_type) != architecture:
        raise WrongUsage(f"{spec.scheduler_type} and {spec.type} are of different architectures; choose two alike")
    image = api.image(spec.ami, architecture)
    if image.get("Architecture", architecture) != architecture:
        text = f"the image {image['ImageId']} is for {image['Architecture']}, and {spec.type} is not"
        raise WrongUsage(f"{text}; choose another --ami or --type")
    subnet = api.subnet(spec.subnet) if spec.subnet is not None else None
    if spec.index_url is not None and urllib.parse.urlsplit(spec.index_url).password:
        text = "--index-url holds a password, and the nodes' user-data is no place for one"
        raise WrongUsage(f"{text}; bring the wheels with --wheelhouse")
    return Prepared(image, spec.username or _user_of(image), key_file, subnet, bundle(spec.wheelhouse))


def _user_of(image: dict[str, Any]) -> str:
    if image.get("OwnerId") == DEBIAN_OWNER:
        return DEBIAN_USER
    label = str(image.get("Name", "")).lower()
    for word, user in _USERS.items():
        if word in label:
            return user
    raise WrongUsage(f"dec2 does not know the user of the image {image['ImageId']}; add --username")
