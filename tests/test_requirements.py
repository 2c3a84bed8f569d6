"""Every installed package is pinned, so that all machines have the same, and an audit checks all."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path(__file__).parents[1] / "requirements.txt"


def needed(name: str, extras: frozenset[str], seen: dict[tuple[str, frozenset[str]], None]) -> set[str]:
    """The installed packages that one needs, directly or indirectly."""
    if (name, extras) in seen:
        return set()
    seen[name, extras] = None
    names: set[str] = {canonicalize_name(name)}
    for line in requires(name) or []:
        requirement = Requirement(line)
        wanted = any(requirement.marker.evaluate({"extra": e}) for e in extras | {""}) if requirement.marker else True
        try:
            if wanted and version(requirement.name):
                names |= needed(requirement.name, frozenset(requirement.extras), seen)
        except PackageNotFoundError:  # a package of `audit`, which only `make audit` installs
            names.add(canonicalize_name(requirement.name))
    return names


def test_every_needed_package_is_pinned() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(), re.MULTILINE))
    pinned = {canonicalize_name(name) for name in pins}
    assert len(pinned) == len([line for line in PINS.read_text().splitlines() if line and not line.startswith("#")])
    found = needed("media-gallery", frozenset({"redis", "s3", "dev", "audit", "fuzz"}), {})
    assert len(found) > 40
    assert found - pinned - {"media-gallery", "pip"} == set()


def test_the_lower_bounds_allow_what_is_pinned() -> None:
    pins = {canonicalize_name(name): number for name, number in re.findall(r"(\S+)==(\S+)", PINS.read_text())}
    for line in requires("media-gallery") or []:
        requirement = Requirement(line)
        assert requirement.name == "media-gallery" or pins[canonicalize_name(requirement.name)] in requirement.specifier
