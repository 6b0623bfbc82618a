"""What a process of Linux can give up for ever, by ctypes: privileges, files, system calls, resources.

Sources: prctl(2), seccomp(2), landlock(7), capabilities(7), user_namespaces(7) and the kernel's tables of system
calls for x86-64 and aarch64. It imports nothing of ours; the functions raise OSError where the kernel says no.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from contextlib import suppress

NOBODY = 65534

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

# Arithmetic, memory, time of day, the open descriptors, the process's own end: (x86-64, aarch64). No futex, no sleep:
# a process of one thread has nothing to wait for.
_ALLOWED: dict[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "getpid": (39, 172), "exit": (60, 93),
    "gettimeofday": (96, 169), "getrusage": (98, 165), "times": (100, 153), "getuid": (102, 174),
    "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "sigaltstack": (131, 132),
    "gettid": (186, 178), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "exit_group": (231, 94), "getrandom": (318, 278),
}  # fmt: skip
_NOT_EXECUTABLE = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Allowed unless the memory is to be executed."""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_PROT_EXEC = 4
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld [k], jeq, jset, ret
_NR, _ARCH, _THIRD_ARGUMENT = 0, 4, 32  # offsets in struct seccomp_data

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same on every machine

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    _call(f"prctl {option}", _libc.prctl(option, *padded))


def die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Be the parent of every descendant whose own parent died, so that all can be waited for."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """No core dump, and no other process of this user may look into this one or attach to it."""
    _prctl(PR_SET_DUMPABLE, 0)


def drop_root() -> None:
    """Become nobody where the process is root."""
    if os.geteuid() == 0 or os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def unshare(flags: int) -> None:
    _call("unshare", _libc.unshare(ctypes.c_int(flags)))


def leave_namespaces() -> None:
    """A user of nobody's, no network (not even the loopback), no shared memory or queues of others', own mounts."""
    unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS)


def drop_capabilities() -> None:
    """Those a user namespace gave."""
    header, data = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _call("capset", _libc.capset(header, data))


def no_new_privileges() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def limit_resources(cpu_seconds: int, memory_bytes: int) -> None:
    """Seconds of the processor and bytes of address space; no file written, no process, no core, no queue."""
    limits = {"CPU": cpu_seconds, "AS": memory_bytes}
    for kind in ("FSIZE", "NPROC", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"):
        limits[kind] = 0
    for kind, limit in limits.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))[1]
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (least, least))


def no_files() -> None:
    """Landlock with no rule: no file, folder, TCP port, abstract socket or other process's signal is left."""
    version = _call("landlock", _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("=Q", files)
    if version >= 4:
        attributes += struct.pack("=Q", 3)
    if version >= 6:
        attributes += struct.pack("=Q", 3)
    ruleset = _call(
        "landlock", _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    )
    try:
        _call("landlock", _libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0)))
    finally:
        os.close(ruleset)


def filter_program() -> bytes:
    """The BPF program: allow what is named above, refuse all else with EPERM, kill a foreign architecture."""
    column, arch = _MACHINES[platform.machine()]
    allowed = [numbers[column] for numbers in _ALLOWED.values()]
    checked = [numbers[column] for numbers in _NOT_EXECUTABLE.values()]
    program = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL_PROCESS), (_LOAD, 0, 0, _NR)]
    for number in allowed:
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    refuse = (_RETURN, 0, 0, _ERRNO | 1)
    for number in checked:
        program += [(_JUMP_EQUAL, 0, 4, number), (_LOAD, 0, 0, _THIRD_ARGUMENT), (_JUMP_SET, 0, 1, _PROT_EXEC)]
        program += [refuse, (_RETURN, 0, 0, _ALLOW)]
    program.append(refuse)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def filter_calls() -> None:
    """Only arithmetic, memory and the descriptors that are open: needs no_new_privileges first."""
    if platform.machine() not in _MACHINES:
        raise OSError(f"seccomp: no filter for {platform.machine()}")
    program = ctypes.create_string_buffer(filter_program())
    descriptor = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(program))
    buffer = ctypes.create_string_buffer(descriptor)
    _prctl(PR_SET_SECCOMP, 2, ctypes.addressof(buffer))


def layers() -> list[str]:
    """What this process can be given, tried in the process itself: call it in one that ends afterwards."""
    got = []
    steps = (
        ("privileges", no_new_privileges),
        ("namespaces", leave_namespaces),
        ("landlock", no_files),
        ("seccomp", filter_calls),
    )
    for name, step in steps:
        with suppress(OSError):
            step()
            got.append(name)
    return got
