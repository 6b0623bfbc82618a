"""What happens when a process of many is lost: the others end too, say which rank they are, and leave no orphan."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from smallpress.run.errors import UserError

PR_SET_PDEATHSIG = 1  # prctl(2)

SIGNS = ("gloo", "NCCL", "Connection", "connection", "Socket", "timed out", "Timed out", "TCPStore", "store")
"""Words in what torch.distributed raises, as a plain RuntimeError, when a neighbour is gone."""


def end_with_parent() -> None:
    """Let this process be killed when the one that started it dies, so that a killed torchrun leaves nothing behind."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # It died before it was watched.
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def named(rank: int, world: int) -> Iterator[None]:
    """A lost neighbour is an error of one line with this process's rank; torchrun names the rank that ended first."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
        cause = re.sub(r"^\[[^]]*\] *", "", str(error).strip()).partition("\n")[0].partition(". ")[0]
        what = f"rank {rank} of {world} lost touch with another: {cause}"
        raise UserError(
            what, "the rank torchrun names as first failed is the cause; smallpress resume goes on"
        ) from error
