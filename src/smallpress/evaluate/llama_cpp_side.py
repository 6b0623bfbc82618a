"""The other side of `smallpress bench --peer llama.cpp`: a process that answers one line of JSON with another.

It imports nothing of smallpress, so that any Python that has llama-cpp-python can run it:

    python llama_cpp_side.py MODEL.gguf N_THREADS

Requests: {"sequences": n, "context": tokens of each, "prompt": tokens, "new": tokens, "seed": s}; with new 0 the prompt
is timed, else what comes after it. Answers: {"rate": tokens a second}; at the end of its input it says {"memory": peak
bytes}. Tokens are drawn, not sampled from the logits: the time of a sampler is not llama.cpp's.
"""

import ctypes
import json
import random
import resource
import sys
import time
from typing import Any

import llama_cpp as llama

MOST_ROWS = 2048  # of a call

# Its flash attention makes batches and prompts faster on a processor, and tokens after a long context slower: on two
# cores 803 instead of 520 tokens a second of a prompt of 512, but 12 instead of 37 after 4,096.
LONG = 256
AUTO, OFF = -1, 0


def silent(level: int, text: bytes, user_data: object) -> None:
    """Its log would drown what is measured."""


LOGGER = llama.llama_log_callback(silent)


class Side:
    def __init__(self, path: str, n_threads: int):
        llama.llama_log_set(LOGGER, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), model_params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.n_threads = n_threads
        self.room = 0, 0, AUTO
        self.context: Any = None
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.batch = llama.llama_batch_init(MOST_ROWS, 0, 1)

    def make_room(self, n_sequences: int, context: int, flash: int) -> None:
        """A context for so many sequences and tokens, no more: room that is not used would slow it down."""
        if self.room == (n_sequences, context, flash):
            return
        if self.context:
            llama.llama_free(self.context)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_sequences * context, MOST_ROWS, 512
        params.n_seq_max = n_sequences
        params.flash_attn_type = flash
        params.n_threads = params.n_threads_batch = self.n_threads
        self.context = llama.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp cannot make a context"
        self.room = n_sequences, context, flash

    def run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One call on rows of (token, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        code = llama.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode gave {code}"

    def rate(self, sequences: int, prompt: int, new: int, dice: random.Random) -> float:
        """Tokens a second."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        rows = [(self.any(dice), at, s, at == prompt - 1) for s in range(sequences) for at in range(prompt)]
        turns = [[(self.any(dice), prompt + t, s, True) for s in range(sequences)] for t in range(new)]
        began = time.perf_counter()
        for first in range(0, len(rows), MOST_ROWS):
            self.run(rows[first : first + MOST_ROWS])
        if new:
            began = time.perf_counter()
        for turn in turns:
            self.run(turn)
        return sequences * (new or prompt) / (time.perf_counter() - began)

    def any(self, dice: random.Random) -> int:
        return dice.randrange(self.vocab_size)


def main() -> None:
    side = Side(sys.argv[1], *map(int, sys.argv[2:]))
    print(json.dumps({"version": llama.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        dice = random.Random(asked["seed"])
        flash = OFF if asked["new"] and asked["prompt"] > LONG else AUTO
        side.make_room(asked["sequences"], asked["context"], flash)
        rate = side.rate(asked["sequences"], asked["prompt"], asked["new"], dice)
        print(json.dumps({"rate": rate}), flush=True)
    print(json.dumps({"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
