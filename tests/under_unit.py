"""Runs a command as the unit of contrib/ confines it, without systemd: `python -m tests.under_unit COMMAND…`.

It applies what could stop the decoders: limits on calls, namespaces, address families, writable code, capabilities.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

UNIT = Path(__file__).parents[1] / "contrib" / "systemd" / "media-gallery.service"
NAMESPACES = {"mnt": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
              "pid": 0x20000000, "net": 0x40000000}  # fmt: skip
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL, _GREATER, _MASKED_EQUAL = 4, 6, 7
_PROT_EXEC, _PROT_WRITE = 4, 2
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24


class Argument(ctypes.Structure):
    """A condition on an argument of a call: libseccomp's `scmp_arg_cmp`."""

    _fields_ = (("number", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def values(name: str) -> list[str]:
    """The values that the unit has under a name, one for each line."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


@cache
def sets() -> dict[str, set[str]]:
    """The named sets of system calls of systemd."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    for line in told.splitlines():
        if line.startswith("@"):
            found[line] = members = set()
        elif line.strip() and not line.strip().startswith("#"):
            members.add(line.strip())
    return found


def expanded(words: list[str]) -> set[str]:
    calls: set[str] = set()
    for word in words:
        calls |= expanded(sorted(sets()[word])) if word.startswith("@") else {word}
    return calls


def allowed_calls() -> set[str]:
    """The calls that the unit allows: each line of `SystemCallFilter=` in turn adds calls, or removes them with `~`."""
    allowed: set[str] = set()
    for line in values("SystemCallFilter"):
        calls = expanded(line.removeprefix("~").split())
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


class Filter:
    """A seccomp filter. If there are several, all of them apply."""

    def __init__(self, otherwise: int) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.rules = ctypes.c_void_p(self.library.seccomp_init(otherwise))

    def add(self, action: int, name: str, *conditions: tuple[int, int, int, int]) -> None:
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        given = (Argument * len(conditions))(*(Argument(*condition) for condition in conditions))
        if number >= 0:
            added = self.library.seccomp_rule_add_array(self.rules, action, number, len(conditions), given)
            assert added == 0, name

    def load(self) -> None:
        assert self.library.seccomp_load(self.rules) == 0


def confine_as_the_unit() -> None:
    libc = ctypes.CDLL(None)
    assert values("CapabilityBoundingSet") == [""]
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    calls, arguments = Filter(_DENY), Filter(_ALLOW)
    for name in sorted(allowed_calls()):
        calls.add(_ALLOW, name)
    _forbid_arguments(arguments)
    arguments.load()
    calls.load()


def _forbid_arguments(rules: Filter) -> None:
    """Forbid what systemd forbids for `RestrictNamespaces`, `RestrictAddressFamilies` and `MemoryDenyWriteExecute`."""
    [namespaces], [families] = values("RestrictNamespaces"), values("RestrictAddressFamilies")
    for name, flag in NAMESPACES.items():
        if name not in namespaces.split():
            for call, argument in (("unshare", 0), ("clone", 0), ("setns", 1)):
                rules.add(_DENY, call, (argument, _MASKED_EQUAL, flag, flag))
    rules.add(0x00050000 | errno.ENOSYS, "clone3")
    numbers = {int(getattr(socket, name)) for name in families.split()}
    for family in set(range(max(numbers))) - numbers:
        rules.add(_DENY, "socket", (0, _EQUAL, family, 0))
    rules.add(_DENY, "socket", (0, _GREATER, max(numbers), 0))
    assert values("MemoryDenyWriteExecute") == ["yes"]
    both = _PROT_EXEC | _PROT_WRITE
    rules.add(_DENY, "mmap", (2, _MASKED_EQUAL, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        rules.add(_DENY, call, (2, _MASKED_EQUAL, _PROT_EXEC, _PROT_EXEC))


if __name__ == "__main__":
    confine_as_the_unit()
    os.execv(sys.argv[1], sys.argv[1:])
