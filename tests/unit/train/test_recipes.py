"""The recipes that pretrain."""

from dataclasses import asdict

import pytest

from smallpress.model.sizes import multiply_adds, parameters
from smallpress.run.settings import load_settings
from smallpress.train.pretrain_settings import PretrainSettings


def recipe(root, name: str, vocab_size: int = 4096) -> PretrainSettings:
    return load_settings(PretrainSettings, root / f"recipes/{name}.toml", [f"shape.vocab_size={vocab_size}"])


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest):
    return request.config.rootpath


def test_the_dense_twin_multiplies_as_much_and_learns_alike(root):
    sparse, dense = recipe(root, "pretrain"), recipe(root, "pretrain_dense")
    a, b = (multiply_adds(settings.shape, n_context=256, absorbed=False) for settings in (sparse, dense))
    assert b == pytest.approx(a, rel=0.005)
    more = parameters(sparse.shape).total / parameters(dense.shape).total
    assert more > 2 and parameters(dense.shape).active == pytest.approx(parameters(sparse.shape).active, rel=0.005)
    # A dense model has no experts to balance.
    assert sparse.model_copy(update={"shape": dense.shape, "balance": dense.balance}) == dense
    assert asdict(parameters(sparse.shape))["mtp"] > 0


def test_the_sizes_a_recipe_tells_are_its_models(root):
    sizes = parameters(recipe(root, "pretrain").shape)
    assert f"Of {(sizes.total + sizes.mtp) / 1e6:.1f} million weights a token meets {sizes.active / 1e6:.1f}" in (
        root / "recipes/pretrain.toml"
    ).read_text(encoding="utf-8")


def test_deepseek_llm_is_dense_and_falls_in_steps(root):
    settings = recipe(root, "deepseek_llm")
    assert settings.lr_shape == "multi_step" and settings.shape.family == "llama"
