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

from smallpress.tasks import confinement, sandbox_imports, sandbox_inside

GRACE_MS = 100


def serve(control: socket.socket) -> None:
    """Answer requests until the other end closes."""
    assert sandbox_imports.N_MODULES > 0  # They are loaded now, for no file can be opened later.
    os.chdir("/")
    os.umask(0o077)
    devnull = os.open(os.devnull, os.O_RDWR)
    confinement.adopt_orphans()
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
    program = os.getpid()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not request:
            return _end_all()
        if os.fork() == 0:
            control.close()
            _warden(program, json.loads(request), descriptors[0], descriptors[1], devnull)
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


def _end_all() -> None:
    """End the wardens, and with them what they made; wait until nothing is left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _warden(program: int, limits: dict[str, Any], channel: int, watch: int, devnull: int) -> NoReturn:
    confinement.die_with_parent()
    if os.getppid() != program:  # It died before the line above.
        os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    alive, held = os.pipe()
    if "namespaces" in limits["layers"]:
        confinement.unshare(confinement.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        try:
            os.close(held)
            confinement.die_with_parent()
            if select.select([alive], [], [], 0)[0]:  # The pipe's other end is closed: the warden died before that.
                os._exit(0)
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
    for standard in (0, 1, 2):
        os.dup2(devnull, standard)
    os.dup2(channel, sandbox_inside.CHANNEL)  # After the lines above, for this may be the number of devnull.
    os.closerange(sandbox_inside.CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
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
