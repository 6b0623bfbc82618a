"""A distilled model under the large one's name is said to be one; honest names are left alone."""

import json

import pytest

from smallpress.cli.ls import ls
from smallpress.weights.identity import misnamed
from smallpress.weights.load import open_model


@pytest.fixture
def distilled(tmp_path, tiny_gguf):
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_gguf(put={"general.name": "DeepSeek R1 Distill Llama 8B"}).build())
    return open_model(path)


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-R1", "./models/deepseek-r1.Q4_K_M.gguf", "DeepSeek_V3", "r1"])
def test_a_small_model_under_the_large_ones_name_is_said_to_be_one(distilled, name):
    said = misnamed(name, distilled)
    assert said is not None and "\n" not in said
    what = "the files hold a llama model of 1 layers, 'DeepSeek R1 Distill Llama 8B'"
    assert said == f"{name.split('/')[-1]} is not the model of 671 billion parameters: {what}"


@pytest.mark.parametrize(
    "name",
    ["DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1-0528-qwen3-8b", "smollm2-135m", "runs/r1-zero/model", "qwen2", "."],
)
def test_a_name_that_says_what_it_is_is_left_alone(distilled, name):
    assert misnamed(name, distilled) is None


def test_the_large_model_itself_may_have_its_name(distilled):
    distilled.config = distilled.config.model_copy(update={"family": "deepseek_v3", "n_layers": 61})
    assert misnamed("deepseek-ai/DeepSeek-R1", distilled) is None


def test_ls_says_so_of_a_stored_model(distilled, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path))
    for name in ("deepseek-ai/DeepSeek-R1", "org/honest"):
        folder = tmp_path / "models" / name.replace("/", "--")
        folder.mkdir(parents=True)
        (folder / "m.gguf").write_bytes(distilled.path.read_bytes())
        (folder / "source.json").write_text(json.dumps({"name": name, "model": "m.gguf", "source": "here"}))
    ls()
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "DeepSeek-R1 is not the model of 671 billion parameters" in said.err
    assert "org/honest" in said.out
