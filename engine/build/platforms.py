"""The platforms of a build: this host's, the one that is asked for, and whether an image is for it."""

from __future__ import annotations

from shoal.api.errors import InvalidArgument, NotFound
from shoal.engine.images.archive import host_architecture
from shoal.engine.images.config import SUPPORTED_OS, Image
from shoal.engine.images.distribution.manifests import Platform, parse_platform

ARCHITECTURES = frozenset({"386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le",
                           "riscv64", "s390x"})


def host() -> Platform:
    return Platform(SUPPORTED_OS, host_architecture())


def asked(text: str) -> Platform:
    """OS[/ARCH[/VARIANT]] or ARCH; "" is this host's. Raises InvalidArgument for what no image can be for."""
    wanted = parse_platform(text, host())
    if wanted.os != SUPPORTED_OS or wanted.architecture not in ARCHITECTURES:
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    return wanted


def of_image(image: Image) -> Platform:
    return Platform(image.os, image.architecture, image.variant)


def is_for(image: Image, wanted: Platform) -> bool:
    """A variant that either does not name is no difference."""
    return ((image.os, image.architecture) == (wanted.os, wanted.architecture)
            and (image.variant == wanted.variant or not (image.variant and wanted.variant)))


def empty_image(text: str = "") -> Image:
    """What FROM scratch begins with."""
    wanted = asked(text)
    return Image(id="", architecture=wanted.architecture, variant=wanted.variant)


def check(image: Image, text: str, name: str) -> None:
    """Raises NotFound where a platform is asked for, and the image is for another."""
    if text and not is_for(image, asked(text)):
        raise NotFound(f"image with reference {name} was found but does not match the specified platform: "
                       f"wanted {asked(text)}, actual: {of_image(image)}")


def foreign(image: Image) -> str:
    """What to say of a command that failed because this host may not run it; "" where it can."""
    if image.architecture in ("", host().architecture):
        return ""
    return (f" (the image is for {of_image(image)} and this host is {host()}, which runs it only where an emulator is "
            "registered in /proc/sys/fs/binfmt_misc)")
