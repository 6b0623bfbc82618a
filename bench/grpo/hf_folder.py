"""A Hugging Face folder out of a GGUF file, made by transformers itself: `python hf_folder.py FILE.gguf FOLDER`.

Runs in the peers' venv. transformers 5.23 cannot save a model it loaded from GGUF, so the weights move to a fresh one.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def make_hf_folder(gguf: Path, folder: Path) -> None:
    """`folder` gets fp32 weights, the configuration and the tokenizer; last of all a file `complete`."""
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    del loaded.config.quantization_config  # it names GGUF, and the fresh weights are plain
    fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    (folder / "complete").touch()


if __name__ == "__main__":
    make_hf_folder(Path(sys.argv[1]), Path(sys.argv[2]))
