"""smallpress plan, from the words to the exit code."""

import json
import subprocess
import sys

import pytest

from smallpress.cli.main import run


def told(capsys, *words: str) -> dict:
    assert run(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_call_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from smallpress.cli.main import run; "
        "sys.exit(run(['plan', 'run', 'qwen2.5-1.5b', '--machine', 'pi-5']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "decode tokens a second" in done.stdout and "waits for" in done.stdout


def test_every_activity_is_planned(capsys, tmp_path):
    recipe = tmp_path / "sft.toml"
    recipe.write_text("steps = 10\nseq_len = 512\nsomething_else = 3\n")
    small = "dim=256,layers=4"
    for words in (
        ["run", small],
        ["serve", small, "--parallel", "8"],
        ["pretrain", small, "--tokens", "1e8"],
        ["sft", small, str(recipe)],
        ["distill", small, "--teacher", "7B", "--tokens", "1e6"],
        ["grpo", small, "--set", "group_size=16"],
        ["pretrain", "7B", "--chips", "64", "--layout", "pipeline=4", "--tokens", "1e9", "--batch-tokens", "1000000"],
        ["serve", "deepseek-v3", "--chips", "32", "--parallel", "640", "--dtype", "fp8"],
    ):
        machine = "h200" if "--chips" in words else "rtx-4090"
        plan = told(capsys, *words, "--machine", machine)
        assert plan["fits"] and plan["seconds"] > 0 and plan["bottleneck"] and plan["dollars"] > 0, words


def test_what_cannot_fit_ends_with_2_and_three_remedies(capsys):
    assert run(["plan", "run", "70B", "--machine", "pi-5"]) == 2
    out, err = capsys.readouterr()
    assert "does not fit" in out and err.count(" or ") >= 2


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "what is to be planned"),
        (["run", "7B", "--machine", "pi-6"], "did you mean pi-5?"),
        (["pretrain", "7B", "--machine", "h100"], "how many tokens"),
        (["run", "7B", "--machine", "h100", "--price", "-1"], "--price is -1"),
        (["run", "nothing/here", "--machine", "h100"], "nothing/here is not on this machine"),
        (
            ["pretrain", "7B", "--machine", "h100", "--chips", "9", "--layout", "pipeline=2", "--tokens", "1"],
            "multiple",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(words, says, capsys):
    assert run(["plan", *words]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_recipe_a_price_and_a_picture(capsys, tmp_path):
    picture = tmp_path / "plan.svg"
    words = ["grpo", "recipes/demo.toml", "--machine", "rtx-3060", "--price", "36", "--plot", str(picture)]
    assert run(["plan", *words]) == 0
    assert "dollars" in capsys.readouterr().out and "optimizer state" in picture.read_text()


def test_the_catalogue_is_shown_with_its_sources(capsys):
    assert run(["plan", "--list"]) == 0
    out = capsys.readouterr().out
    assert "h800" in out and "arXiv 2412.19437" in out and "deepseek-v3" in out


V3_IN_SMALL = """
tokens = 4e6
seq_len = 512
batch_tokens = 8192
arithmetic = "float32"
[shape]
family = "deepseek_v3"
vocab_size = 4096
dim = 192
n_layers = 4
max_seq_len = 512
mtp = { n_modules = 1 }
[shape.attention]
kind = "mla"
n_heads = 4
kv_lora_rank = 64
qk_nope_head_dim = 32
qk_rope_head_dim = 16
v_head_dim = 32
[shape.ffn]
kind = "moe"
n_routed_experts = 16
n_active_experts = 2
moe_inter_dim = 128
dense_layers = [0]
dense = { inter_dim = 384 }
"""


def test_a_recipe_with_the_shape_of_a_sparse_model_is_planned_from_it(tmp_path, capsys):
    recipe = tmp_path / "pretrain.toml"
    recipe.write_text(V3_IN_SMALL)
    assert run(["plan", "pretrain", str(recipe), "--machine", "pi-5", "--json"]) == 0
    with_mtp = json.loads(capsys.readouterr().out)
    recipe.write_text(V3_IN_SMALL.replace("mtp = { n_modules = 1 }", ""))
    assert run(["plan", "pretrain", str(recipe), "--machine", "pi-5", "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    assert with_mtp["fits"] and with_mtp["figures"]["steps"] == 4e6 / 8192
    assert 1.2 < with_mtp["seconds"] / without["seconds"] < 1.6  # a layer of five, and the head once more
    assert with_mtp["figures"]["weights trained"] > without["figures"]["weights trained"]
