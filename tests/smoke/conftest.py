"""A model that knows nothing but answers: random weights, and a vocabulary in which whole answers are single tokens."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smallpress.model.shapes import tensor_shapes
from smallpress.tokenizer.prompts import R1_ZERO
from smallpress.weights.names import HF, foreign_names
from smallpress.weights.names_hf import config_from_hf
from smallpress.weights.safetensors_writer import write_safetensors

ANSWERS = [f"<answer>{number}</answer>" for number in range(1, 25)]
CHATML = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
N_IDS = 512


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A Hugging Face folder, 32 wide and 2 layers deep. One token in twenty is an answer, so that groups disagree."""
    folder = tmp_path_factory.mktemp("models") / "tiny model 模型"
    folder.mkdir()
    write_tokenizer(folder)
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": N_IDS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    config = config_from_hf(settings, (), "here")
    names, shapes, draw = foreign_names(config, HF), tensor_shapes(config), np.random.default_rng(0)
    tensors = {names[ours]: draw.normal(0.0, 0.1, shape).astype(np.float32) for ours, shape in shapes.items()}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder


def write_tokenizer(folder: Path) -> None:
    """Bytes, the commonest pieces of the R1-Zero prompt, two control tokens and the answers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    controls, alphabet = ["<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    size = N_IDS - len(ANSWERS)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=controls, initial_alphabet=alphabet)
    library.train_from_iterator([R1_ZERO] * 9 + ["What is the next number of 3 words?"] * 5, trainer)
    library.add_tokens([AddedToken(answer, normalized=False) for answer in ANSWERS])
    library.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


RECIPE = """
tasks = ["chained_sum:2", "product:1", "letters:1"]
eval_tasks = ["product:1", "letters:1"]
form = "r1_zero"
steps = 4
prompts_per_step = 3
group_size = 4
max_tokens = 10
lr = 0.01
dtype = "float32"
micro_batch_tokens = 512
rewards = { accuracy = 1.0, answer_tag = 0.3, overlong = 0.1 }
eval_every = 2
eval_n = 4
eval_max_tokens = 8
save_every = 2
samples_every = 2
"""


@pytest.fixture(scope="session")
def tiny_recipe(tiny_model, tmp_path_factory) -> Path:
    """Four steps of a fraction of a second on the tiny model, evaluated and saved at every second one."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(f"model = {json.dumps(str(tiny_model), ensure_ascii=False)}\n{RECIPE}", encoding="utf-8")
    return path


KILLED = """
import os, signal, sys
from smallpress.cli.main import run
from smallpress.optim.master import MasterWeights
step, left = MasterWeights.step, [3]
def dying(*args):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    step(*args)
MasterWeights.step = dying
run(sys.argv[1:])
"""


@pytest.fixture(scope="session")
def killed_in_fourth_step() -> Callable[[list[str]], subprocess.CompletedProcess]:
    """Runs the command line in a process that is killed when the optimizer would step for the fourth time."""
    return lambda words: subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
