"""smallpress distill"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.foresight import announce, foresee_distill
from smallpress.cli.sft import SHOWN, Session
from smallpress.cli.training import point_to, rehearse, settings_of
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.progress import Progress
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.optim.master import MasterWeights
    from smallpress.planner.learning import Learned
    from smallpress.train.distill_settings import DistillSettings
    from smallpress.train.gather import Question, Teacher
    from smallpress.train.objective import Objective
    from smallpress.weights.load import ModelFiles

REHEARSED = 3  # answers of a dry run


def distill(
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings, such as recipes/distill.toml.")] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="The run's folder: new or empty.")] = Path("runs/distill"),
    model: Annotated[str | None, Parameter(help="The student: a folder, a .gguf file, a catalogue name.")] = None,
    teacher: Annotated[str | None, Parameter(help="A model, or an endpoint such as http://localhost:8000/v1.")] = None,
    epochs: Annotated[float | None, Parameter(help="How often every answer is met.")] = None,
    seed: Annotated[int | None, Parameter(help="Chooses questions, draws and order.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="Any setting: --set answers_each=4")] = (),
    dry_run: Annotated[bool, Parameter(negative="", help="Say what it takes, ask a little, take one step.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Let a teacher answer, keep what is right and readable, and train a student on it.

    Settings come from the recipe, then from --set, then from the options above. A run that was stopped goes on with:
    smallpress resume RUN
    """
    from smallpress.train.distill_settings import DistillSettings

    given = {"model": model, "teacher": teacher, "epochs": epochs, "seed": seed}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(DistillSettings, recipe, [*set_, *options])
    if settings.is_remote and offline:
        raise UserError(f"the teacher is {settings.teacher}, and --offline opens no socket", "choose a local teacher")
    if dry_run:
        return _rehearse(settings, _questions(settings, offline), offline)
    start_distill(settings, out, offline)


def start_distill(settings: "DistillSettings", out: Path, offline: bool) -> None:
    """A new run in `out`, to its end. Raises UserError before there is anything to lose."""
    asked = _questions(settings, offline)
    _go_on(RunFolder.create(out, settings.model_dump(mode="json"), verb="distill"), settings, asked, offline)


def _questions(settings: "DistillSettings", offline: bool) -> list["Question"]:
    """What is asked, said so, and what it will take."""
    from smallpress.train.gather import questions

    asked = questions(settings)
    n_checked = sum(question.example is not None for question in asked)
    print(f"{len(asked)} questions, {n_checked} of which a program can check, {settings.answers_each} answers each")
    _plan_first(settings, asked, offline)
    return asked


def resume_distill(folder: RunFolder, offline: bool) -> None:
    """Ask what is not answered yet, then go on training; a finished run only says so."""
    from smallpress.train.distill_settings import DistillSettings
    from smallpress.train.gather import questions
    from smallpress.train.session import result_folder

    settings = settings_of(DistillSettings, folder)
    result = result_folder(settings, folder.path)
    if result.exists():
        print(f"{folder.path} is finished")
        return point_to(folder, result)
    _go_on(folder, settings, questions(settings), offline)


def _go_on(folder: RunFolder, settings: "DistillSettings", asked: list["Question"], offline: bool) -> None:
    from smallpress.train.gather import DATA

    path = folder.path
    print(f"working in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
    with folder.writing():
        collect(path, settings, asked, offline)
    _session(settings, path / DATA, offline).train(folder)


def collect(path: Path, settings: "DistillSettings", asked: list["Question"], offline: bool) -> None:
    """Ask and sift into a folder, as far as that is not done: data.jsonl is written once all is answered."""
    from smallpress.train.gather import DATA

    if not (path / DATA).exists():
        print(_ask(path, settings, asked, settings.answers_each, offline))


def _ask(folder: Path, settings: "DistillSettings", asked: list["Question"], n_each: int, offline: bool) -> str:
    """Answers and what of them is kept into the folder; what that came to. The teacher goes when they are there."""
    from smallpress.train.gather import gather, sift

    teacher, bill = _teacher(settings, asked, offline)
    with Progress(f"asking {settings.teacher}", total=len(asked) * n_each, unit="answers") as progress:
        gather(folder, asked, n_each, teacher, progress.advance, settings.ask_minutes)
    came_to = [f"{n} answers: {reason}" for reason, n in sift(folder, settings, asked).most_common()]
    return "\n".join([*filter(None, [bill()]), *came_to])


def _session(settings: "DistillSettings", data: Path, offline: bool) -> Session:
    """The student opened for training on the answers."""
    from smallpress.planner.recipe import taught
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    config = None if settings.is_remote else open_model(resolve(settings.teacher, offline)).config

    def changed(asked: "Learned") -> "Learned":
        return replace(taught(settings, asked, config, (1 - asked.predicted) * asked.seq_len), activity="distill")

    return Session.open(settings.sft(str(data)), offline, objective_of(settings, offline), changed)


def _plan_first(settings: "DistillSettings", asked: list["Question"], offline: bool) -> None:
    """Print what asking and training will take. UserError where a part of it cannot fit, or the student is too short:
    what would stop the training is found before anything is asked."""
    from smallpress.train.session import check_length
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = open_model(resolve(settings.model, offline))
    check_length(settings.max_tokens, files)
    tokenizer = files.tokenizer()
    n_prompt = fmean(len(tokenizer.encode(str(question.messages))) for question in asked)
    teacher = None if settings.is_remote else open_model(resolve(settings.teacher, offline))
    plan = foresee_distill(files, settings, len(asked), n_prompt, teacher)
    announce(plan)
    if settings.is_remote:
        prices, n = settings.endpoint, len(asked) * settings.answers_each
        most = n * (n_prompt * prices.price_in + settings.answer_tokens * prices.price_out) / 1e6
        print(f"      the teacher's answers cost at most about {most:.4g}", file=sys.stderr)


def _teacher(settings: "DistillSettings", asked: list["Question"], offline: bool) -> tuple["Teacher", Any]:
    """Who answers, and a function that says what it took."""
    from smallpress.train.teachers import LocalTeacher, RemoteTeacher

    if settings.is_remote:
        remote = RemoteTeacher(settings.endpoint.client(settings.teacher), settings)
        bill = remote.bill
        return (
            remote,
            lambda: f"{bill.prompt_tokens} tokens asked, {bill.completion_tokens} answered, cost {bill.cost:.4g}",
        )
    from smallpress.cli.open_engine import open_engine
    from smallpress.planner.recipe import TEACHER_RUNNING
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = open_model(resolve(settings.teacher, offline))
    tokenizer = files.tokenizer()
    longest = max(len(tokenizer.encode(str(question.messages))) for question in asked)
    n_running = min(TEACHER_RUNNING, len(asked) * settings.answers_each)
    room = min(files.config.max_seq_len, longest + 512 + settings.answer_tokens)
    engine = open_engine(files, "auto", n_running, room)
    return LocalTeacher(engine, tokenizer, settings), lambda: ""


def objective_of(settings: "DistillSettings", offline: bool) -> Any:
    """(files, weights) -> the objective of the method; None for plain training on the answers."""
    if settings.method == "answers":
        return None

    def make(files: "ModelFiles", weights: "MasterWeights") -> "Objective":
        from smallpress.train.divergence import Imitation
        from smallpress.train.student_rollouts import StudentRollouts
        from smallpress.weights.load import load_transformer, open_model
        from smallpress.weights.reference import resolve

        teacher_files = open_model(resolve(settings.teacher, offline))
        _check_same_words(files, teacher_files, settings.teacher)
        teacher = load_transformer(teacher_files, weights.dtype).requires_grad_(False)
        rollouts = None
        if settings.method == "on_policy":
            from smallpress.cli.open_engine import engine_over, number_format

            n, format = settings.samples_per_step, number_format("auto")
            engine = engine_over(weights.model, format, n, settings.max_tokens + settings.answer_tokens)
            ends, temperature = files.tokenizer().eos_ids, settings.temperature
            rollouts = StudentRollouts(engine, weights, ends, settings.answer_tokens, temperature, settings.seed)
        return Imitation(settings.divergence, teacher, settings.micro_batch_tokens, rollouts)

    return make


def _check_same_words(student: "ModelFiles", teacher: "ModelFiles", name: str) -> None:
    """Probabilities are of tokens: both must have the same."""
    if student.tokenizer().words() != teacher.tokenizer().words():
        raise UserError(f"{name} has another vocabulary than the student", "use method=answers, which needs text alone")


def _rehearse(settings: "DistillSettings", asked: list["Question"], offline: bool) -> None:
    """A few answers, judged, and where any is kept one step on them; nothing is written but to a folder that goes."""
    from tempfile import TemporaryDirectory

    from smallpress.train.gather import ANSWERS, DATA, stored

    few = asked[:REHEARSED]
    with TemporaryDirectory() as name:
        folder = Path(name)
        came_to = _ask(folder, settings, few, 1, offline)
        for row in stored(folder / ANSWERS):
            print(f"\n{few[row['question']].messages[-1]['content']}\n  {' '.join(row['text'].split())}")
        print(f"\n{came_to}")
        if (folder / DATA).stat().st_size:
            session = _session(settings, folder / DATA, offline)
            rehearse(session.plan, session.trainer, SHOWN)
