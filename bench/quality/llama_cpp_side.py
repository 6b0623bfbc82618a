"""llama.cpp's logits for lines of token ids: `llama_cpp_side.py MODEL.gguf N_THREADS WINDOW FILE [wide]`.

Each line of JSON on stdin is a window of ids; its logits, fp32 [tokens, vocabulary], are written to FILE, then a line
is answered. With `wide`, keys and values are fp32 and weights stay in the file's own layout: for a processor with AMX
llama.cpp lays them out anew, and then has no product for the three-dimensional ones of latent attention.
"""

import json
import sys

import llama_cpp
import numpy as np


def keep_layout() -> None:
    given = llama_cpp.llama_cpp.llama_model_default_params

    def params():
        made = given()
        made.use_extra_bufts = False
        return made

    llama_cpp.llama_cpp.llama_model_default_params = params


def main() -> None:
    path, n_threads, window, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if "wide" in sys.argv[5:]:
        keep_layout()
    kept = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32} if "wide" in sys.argv[5:] else {}
    model = llama_cpp.Llama(
        path,
        n_ctx=window,
        n_batch=window,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        logits_all=True,
        verbose=False,
        **kept,
    )
    for line in sys.stdin:
        ids = json.loads(line)
        model.reset()
        model.eval(ids)
        np.asarray(model.scores[: len(ids)], dtype=np.float32).tofile(file)
        print("done", flush=True)


if __name__ == "__main__":
    main()
