"""Starts and stops servers as processes of their own, and reads what they tell of themselves. Standard library only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.client import HOST

START_SECONDS = 300.0
PORT = "PORT"  # in a command: the port that is taken


@dataclass
class Server:
    process: subprocess.Popen
    port: int

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=60) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """The sum over all models; 0 where it is not told."""
        found = re.findall(rf"^smallpress:{name}{{.*}} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return sum(map(float, found))

    @property
    def rss_bytes(self) -> int:
        """Resident memory; Linux."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) * 1024 if found else 0


@contextmanager
def smallpress(model: str, *options: str) -> Iterator[Server]:
    with _started([sys.executable, "-m", "smallpress.cli.main", "serve", model, "--port", PORT, *options]) as server:
        yield server


@contextmanager
def llama(
    python: Path, binary: Path | None, model: Path, n_parallel: int, context: int, n: int, options: list[str]
) -> Iterator[Server]:
    """llama.cpp's server on `n` threads: the binary with its `options`, else what the peers' interpreter has
    (llama_side.py)."""
    if binary is None:
        script = Path(__file__).with_name("llama_side.py")
        words = [python, script, model, PORT, n_parallel, context, n]
    else:
        size = ["-np", n_parallel, "-c", n_parallel * context, "-t", n, "-tb", n]
        words = [binary, "-m", model, "--port", PORT, *size, *options]
    with _started([str(word) for word in words]) as server:
        yield server


@contextmanager
def _started(words: list[str]) -> Iterator[Server]:
    port = _free_port()
    environment = os.environ | {"SMALLPRESS_API_KEY": ""}
    words = [str(port) if word == PORT else word for word in words]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    try:
        _await_health(process, port)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_health(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode} before it answered")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server did not answer within {START_SECONDS:g} s")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return taken.getsockname()[1]
