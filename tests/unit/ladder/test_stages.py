"""What each stage is given: from which model, taught by whom, in how much time, with which share of other data."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from smallpress.corpus.conversations import read_conversations
from smallpress.ladder.settings import R1Settings
from smallpress.ladder.stages import find_stage, general_settings, run_settings, share_of, stages
from smallpress.run.errors import UserError
from smallpress.run.settings import load_settings

OUT = Path("out")
GIVEN = {"model": "base", "tasks": ("chained_sum:3",), "minutes": 50.0}


def settings(**more):
    return R1Settings.model_validate(GIVEN | more)


def of(chosen, key, minutes=None):
    return run_settings(chosen, find_stage(key, stages(chosen)), OUT, minutes)


def test_supervised_stages_begin_from_the_base_and_rl_from_the_stage_before():
    chosen = settings()
    starts = {stage.key: run_settings(chosen, stage, OUT, None).model for stage in stages(chosen)}
    assert starts == {
        "r1_zero": "base",
        "cold_start": "base",
        "reasoning_rl": "out/1-cold-start/model",
        "rejection_sampling": "base",
        "all_scenarios_rl": "out/3-rejection-sampling/model",
    }
    assert of(chosen, "1").teacher == "out/0-r1-zero/model" and of(chosen, "3").teacher == "out/2-reasoning-rl/model"


def test_answers_are_kept_that_are_right_well_formed_and_readable_as_r1_kept_its_own():
    for key in ("cold-start", "rejection-sampling"):
        told = of(settings(cold_start={"filters": {"repeated": 0.1}}), key)
        assert told.filters.correct and told.filters.well_formed and told.reading == "strict"
        assert (told.filters.paragraph_words, told.filters.code_blocks) == (150, False)
    assert of(settings(cold_start={"filters": {"repeated": 0.1}}), "1").filters.repeated == 0.1


def test_from_the_second_stage_on_language_is_rewarded_and_the_last_samples_cooler():
    chosen = settings()
    assert ["language" in of(chosen, key).rewards for key in "024"] == [False, True, True]
    assert [of(chosen, key).temperature for key in "024"] == [1.0, 1.0, 0.7]
    assert [of(chosen, key).form for key in "024"] == ["r1_zero_example", "chat", "chat"]


def test_general_prompts_are_asked_in_the_last_stage_where_somebody_judges_them():
    without, judged = settings(general_prompts=("a",)), {"helpfulness": {"by": "rules", "on": "prompts"}}
    assert of(without, "4").prompts == ()
    assert of(settings(general_prompts=("a",), all_scenarios_rl=judged), "4").prompts == ("a",)
    assert of(settings(general_prompts=("a",), all_scenarios_rl=judged | {"prompts": ["b"]}), "4").prompts == ("b",)


def test_a_section_says_what_its_stage_does_and_a_choice_of_rewards_is_taken_whole():
    told = of(settings(reasoning_rl={"group_size": 4, "rewards": {"accuracy": 1.0}}), "2")
    assert told.group_size == 4 and told.rewards == {"accuracy": 1.0} and told.form == "chat"
    assert of(settings(reasoning_rl={"learning_rate": 0.5}), "2").lr == 0.5  # a word of other trainers


def test_what_needs_no_reasoning_is_a_quarter_of_the_third_stage_alone():
    chosen = settings(general_prompts=("asked.jsonl",), general_data=("said.jsonl",))
    told = of(chosen, "3")
    assert told.others == ("said.jsonl", "out/general-answers/data.jsonl") and told.others_share == 0.25
    assert of(chosen, "1").others == ()
    asked = general_settings(chosen)
    assert (asked.model, asked.teacher, asked.prompts, asked.tasks) == ("base", "base", ("asked.jsonl",), ())


def test_minutes_are_shared_by_those_that_are_left_and_asking_has_its_part():
    chosen = settings()  # 8, 3, 5, 5 and 4 of 25
    known = stages(chosen)
    assert share_of(chosen, known[0], 60 * 50) == pytest.approx(16)
    assert share_of(chosen, known[3], 60 * 18) == pytest.approx(10)  # 5 of 9
    assert share_of(chosen, known[4], 60 * 18) == pytest.approx(18)
    told = of(chosen, "3", minutes=10.0)
    assert told.ask_minutes == pytest.approx(4) and told.minutes == pytest.approx(6)
    assert of(settings(reasoning_rl={"minutes": 2.0}), "2", minutes=10.0).minutes == 2.0


def test_a_stage_made_elsewhere_takes_no_time():
    chosen = settings(trained_r1_zero="zero")
    zero, cold, *_ = stages(chosen)
    assert zero.model(OUT) == Path("zero") and of(chosen, "1").teacher == "zero"
    assert share_of(chosen, cold, 60 * 17) == pytest.approx(3)


@pytest.mark.parametrize(
    ("more", "verb"),
    [
        ({"cold_start_data": ("a.jsonl",)}, "sft"),
        ({"cold_start": {"teacher": "http://x/v1", "teacher_form": "chat"}}, "distill"),
    ],
)
def test_a_cold_start_from_files_or_another_teacher_needs_no_r1_zero(more, verb):
    chosen = settings(**more)
    assert [stage.name[0] for stage in stages(chosen)] == list("1234")
    told = of(chosen, "1", minutes=3.0)
    assert told.data == ("a.jsonl",) if verb == "sft" else told.teacher == "http://x/v1"


def test_the_recipe_is_one_and_its_prompts_are_there(request):
    root = request.config.rootpath
    chosen = load_settings(R1Settings, root / "recipes/r1.toml")
    assert chosen.all_scenarios_rl.prompts == chosen.general_prompts
    assert all(list(read_conversations(root / file)) for file in chosen.general_prompts)


def test_every_stage_draws_problems_of_its_own_and_settings_survive_their_own_file():
    chosen = settings(seed=3)
    assert len({of(chosen, key).seed for key in "01234"}) == 5
    assert R1Settings.model_validate(chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"cold_start_data": ("a",), "trained_r1_zero": "b"}, "the cold start has one source"),
        ({"minutes": None}, "the run has no end"),
        ({"cold_start": {"model": "other"}}, "a ladder has one model"),
        ({"tasks": ("chained_som",)}, "did you mean chained_sum"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(more, says):
    with pytest.raises(ValidationError, match=says):
        settings(**more)


@pytest.mark.parametrize("word", ["2", "reasoning-rl", "reasoning_rl", "2-reasoning-rl"])
def test_a_stage_is_found_by_number_or_name(word):
    assert find_stage(word, stages(settings())).key == "reasoning_rl"


def test_an_unknown_stage_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 1-cold-start"):
        find_stage("cold-strat", stages(settings()))
