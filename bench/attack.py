"""Damaged model files by the ten thousand, opened, converted and quantized: `python bench/attack.py`.

20,000 mutations of each of GGUF and safetensors (and the JSON files beside it), from fixed seeds. Each must be used or
be refused with a UserError within a second of the processor. Blocks of files run in a child process that may take
no more memory than they call for, so that a crash is one line here and not the end of the run. Exit code 1 where one is
found; the file that did it is kept.
"""

import argparse
import faulthandler
import importlib.util
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError

ROOT = Path(__file__).parents[1]
SECONDS_A_FILE, SECONDS_A_BLOCK = 1.0, 600.0
SPARE_BYTES = 64 << 20
BLOCK = 500
MEMORY_DISK = Path("/dev/shm")

Mutator = Callable[[bytes, random.Random], bytes]


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tests/unit/weights/{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations, families = load("mutations"), load("families")


def gguf_victims(folder: Path) -> list[tuple[Path, Path, Mutator]]:
    """(what is opened, the file that is changed, how) of each kind."""
    victims = []
    for target in ("f32", "bf16", "q8_0", "q4_0", "q4_1"):
        path = folder / f"{target}.gguf"
        mutations.write_small_gguf(path, target)
        victims.append((path, path, mutations.mutate_gguf))
    for number, config in enumerate(families.small_configs().values()):
        path = folder / f"architecture-{number}.gguf"
        mutations.write_small_gguf(path, "q8_0", config)
        victims.append((path, path, mutations.mutate_gguf))
    return victims


def safetensors_victims(folder: Path) -> list[tuple[Path, Path, Mutator]]:
    from smallpress.weights.export import WeightsOnDemand, save_hf_folder
    from smallpress.weights.load import open_model

    mutations.write_small_gguf(folder / "f32.gguf", "f32")
    files = open_model(folder / "f32.gguf")
    victims = []
    for dtype in ("float32", "bfloat16"):
        model = save_hf_folder(folder / dtype, WeightsOnDemand(files), files, dtype)
        victims += [(model, model / "model.safetensors", mutations.mutate_header)] * 3
        victims += [(model, model / name, mutations.mutate_json) for name in ("config.json", "tokenizer.json")]
    return victims


def attack(kind: str, n_files: int, scratch: Path) -> Counter[str]:
    """Runs blocks one after another; the counts of all of them."""
    counts: Counter[str] = Counter()
    for block in range(-(-n_files // BLOCK)):
        report = scratch / "report.json"
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            os._exit(run_block(kind, block, min(BLOCK, n_files - block * BLOCK), scratch, report))
        _, status = os.waitpid(child, 0)
        if report.exists():
            found = json.loads(report.read_text())
            slowest = max(counts["slowest, in ms"], found["slowest, in ms"])
            counts += Counter(found)
            counts["slowest, in ms"] = slowest
        if status != 0:
            counts["crashed"] += 1
            print(f"{kind}, block {block}: the child ended with {status}; see {scratch}", flush=True)
    return counts


def run_block(kind: str, block: int, n_files: int, scratch: Path, report: Path) -> int:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    victims = (gguf_victims if kind == "gguf" else safetensors_victims)(folder)
    rng, counts, out = random.Random(f"{kind} {block}"), Counter(), folder / "out"
    out.mkdir()
    for opened, *_ in victims:
        mutations.use(opened, out, rng)  # So that everything is imported before memory is bounded.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    faulthandler.dump_traceback_later(SECONDS_A_BLOCK, exit=True)
    for _ in range(n_files):
        opened, path, mutator = rng.choice(victims)
        whole = path.read_bytes()
        path.write_bytes(mutator(whole, rng))
        outcome, seconds = one_file(opened, out, rng)
        counts[outcome] += 1
        counts["slowest, in ms"] = max(counts["slowest, in ms"], int(seconds * 1000))
        if outcome == "fault" or seconds > SECONDS_A_FILE:
            counts["slow"] += seconds > SECONDS_A_FILE
            (scratch / f"{kind}-{block}-{sum(counts.values())}-{path.name}").write_bytes(path.read_bytes())
        path.write_bytes(whole)
    report.write_text(json.dumps(counts))
    return 0


def one_file(opened: Path, out: Path, rng: random.Random) -> tuple[str, float]:
    start = time.process_time()
    try:
        mutations.use(opened, out, rng)
        outcome = "used"
    except FormatError as error:
        outcome = "refused with its offset"
        assert error.offset >= 0 and error.reason and "\n" not in str(error), error
    except UserError as error:
        outcome = "refused for what it says"
        assert "\n" not in str(error), error
    except Exception:  # what is looked for
        outcome = "fault"
        traceback.print_exc()
    return outcome, time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000, help="of each format")
    n_files = parser.parse_args().files
    bad = 0
    for kind in ("gguf", "safetensors"):
        scratch = Path(
            tempfile.mkdtemp(prefix=f"attack-{kind}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        counts = attack(kind, n_files, scratch)
        print(f"{kind}: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}", flush=True)
        found = counts["fault"] + counts["crashed"] + counts["slow"]
        if not found:
            shutil.rmtree(scratch)
        bad += found
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
