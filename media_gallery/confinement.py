"""What a decoder gives away before it sees a stranger's file. Imports nothing of ours.

Every part is left to the kernel, and each stands where another one falls: a machine may lack any of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal

PARTS = ("network", "files", "calls")
"""What a kernel, or its administrator, may not allow an unprivileged process."""
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
_CAPABILITY_VERSION = 0x20080522

# Landlock: how many rights on files each version of it knows, from the first; later ones know no more.
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
"""What computing on bytes takes, on descriptors that are open already: nothing of it opens, starts or connects."""
_MAP_KIND, _MAP_PRIVATE, _MAP_GROWSDOWN = 0x0F, 0x02, 0x0100


class _Argument(ctypes.Structure):
    """A condition on an argument of a call: libseccomp's `scmp_arg_cmp`."""

    _fields_ = (("number", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confine(memory: int) -> list[str]:
    """Give away what a decoder does not need, once and for all; which of PARTS this machine allowed.

    `memory`: most bytes of data. Libraries must be loaded, and no thread started: from here on no file can be opened.
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
    """Into a network of its own without any interface."""
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Those of root, and those that a user namespace gave."""
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def _close_files(libc: ctypes.CDLL) -> bool:
    """Landlock: no file can be opened any more, whoever owns it; nor TCP used, nor others signalled, where it can."""
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
    """seccomp: any other call is answered as by a kernel that does not have it, so that libraries do without."""
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(_ERRNO | errno.ENOSYS))
    seccomp.seccomp_attr_set(rules, _SYNCHRONOUS, 1)

    def allow(name: str, *conditions: _Argument) -> None:
        """A call of another processor's has a negative number, and no rule."""
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        given = (_Argument * len(conditions))(*conditions)
        if number >= 0:
            seccomp.seccomp_rule_add_array(rules, _ALLOW, number, len(conditions), given)

    for name in _CALLS.split():
        allow(name)
    counted = _Argument(3, _MASKED_EQUAL, _MAP_KIND | _MAP_GROWSDOWN, _MAP_PRIVATE)  # what RLIMIT_DATA sees
    allow("mmap", counted)
    allow("mmap2", counted)
    allow("clone", _Argument(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))  # threads, never processes
    allow("prctl", _Argument(0, _EQUAL, _PR_SET_NAME, 0))
    allow("tgkill", _Argument(0, _EQUAL, os.getpid(), 0))
    allow("prlimit64", _Argument(0, _EQUAL, 0, 0))
    return bool(seccomp.seccomp_load(rules) == 0)
