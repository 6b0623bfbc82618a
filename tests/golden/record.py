"""Writes smollm2.json anew: python tests/golden/record.py. What transformers says, greedily, in fp32."""

import json
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.load import open_model
from smallpress.weights.pull import pull

QUESTIONS = ("What is the capital of France?", "Write a haiku about the sea.", "用中文说你好。", "def fib(n):")
N_TOKENS = 48


def main() -> None:
    files = open_model(pull("smollm2-135m").path)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_hf_folder(Path(temporary) / "hf", WeightsOnDemand(files), files)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
    answers = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        said = model.generate(**prompt, do_sample=False, max_new_tokens=N_TOKENS)[0]
        with torch.no_grad():
            logprobs = model(said[None]).logits[0].log_softmax(-1)
        n = prompt["input_ids"].shape[1]
        chosen = logprobs[n - 1 : -1].gather(1, said[n:, None])[:, 0]
        answers.append(
            {
                "question": question,
                "prompt_ids": said[:n].tolist(),
                "ids": said[n:].tolist(),
                "text": tokenizer.decode(said[n:], skip_special_tokens=True),
                "logprobs": [round(value, 5) for value in chosen.tolist()],
            }
        )
    record = {"transformers": transformers.__version__, "torch": torch.__version__, "answers": answers}
    path = Path(__file__).with_name("smollm2.json")
    path.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
