"""Every recipe is read by its verb; names of other trainers are understood."""

from pathlib import Path

import pytest

from smallpress.run.settings import load_settings, settings_from
from smallpress.train.distill_settings import DistillSettings
from smallpress.train.settings import SFTSettings

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize(
    ("name", "cls"), [("sft", SFTSettings), ("lora", SFTSettings), ("dpo", SFTSettings), ("distill", DistillSettings)]
)
def test_the_recipes_are_read(name, cls):
    settings = load_settings(cls, RECIPES / f"{name}.toml", ["epochs=3"])
    assert settings.epochs == 3 and (settings.lora is not None) == (name == "lora")


def test_names_of_other_trainers_and_a_single_file_are_understood():
    given = {"model": "m", "data": "a.jsonl", "learning_rate": 1e-3, "max_length": 99, "gradient_checkpointing": True}
    settings = settings_from(SFTSettings, given, "recipe")
    assert (settings.data, settings.lr, settings.max_tokens, settings.recompute) == (("a.jsonl",), 1e-3, 99, True)


def test_the_answers_of_a_teacher_are_learned_as_the_recipe_says():
    settings = load_settings(DistillSettings, RECIPES / "distill.toml", ["lora.rank=4"]).sft("d.jsonl")
    assert (settings.lr, settings.lora.rank, settings.data, settings.max_tokens) == (1e-4, 4, ("d.jsonl",), 2048)
