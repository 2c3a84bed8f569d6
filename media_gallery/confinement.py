"""What a decoder gives up before it reads a stranger's file. This imports nothing of ours.

The kernel enforces every part. A machine may lack any of them; then the others still hold.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal

PARTS = ("network", "files", "calls")
"""The parts that a kernel, or its administrator, may deny an unprivileged process."""
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
_CAPABILITY_VERSION = 0x20080522

# Landlock: how many rights on files its versions 1, 2, … know; later versions add none.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_FILE_RIGHTS = (13, 14, 15, 15, 16)
_TCP_RIGHTS, _SCOPES = 0b11, 0b11

# seccomp, by libseccomp.
_ALLOW, _ERRNO, _SYNCHRONOUS = 0x7FFF0000, 0x00050000, 4
_EQUAL, _MASKED_EQUAL = 4, 7
_CALLS = """
    brk munmap mremap mprotect madvise membarrier
    read readv pread64 preadv lseek _llseek fstat fstat64 newfstatat fstatat64 close close_range dup fcntl fcntl64
    recvfrom recvmsg sendto sendmsg poll ppoll ppoll_time64
    futex futex_time64 set_robust_list set_tid_address rseq exit exit_group getpid gettid
    sched_yield sched_getaffinity getpriority getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn sigreturn sigaltstack restart_syscall
    clock_gettime clock_gettime64 clock_getres clock_getres_time64 gettimeofday time times
    nanosleep clock_nanosleep clock_nanosleep_time64
    getrandom getrusage getrlimit ugetrlimit setrlimit sysinfo uname getuid geteuid getgid getegid
"""
"""What is needed to compute, and to use descriptors that are open. None opens a file, starts a program or connects."""
_MAP_TYPE, _MAP_PRIVATE, _MAP_GROWSDOWN = 0x0F, 0x02, 0x0100


class _Argument(ctypes.Structure):
    """A condition on an argument of a call: libseccomp's `scmp_arg_cmp`."""

    _fields_ = (("number", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confine(memory: int) -> list[str]:
    """Give up what a decoder does not need, for good; return which of PARTS this machine allowed.

    `memory`: bytes of data, at most. Load all libraries before, since no file can be opened after, and start no thread.
    """
    libc, seccomp = ctypes.CDLL(None), _library("libseccomp.so.2")
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    left = _leave_network(libc)
    _drop_capabilities(libc)
    enforced = (left, _close_files(libc), seccomp is not None and _forbid_calls(seccomp))
    return [part for part, done in zip(PARTS, enforced, strict=True) if done]


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Move into a new network that has no interface."""
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Drop those of root, and those that a user namespace gave."""
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def _close_files(libc: ctypes.CDLL) -> bool:
    """Landlock: open no file any more, whoever owns it; if its version can, use no TCP and signal no other process."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    ruleset = (ctypes.c_uint64 * 3)(rights, _TCP_RIGHTS, _SCOPES)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    descriptor = libc.syscall(_CREATE_RULESET, ruleset, ctypes.c_size_t(size), 0)
    if descriptor < 0:
        return False
    try:
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _forbid_calls(seccomp: ctypes.CDLL) -> bool:
    """seccomp: every other call fails as if the kernel did not have it, so that libraries do without it."""
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(_ERRNO | errno.ENOSYS))
    seccomp.seccomp_attr_set(rules, _SYNCHRONOUS, 1)

    def allow(name: str, *conditions: _Argument) -> None:
        """A call that this processor does not have has a negative number and gets no rule."""
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        given = (_Argument * len(conditions))(*conditions)
        if number >= 0:
            seccomp.seccomp_rule_add_array(rules, _ALLOW, number, len(conditions), given)

    for name in _CALLS.split():
        allow(name)
    counted = _Argument(3, _MASKED_EQUAL, _MAP_TYPE | _MAP_GROWSDOWN, _MAP_PRIVATE)  # what RLIMIT_DATA sees
    allow("mmap", counted)
    allow("mmap2", counted)
    allow("clone", _Argument(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))  # threads, never processes
    allow("prctl", _Argument(0, _EQUAL, _PR_SET_NAME, 0))
    allow("tgkill", _Argument(0, _EQUAL, os.getpid(), 0))
    allow("prlimit64", _Argument(0, _EQUAL, 0, 0))
    return bool(seccomp.seccomp_load(rules) == 0)
