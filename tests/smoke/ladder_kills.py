"""A ladder killed in every stage and resumed each time: python ladder_kills.py RECIPE OUT

Torch is imported once; each sitting is a forked child, the command line itself, that kills itself at a call of a
function after some that went well. Prints, as one JSON list, the stage each was killed in, and the last exit code.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import torch

import smallpress
from smallpress.cli.main import run

POINTS = [
    # module, owner in it, function, calls that go well
    ("smallpress.optim.master", "MasterWeights", "step", 1),
    ("smallpress.ladder.measure", "", "way_of", 0),
    ("smallpress.train.teachers", "LocalTeacher", "_text", 5),
    ("smallpress.optim.master", "MasterWeights", "step", 1),
    ("smallpress.optim.master", "MasterWeights", "step", 1),  # one more of stage 1, none of stage 2
    ("smallpress.weights.export", "", "save_hf_folder", 0),
    ("smallpress.train.gather", "", "sift", 1),  # what needs no reasoning is there, the third stage's answers are asked
    ("smallpress.optim.master", "MasterWeights", "step", 1),
    ("smallpress.ladder.report", "", "as_html", 0),
    ("smallpress.optim.master", "MasterWeights", "step", 1),
]


def die_at(module: str, owner: str, name: str, n_well: int) -> None:
    place = importlib.import_module(module)
    place = getattr(place, owner) if owner else place
    real, left = getattr(place, name), [n_well]

    def counting(*args, **kwargs):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **kwargs)

    setattr(place, name, counting)


def sitting(words: list[str], *point) -> int:
    """The command line in a child; its exit code, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if point:
            die_at(*point)
        os._exit(run(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def newest(out: Path) -> str:
    """The last stage that has a folder."""
    return max((item.name for item in out.iterdir() if item.name[0].isdigit()), default="")


LATE = ["planner.grpo", "planner.probe", "planner.recipe", "cli.climb", "cli.open_engine", "evaluate.problems"]


def import_once() -> None:
    """Verbs import when they are called: what a ladder needs is imported here, for all children."""
    package = Path(smallpress.__file__).parent
    rooms = ("optim", "weights", "engine", "train", "rl", "ladder")
    found = [f"{room}.{path.stem}" for room in rooms for path in sorted((package / room).glob("[a-z]*.py"))]
    for name in found + LATE:
        importlib.import_module(f"smallpress.{name}")


def main(recipe: str, out: Path) -> None:
    torch.set_num_threads(1)
    import_once()
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    torch.optim.AdamW([parameter], fused=True).step()  # imports what an optimizer needs, once for all children
    gc.freeze()
    seen = []
    for i, point in enumerate(POINTS):
        code = sitting(["resume", str(out)] if i else ["r1", recipe, "--out", str(out), "--offline"], *point)
        seen.append(newest(out) if code == -signal.SIGKILL else f"ended with {code}")
    print(json.dumps([*seen, sitting(["resume", str(out)])]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
