import json
from dataclasses import dataclass, field

import pytest

from smallpress.engine.request import Completion, Piece, Request
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer

END = "<|im_end|>"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A token for each byte, and ChatML's marks."""
    folder = tmp_path_factory.mktemp("bytes")
    vocab = {letter: i for i, letter in enumerate(byte_of_letter())} | {"<|im_start|>": 256, END: 257}
    added = [{"id": vocab[mark], "content": mark, "special": True} for mark in ("<|im_start|>", END)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    definition = {
        "version": "1.0",
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "added_tokens": [
            {**token, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False} for token in added
        ],
    }
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "chat_template": TEMPLATE}))
    return Tokenizer.from_folder(folder)


@dataclass
class FakeEngine:
    """Says `says(prompt text, seed)`; one whole completion a step, the last submitted first."""

    tokenizer: Tokenizer
    says: object
    waiting: list[tuple[int, Request]] = field(default_factory=list)
    n_submitted: int = 0
    largest_queue: int = 0
    cancelled: list[int] = field(default_factory=list)

    def submit(self, request):
        self.n_submitted += 1
        self.waiting.append((self.n_submitted, request))
        self.largest_queue = max(self.largest_queue, len(self.waiting))
        return self.n_submitted

    def step(self):
        request_id, request = self.waiting.pop()
        prompt = self.tokenizer.decode(request.prompt_ids, skip_special=False)
        said = self.tokenizer.encode(self.says(prompt, request.params.seed))
        ids, reason = [], "length"
        for id in [*said, self.tokenizer.eos_id][: request.params.max_tokens]:
            ids.append(id)
            if request.stopper.push(id) or id in request.stop_ids:
                reason = "stop"
                break
        completion = Completion(tuple(ids), (0.0,) * len(ids), reason, len(request.prompt_ids), 0)
        return [Piece(request_id, ids[-1], 0.0, completion)]

    def cancel(self, request_id):
        self.cancelled.append(request_id)
        self.waiting = [one for one in self.waiting if one[0] != request_id]


@pytest.fixture
def engine_saying(tokenizer):
    return lambda says: FakeEngine(tokenizer, says)
