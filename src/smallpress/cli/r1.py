"""smallpress r1"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smallpress.cli.training import settings_of
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.ladder.settings import R1Settings
    from smallpress.ladder.stages import Stage


def r1(
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings, such as recipes/r1.toml.")] = None,
    *,
    out: Annotated[Path, Parameter(help="The ladder's folder: new or empty.")] = Path("runs/r1"),
    model: Annotated[str | None, Parameter(help="The base: a folder, a .gguf file, a catalogue name.")] = None,
    minutes: Annotated[float | None, Parameter(help="For all stages together, measuring included.")] = None,
    seed: Annotated[int | None, Parameter(help="Chooses problems and draws; the same seed, the same ladder.")] = None,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", help="Any setting: --set reasoning_rl.group_size=16")
    ] = (),
    stop_after: Annotated[str | None, Parameter(help="A stage, such as cold-start; resume goes on.")] = None,
    from_stage: Annotated[str | None, Parameter(help="Of a ladder that is there: it and those after it anew.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Say the plan of every stage, train nothing.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Climb the four stages of DeepSeek-R1: cold start, RL, rejection sampling, RL again, each measured.

    Settings come from the recipe, then from --set, then from the options above. A ladder that was stopped, in whatever
    stage, goes on with: smallpress resume OUT
    """
    from smallpress.cli.climb import Climb
    from smallpress.ladder.settings import R1Settings
    from smallpress.ladder.stages import find_stage, stages

    given = {"model": model, "minutes": minutes, "seed": seed}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(R1Settings, recipe, [*set_, *options])
    last = find_stage(stop_after, stages(settings)) if stop_after else None
    first = find_stage(from_stage, stages(settings)) if from_stage else None
    _check_files(settings, offline)
    if dry_run:
        from smallpress.cli.climb_plan import foretell

        return foretell(settings, out, offline)
    if first is not None:
        folder = _anew_from(first, out, settings)
    else:
        folder = RunFolder.create(out, settings.model_dump(mode="json"), verb="r1")
    Climb(folder, settings, offline).go(last)


def _check_files(settings: "R1Settings", offline: bool) -> None:
    """What a later stage would miss is found before the first: the models and the files of rows."""
    from smallpress.corpus.conversations import read_conversations
    from smallpress.weights.reference import resolve

    for model in filter(None, (settings.model, settings.trained_r1_zero)):
        resolve(model, offline)
    for file in (*settings.cold_start_data, *settings.general_prompts, *settings.general_data):
        for _ in read_conversations(Path(file)):
            pass


def resume_r1(folder: RunFolder, offline: bool) -> None:
    """Go on in whatever stage the ladder was stopped; a finished one shows its table again."""
    from smallpress.cli.climb import Climb
    from smallpress.ladder.settings import R1Settings

    Climb(folder, settings_of(R1Settings, folder), offline).go()


def _anew_from(first: "Stage", out: Path, settings: "R1Settings") -> RunFolder:
    """The ladder in `out` with the settings given; what `first` and later stages left is moved aside."""
    from smallpress.ladder.settings import R1Settings
    from smallpress.ladder.state import Standing, move_aside

    folder = RunFolder.open(out)
    before = settings_of(R1Settings, folder)
    standing = Standing(out, settings)
    for stage in standing.stages[: standing.stages.index(first)]:
        if not standing.is_done(stage):
            raise UserError(f"{stage.name} is not done yet", f"go on with it: smallpress resume {out}")
        then, now = (getattr(one, stage.key).model_copy(update={"minutes": None}) for one in (before, settings))
        if then != now:
            remedy = f"begin from {stage.name}, or leave its settings as they were"
            raise UserError(f"the settings of {stage.name} are not those it was made with", remedy)
    for key in ("eval_tasks", "measure_n", "measure_tokens", "model"):
        if getattr(before, key) != getattr(settings, key):
            raise UserError(f"{key} is not what the earlier stages were made with", "begin a new ladder for that")
    with folder.holding():
        move_aside(standing, first)
        return folder.renewed(settings.model_dump(mode="json"))
