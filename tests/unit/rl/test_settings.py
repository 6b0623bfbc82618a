"""A run's settings cannot say nonsense; what is wrong is told in one line that names it."""

import pytest

from smallpress.rl.algorithms import ALGORITHMS
from smallpress.rl.settings import TRL_NAMES, GRPOSettings
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from

LEAST = {"model": "tiny", "tasks": ["addition:2-3"], "steps": 10}


def read(**given):
    return settings_from(GRPOSettings, {key: value for key, value in (LEAST | given).items() if value != ...}, "recipe")


def test_the_least_recipe_is_enough():
    settings = read()
    assert settings.pairs == settings.eval_pairs == [("addition", 2), ("addition", 3)]
    assert read(tasks=["addition:2", "addition:2-3"]).pairs == settings.pairs  # none twice
    assert read(eval_tasks=["sorting:3"]).eval_pairs == [("sorting", 3)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": ...}, "the run has no end"),
        ({"lr_shape": "cosine", "steps": ..., "minutes": 5}, "lr_shape=cosine needs steps"),
        ({"train_on": 9}, "train_on=9 is above group_size=8"),
        ({"target_entropy": 0.1, "temperature": 2.0}, "temperature=2.0 is above max_temperature=1.5"),
        ({"tasks": []}, "tasks"),
        ({"tasks": ["addition:99"]}, "'addition:99' names no level of addition"),
        ({"tasks": ["adition:1"]}, "did you mean addition?"),
        ({"tasks": ["addition:"]}, "'addition:' names no level"),
        ({"tasks": [""]}, "no task is named"),
        ({"eval_tasks": ["addition:3-2"]}, "'addition:3-2' names no level"),
        ({"rewards": {"acuracy": 1.0}}, "there is no reward part 'acuracy'; did you mean accuracy?"),
        ({"rewards": {}}, "no reward part has a weight"),
        ({"rewards": {"accuracy": 0.0}}, "no reward part has a weight"),
        ({"rewards": {"accuracy": float("nan")}}, "rewards.accuracy = nan"),
        ({"algorithm": "ppo"}, "algorithm = 'ppo'"),
        ({"group_size": 1}, "group_size = 1"),
        ({"temperature": 0}, "temperature = 0"),
        ({"temperature": 5000.0}, "temperature = 5000.0"),
        ({"lr": "fast"}, "lr = 'fast'"),
        ({"beta": -0.1}, "beta = -0.1"),
        ({"clip_high": 0.0}, "clip_high = 0.0"),
        ({"grup_size": 4}, "unknown setting grup_size; did you mean group_size?"),
        ({"model": ...}, "model is missing"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_that_names_it(given, says):
    with pytest.raises(UserError) as caught:
        read(**given)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_other_projects_names_mean_the_same_here():
    given = {"learning_rate": 1e-5, "num_generations": 4, "max_completion_length": 99, "loss_type": "dapo"}
    settings = read(**given, max_steps=7, steps=...)
    assert (settings.lr, settings.group_size, settings.max_tokens) == (1e-5, 4, 99)
    assert (settings.algorithm, settings.steps) == ("dapo", 7)
    assert set(TRL_NAMES.values()) <= set(GRPOSettings.model_fields)


def test_settings_survive_the_run_folder():
    settings = read(rewards={"accuracy": 0.9, "overlong": 0.1}, clip_high=0.3, minutes=5.0)
    assert settings_from(GRPOSettings, settings.model_dump(mode="json"), "run.json") == settings


def test_the_names_of_the_setting_are_the_registrys():
    for name in ALGORITHMS:
        assert read(algorithm=name).algorithm == name
