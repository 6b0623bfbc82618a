"""llama.cpp's own server, run by the peers' interpreter: MODEL PORT N_PARALLEL CONTEXT N_THREADS.

The wheel `xllamacpp` holds llama-server itself, with continuous batching. Where it is not there, the server of
`llama-cpp-python` answers, one request after another.
"""

import os
import signal
import sys
import threading


def main() -> None:
    model, (port, n_parallel, context, n_threads) = sys.argv[1], map(int, sys.argv[2:6])
    try:
        import xllamacpp
    except ModuleNotFoundError:
        options = {"model": model, "host": "127.0.0.1", "port": port, "n_ctx": context, "n_threads": n_threads}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        os.execv(sys.executable, [sys.executable, "-m", "llama_cpp.server", *words])
    params = xllamacpp.CommonParams()
    params.model.path, params.hostnames, params.port = model, ["127.0.0.1"], port
    params.n_parallel, params.n_ctx, params.cont_batching = n_parallel, n_parallel * context, True
    params.n_threads_http = 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.warmup, params.verbosity = True, 1  # of its log, what goes wrong
    print(f"llama.cpp {xllamacpp.BUILD_INFO}, {xllamacpp.get_system_info()}", file=sys.stderr, flush=True)
    server = xllamacpp.Server(params)  # listens as long as it is held
    assert server
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    os._exit(0)  # the library's own end waits for its threads


main()
