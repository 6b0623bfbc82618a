"""The other side of `smallpress bench --peer llama.cpp`: a process that answers one line of JSON with another.

It imports nothing of smallpress, so that any Python that has llama-cpp-python can run it:

    python llama_cpp_side.py MODEL.gguf N_THREADS N_SEQUENCES CONTEXT

Requests: {"decode": sequences, "tokens": n, "seed": s} and {"prefill": tokens, "seed": s}; answers: {"rate": tokens a
second}; at the end of its input it says {"memory": peak bytes}. Tokens are drawn, not sampled from the logits: the time
of a sampler is not llama.cpp's.
"""

import ctypes
import json
import random
import resource
import sys
import time

import llama_cpp as llama

SHORT = 16


def silent(level: int, text: bytes, user_data: object) -> None:
    """Its log would drown what is measured."""


LOGGER = llama.llama_log_callback(silent)


class Side:
    def __init__(self, path: str, n_threads: int, n_sequences: int, context: int):
        llama.llama_log_set(LOGGER, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), model_params)
        assert self.model, f"llama.cpp cannot load {path}"
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_sequences * context, 2048, 512
        params.n_seq_max = n_sequences
        params.n_threads = params.n_threads_batch = n_threads
        self.context = llama.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp cannot make a context"
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.batch = llama.llama_batch_init(2048, 0, 1)

    def run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One call on rows of (token, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        code = llama.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode gave {code}"

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def decode(self, n_running: int, n_tokens: int, dice: random.Random) -> float:
        self.clear()
        rows = []
        for sequence in range(n_running):
            rows += [(self.any(dice), at, sequence, at == SHORT - 1) for at in range(SHORT)]
        for begin in range(0, len(rows), 2048):
            self.run(rows[begin : begin + 2048])
        turns = [[(self.any(dice), SHORT + t, s, True) for s in range(n_running)] for t in range(n_tokens)]
        began = time.perf_counter()
        for rows in turns:
            self.run(rows)
        return n_running * n_tokens / (time.perf_counter() - began)

    def prefill(self, n_prompt: int, dice: random.Random) -> float:
        self.clear()
        rows = [(self.any(dice), at, 0, at == n_prompt - 1) for at in range(n_prompt)]
        began = time.perf_counter()
        for begin in range(0, n_prompt, 2048):
            self.run(rows[begin : begin + 2048])
        return n_prompt / (time.perf_counter() - began)

    def any(self, dice: random.Random) -> int:
        return dice.randrange(self.vocab_size)


def main() -> None:
    side = Side(sys.argv[1], *map(int, sys.argv[2:]))
    print(json.dumps({"version": llama.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        dice = random.Random(asked["seed"])
        if "decode" in asked:
            rate = side.decode(asked["decode"], asked["tokens"], dice)
        else:
            rate = side.prefill(asked["prefill"], dice)
        print(json.dumps({"rate": rate}), flush=True)
    print(json.dumps({"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
