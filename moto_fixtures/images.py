"""The public images of the test cloud, and the public parameters that name them.

Debian wiki, "Cloud/AmazonEC2Image"; Ubuntu on AWS documentation, "Find Ubuntu images on AWS"; AWS Systems Manager User
Guide, "Calling AMI public parameters".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DEBIAN_OWNER = "136693071363"
CANONICAL_OWNER = "099720109477"
AMAZON_OWNER = "137112412989"

#: The parameter of the image from which machines boot.
BASE_PARAMETER = "/aws/service/debian/release/12/latest/{label}"

_UBUNTU = {"22.04": "jammy", "24.04": "noble"}


@dataclass(frozen=True)
class ImageDescription:
    """One public image.  key: what makes its id; parameters: the public parameters that hold its id."""

    key: str
    name: str
    description: str
    owner: str
    architecture: str
    root_device: str
    parameters: tuple[str, ...]


def debian_label(architecture: str) -> str:
    """What Debian and Ubuntu call an architecture."""
    return {"x86_64": "amd64"}.get(architecture, architecture)


def public_images(architecture: str) -> Iterator[ImageDescription]:
    """The images: Debian 12 of this computer's architecture, the rest for both."""
    label = debian_label(architecture)
    yield ImageDescription(
        key="debian-12",
        name=f"debian-12-{label}-20250721-2181",
        description="Debian 12 (20250721-2181)",
        owner=DEBIAN_OWNER,
        architecture=architecture,
        root_device="/dev/xvda",
        parameters=(BASE_PARAMETER.format(label=label), f"/aws/service/debian/release/bookworm/latest/{label}"),
    )
    for each in ("x86_64", "arm64"):
        yield from _ubuntu(each)
        yield _amazon_linux(each)


def _ubuntu(architecture: str) -> Iterator[ImageDescription]:
    label = debian_label(architecture)
    for release, word in _UBUNTU.items():
        volume = "ebs-gp3" if release >= "24.04" else "ebs-gp2"
        folder = "hvm-ssd-gp3" if release >= "24.04" else "hvm-ssd"
        yield ImageDescription(
            key=f"ubuntu-{release}-{label}",
            name=f"ubuntu/images/{folder}/ubuntu-{word}-{release}-{label}-server-20250610",
            description=f"Canonical, Ubuntu, {release}, {label} {word} image",
            owner=CANONICAL_OWNER,
            architecture=architecture,
            root_device="/dev/sda1",
            parameters=(f"/aws/service/canonical/ubuntu/server/{release}/stable/current/{label}/hvm/{volume}/ami-id",),
        )


def _amazon_linux(architecture: str) -> ImageDescription:
    return ImageDescription(
        key=f"al2023-{architecture}",
        name=f"al2023-ami-2023.8.20250715.0-kernel-6.1-{architecture}",
        description=f"Amazon Linux 2023 AMI 2023.8.20250715.0 {architecture} HVM kernel-6.1",
        owner=AMAZON_OWNER,
        architecture=architecture,
        root_device="/dev/xvda",
        parameters=(
            f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-6.1-{architecture}",
            f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}",
        ),
    )
