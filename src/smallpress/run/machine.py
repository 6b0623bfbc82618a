"""What this machine is: processor, cores, memory. Recorded with every run, shown by `smallpress doctor`."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# The instruction sets that decide which kernels run, as /proc/cpuinfo names them (x86 first, then Arm).
_FEATURES = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes, 0 where the system does not tell; cores are those this process may use."""

    system: str
    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory: int
    memory_free: int


def this_machine() -> Machine:
    cpu, features = _cpu()
    memory, memory_free = _memory()
    system = f"{platform.system()} {platform.machine()}"
    return Machine(system, cpu, features, _cores(), memory, memory_free)


def peak_resident() -> float:
    """The most bytes this process ever held; 0 where the system does not tell."""
    # What getrusage says counts the parent's memory too where this process was forked from a larger one.
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> tuple[str, tuple[str, ...]]:
    facts: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip().lower(), value.strip())
    flags = set(facts.get("flags", facts.get("features", "")).split())
    name = facts.get("model name") or _apple_cpu() or platform.processor() or platform.machine() or "unknown"
    return name, tuple(feature for feature in _FEATURES if feature in flags)


def _apple_cpu() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _memory() -> tuple[int, int]:
    """Total and available bytes, no more than the control group (a container's limit) allows."""
    facts = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    total, free = (int(facts.get(key, "0 kB").split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    if not total and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        total, free = min(total, int(limit)), min(free, max(0, int(limit) - int(used)))
    return total, free


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
