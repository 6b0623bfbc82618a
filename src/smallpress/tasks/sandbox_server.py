"""A program that waits, with Python warmed up, and forks a confined process for every request.

Run with one socket as standard input. It becomes nobody where it is root, enters empty namespaces where it may, and
says in one line of JSON which layers hold. Each request carries two sockets, the channel and the watch, and names the
nonce and the limits. A warden, a child of this program, makes the confined process, waits for its end, for the clock,
or for the other end of the watch to close, kills it, and writes on the watch how it ended. The confined process can
start no other, so that nothing outlives it; where it may, it is also the first process of a namespace of its own.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any, NoReturn

from smallpress.tasks import confinement, sandbox_inside

WARMED = """abc array ast base64 binascii bisect calendar cmath collections collections.abc colorsys contextlib copy csv
    dataclasses datetime decimal difflib enum fractions functools hashlib heapq hmac html inspect io itertools json
    keyword locale math numbers operator pprint queue random re secrets statistics string struct sys textwrap threading
    time timeit traceback types typing unicodedata unittest uuid warnings weakref zlib encodings.idna encodings.latin_1
    encodings.ascii encodings.utf_16 encodings.utf_32 _strptime bz2 graphlib ipaddress sched shlex urllib.parse
    zoneinfo""".split()
"""What a solution can import: no file can be opened later."""

FIRST_FREE = sandbox_inside.CHANNEL + 1
GRACE_MS = 100


def serve(control: socket.socket) -> None:
    """Answer requests until the other end closes."""
    for name in WARMED:
        with suppress(ImportError):  # A build of Python may lack one.
            __import__(name)
    os.chdir("/")
    os.umask(0o077)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(devnull, True)
    confinement.drop_root()
    confinement.hide_memory()
    layers = _layers()
    if "namespaces" in layers:
        confinement.leave_namespaces()
    control.sendall(json.dumps(layers).encode() + b"\n")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Wardens need no waiting for.
    gc.collect()
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not request:
            return
        if os.fork() == 0:
            control.close()
            _warden(json.loads(request), *descriptors, devnull)
        for descriptor in descriptors:
            os.close(descriptor)


def _layers() -> list[str]:
    """What a process here can be given, tried in one that ends at once."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(confinement.layers()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text or b"[]")


def _warden(limits: dict[str, Any], channel: int, watch: int, devnull: int) -> NoReturn:
    confinement.die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if "namespaces" in limits["layers"]:
        confinement.unshare(confinement.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        try:
            _confined(limits, channel, devnull)
        finally:
            os._exit(71)  # EX_OSERR: a layer that was promised failed, and nothing has run.
    os.close(channel)
    handle = os.pidfd_open(child)
    waiting = select.poll()
    for descriptor in (handle, watch):
        waiting.register(descriptor, select.POLLIN | select.POLLHUP)
    ready = [descriptor for descriptor, _ in waiting.poll(1000 * limits["seconds"])]
    if watch in ready and handle not in ready:  # A process that lost its channel ends by itself, or had just ended.
        waiting.unregister(watch)
        ready += [descriptor for descriptor, _ in waiting.poll(GRACE_MS)]
    if handle not in ready:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end = "clock" if not ready else "closed" if handle not in ready else status
    with suppress(OSError):
        os.write(watch, json.dumps(end).encode())
    os._exit(0)


def _confined(limits: dict[str, Any], channel: int, devnull: int) -> NoReturn:
    confinement.die_with_parent()
    os.dup2(channel, FIRST_FREE)  # It may lie where the next lines put others.
    os.dup2(FIRST_FREE, sandbox_inside.CHANNEL)
    for standard in (0, 1, 2):
        os.dup2(devnull, standard)
    os.closerange(FIRST_FREE, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    layers = limits["layers"]
    if "namespaces" in layers:
        confinement.drop_capabilities()
    confinement.limit_resources(limits["cpu_seconds"], limits["memory_bytes"])
    confinement.no_new_privileges()
    if "landlock" in layers:
        confinement.no_files()
    if "seccomp" in layers:
        confinement.filter_calls()
    sandbox_inside.serve(bytes.fromhex(limits["nonce"]))


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
