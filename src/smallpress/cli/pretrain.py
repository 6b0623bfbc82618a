"""smallpress pretrain"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.foresight import SECONDS, announce, foresee_learning, print_beside
from smallpress.cli.training import point_to, rehearse, settings_of, step_lines
from smallpress.run.folder import RunFolder
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.corpus.shards import Corpus
    from smallpress.parallel.ranks import Ranks
    from smallpress.parallel.settings import Parallel
    from smallpress.planner.plan import Plan
    from smallpress.train.pretrain_settings import PretrainSettings
    from smallpress.train.pretrainer import Pretrainer

MODEL = "model"
SHOWN = (
    "loss", "loss/mtp1", "eval/loss", "eval/bits_per_byte", "load/max_over_mean", "grad_norm", "lr",
    "tokens_per_second",
)  # fmt: skip


def pretrain(
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings, such as recipes/pretrain.toml.")] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="The run's folder: new or empty.")] = Path("runs/pretrain"),
    corpus: Annotated[str | None, Parameter(help="A folder that smallpress corpus made.")] = None,
    tokens: Annotated[float | None, Parameter(help="How many tokens are seen in all, such as 2e7.")] = None,
    steps: Annotated[int | None, Parameter(help="Stop after so many steps.")] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so long.")] = None,
    seed: Annotated[int | None, Parameter(help="Draws the weights and the order; the same seed, the same run.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="Any setting: --set lr=1e-3 --set ema=0.999")] = (),
    dry_run: Annotated[
        bool, Parameter(negative="", help="Say what would be done, take one step, write nothing.")
    ] = False,
) -> None:
    """Make a model from random weights on a corpus, sparse or dense, on DeepSeek's published schedules.

    Settings come from the recipe, then from --set, then from the options above. A run that was stopped, by Ctrl-C or
    worse, goes on with: smallpress resume RUN
    """
    from smallpress.train.pretrain_settings import PretrainSettings

    given = {"corpus": corpus, "tokens": tokens, "steps": steps, "minutes": minutes, "seed": seed}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(PretrainSettings, recipe, [*set_, *options])
    with _among(settings.parallel) as ranks:
        if ranks.restarted and (out / "run.json").is_file():
            return _go_on(RunFolder.open(out), ranks)
        if ranks.first and not dry_run:
            RunFolder.check_new(out)
        session = Session.open(settings, ranks)
        if dry_run:
            return rehearse(session.plan, session.trainer, SHOWN)
        with _folder(ranks, out, session.settings) as folder:
            session.train(folder)


def resume_pretrain(folder: RunFolder, offline: bool) -> None:
    """Go on with a run where its newest whole checkpoint stands; a finished one only says so."""
    from smallpress.train.pretrain_settings import PretrainSettings

    with _among(settings_of(PretrainSettings, folder).parallel, fit=True) as ranks:
        _go_on(folder, ranks)


def _go_on(folder: RunFolder, ranks: "Ranks") -> None:
    from smallpress.train.pretrain_settings import PretrainSettings

    settings = settings_of(PretrainSettings, folder)
    if (folder.path / MODEL).exists():
        print(f"{folder.path} is finished")
        if ranks.first:
            point_to(folder, folder.path / MODEL)
        return
    session = Session.open(settings, ranks)
    with _folder(ranks, folder.path, settings) as mine:
        session.train(mine)


@contextmanager
def _among(parallel: "Parallel", fit: bool = False) -> Iterator["Ranks"]:
    """This process among those torchrun started; all but the first print nothing."""
    from smallpress.parallel.ranks import joined

    with joined(parallel, fit) as ranks, ExitStack() as stack:
        if not ranks.first:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield ranks


@contextmanager
def _folder(ranks: "Ranks", out: Path, settings: "PretrainSettings") -> Iterator[RunFolder]:
    """The run's, made where it is not there yet; of all processes but the first a scratch one."""
    with ExitStack() as stack:
        if not ranks.first:
            out = Path(stack.enter_context(TemporaryDirectory(prefix="smallpress-")))
        is_new = not (out / "run.json").is_file()
        how = settings.model_dump(mode="json")
        yield RunFolder.create(out, how, verb="pretrain") if is_new else RunFolder.open(out)


@dataclass(frozen=True, slots=True)
class Session:
    """A corpus and a new model opened for training since `began`, with all that a run does but its folder."""

    settings: "PretrainSettings"
    corpus: "Corpus"
    trainer: "Pretrainer"
    plan: "Plan"
    began: float

    @classmethod
    def open(cls, settings: "PretrainSettings", ranks: "Ranks") -> "Session":
        """Says the plan first. Raises UserError where it cannot fit, or the corpus does not."""
        from smallpress.corpus.shards import Corpus
        from smallpress.train.pretrain_run import open_pretrainer, settled

        began = time.perf_counter()
        corpus = Corpus.open(settings.corpus)
        settings = settled(settings, corpus, ranks)
        plan = _plan_first(settings, corpus)
        trainer = open_pretrainer(settings, corpus, ranks)
        return cls(trainer.settings, corpus, trainer, plan, began)

    def train(self, folder: RunFolder) -> None:
        """Train, write the model and report; whatever of it the folder does not hold yet."""
        from smallpress.train.pretrain_run import PretrainLoop, export

        path = folder.path
        print(f"training in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
        loop = PretrainLoop(folder, self.trainer, time.perf_counter() - self.began)
        laps: list[float] = []
        first = self.trainer.ranks.first
        on_step = step_lines(loop, SHOWN, laps) if first else lambda step, metrics: None
        loop.go(on_step, lambda sentence: print(sentence, file=sys.stderr, flush=True))
        if not first:
            return
        with folder.writing():
            if not (path / MODEL).exists():
                last = folder.checkpoints.path_of(self.trainer.n_done)
                export(self.trainer, self.corpus, path / MODEL, last)
        if laps:
            print_beside(self.plan, {SECONDS: median(laps)})
        point_to(folder, path / MODEL)


def _plan_first(settings: "PretrainSettings", corpus: "Corpus") -> "Plan":
    """Print what there is and what the run will take. UserError where it cannot fit."""
    from smallpress.model.sizes import multiply_adds, parameters
    from smallpress.train.ramp import Ramp

    config, ramp, sizes = settings.shape, Ramp(settings), parameters(settings.shape)
    epochs = ramp.n_tokens / max(1, corpus.train.n_tokens)
    flops = 2 * multiply_adds(config, settings.seq_len / 2, absorbed=False)
    print(f"{corpus.train.n_tokens:,} tokens to train on, {corpus.held_out.n_tokens:,} held out")
    print(
        f"{(sizes.total + sizes.mtp) / 1e6:.2f} million weights, {sizes.active / 1e6:.2f} of them active, "
        f"{flops / 1e6:.1f} MFLOP a token forward"
    )
    kinds = " and ".join(dict.fromkeys((settings.arithmetic, settings.dtype)))
    print(f"{ramp.n_steps} steps, {ramp.n_tokens:,} tokens, {epochs:.2f} epochs, in {kinds}")
    asked: dict[str, Any] = {
        "n_tokens": ramp.n_tokens,
        "batch_tokens": ramp.n_tokens // ramp.n_steps,
        "seq_len": settings.seq_len,
        "micro_tokens": settings.micro_batch_tokens,
        "dtype": settings.dtype,
        "optimizer": settings.optimizer,
    }
    plan = foresee_learning("pretrain", "the recipe's model", config, asked)
    announce(plan)
    return plan
