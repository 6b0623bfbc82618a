from typing import Literal

import pytest
from pydantic import Field

from smallpress.run.errors import UserError
from smallpress.run.settings import Settings, load_settings, settings_from


class Sampling(Settings):
    temperature: float = Field(0.8, ge=0)
    max_tokens: int = Field(256, gt=0)


class Centered(Settings):
    kind: Literal["centered"] = "centered"


class Clipped(Settings):
    kind: Literal["clipped"] = "clipped"
    clip_low: float = 0.2


class Recipe(Settings):
    model: str
    steps: int = 60
    seeds: tuple[int, ...] = (0,)
    sampling: Sampling = Sampling()
    loss: Centered | Clipped = Field(Centered(), discriminator="kind")


def recipe(tmp_path, text, *overrides):
    (tmp_path / "a.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(Recipe, tmp_path / "a.toml", overrides)


def test_overrides_beat_the_recipe_which_beats_the_defaults(tmp_path):
    found = recipe(tmp_path, "model='m'\nsteps=5\n[sampling]\ntemperature=0.5\n", "steps=7", "sampling.max_tokens=9")
    assert (found.model, found.steps, found.seeds) == ("m", 7, (0,))
    assert (found.sampling.temperature, found.sampling.max_tokens) == (0.5, 9)


def test_values_of_overrides_are_toml_and_bare_words_are_strings():
    found = load_settings(
        Recipe, None, ["model=smollm2-135m", "seeds=[1, 2]", "loss.kind=clipped", "loss.clip_low=0.1"]
    )
    assert found == Recipe(model="smollm2-135m", seeds=(1, 2), loss=Clipped(clip_low=0.1))
    assert load_settings(Recipe, None, ['model="a=b c"']).model == "a=b c"
    assert load_settings(Recipe, None, ["model=a\nsteps=3"]).model == "a\nsteps=3"
    assert load_settings(Recipe, None, ["model=" + "[" * 5000]).model == "[" * 5000


def test_settings_survive_the_way_through_json():
    found = load_settings(Recipe, None, ["model=m", "loss.kind=clipped"])
    assert settings_from(Recipe, found.model_dump(mode="json"), "run.json") == found


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe(model="m").steps = 3


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=m", "stepz=3"], "settings: unknown setting stepz; did you mean steps?"),
        (
            ["sampling.temprature=1"],
            "unknown setting sampling.temprature (and 1 more); did you mean sampling.temperature?",
        ),
        (["model=m", "qqq=1"], "unknown setting qqq; known: loss.clip_low, loss.kind, model, sampling."),
        (["steps=3"], "settings: model is missing; set it, for example --set model=..."),
        (["model=m", "steps=soon"], "settings: steps = 'soon'; input should be a valid integer"),
        (["model=m", "sampling.max_tokens=0"], "sampling.max_tokens = 0; input should be greater than 0"),
        (["model=m", "sampling.temperature=nan"], "sampling.temperature = nan; input should be a finite number"),
        (["model=m", "steps"], "override 'steps' is not of the form key.sub=value; for example rl.group_size=8"),
        (["model=m", "=3"], "override '=3' is not of the form"),
        (["model=m", "a..b=3"], "override 'a..b=3' is not of the form"),
        (["model=m", "steps=3", "steps.more=4"], "override 'steps.more=4': steps is 3, not a table"),
        (["model=m", "seeds=["], "seeds = '['; input should be a valid tuple"),
        (["model=m", "loss.kind=other"], "settings: loss = {'kind': 'other'}"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_with_the_key_and_a_remedy(overrides, told):
    with pytest.raises(UserError) as caught:
        load_settings(Recipe, None, overrides)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model=", "a.toml: Invalid value (at end of document); mend the recipe's TOML"),
        (b"model='\xff'", "a.toml: byte 7 is not UTF-8; save the recipe as UTF-8"),
        ("model='m'\nsteps='x'", "a.toml: steps = 'x'; input should be a valid integer"),
        ("a=" + "[" * 3000, "a.toml: "),
    ],
)
def test_a_broken_recipe_is_one_line_with_its_name(tmp_path, text, told):
    with pytest.raises(UserError) as caught:
        recipe(tmp_path, text)
    assert told in str(caught.value)


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path):
    assert recipe(tmp_path, b"\xef\xbb\xbfmodel='m'\r\nsteps=4\r\n").steps == 4


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match=r"reading .*none\.toml: no such file or directory; check the path"):
        load_settings(Recipe, tmp_path / "none.toml")
