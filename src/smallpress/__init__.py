"""A printing press for reasoning models: make, measure and run them on hardware you own.

The rooms, lowest first; a room imports only from lower layers:

    0  run        what every stage shares: run folder, settings, metrics, errors, seeds
    1  corpus     documents in: text, code and conversations; shards of tokens, rows out
    1  tokenizer  text <-> ids: tokenizers, chat templates, streamed decoding, thinking
    1  tasks      questions a program can check, and the checkers
    1  lowbit     number formats: blocks of low-bit codes with a scale
    2  model      ids in, logits out
    2  benchmarks published benchmarks: how each is read, asked and judged
    3  optim      gradients in, better weights out
    3  weights    model references, GGUF and safetensors, the one table of foreign names
    4  engine     requests in, ids out: scheduler, pages, sampler, runners
    4  parallel   one model trained by many processes: shards, experts, pipelines, slow links
    5  train      supervised training: fine-tuning, adapters, preferences, distillation
    5  rl         rollout, reward, advantage, loss: GRPO
    5  evaluate   held-out questions, answers, intervals, reports
    5  server     an OpenAI-shaped API, thinking kept apart, metering, a chat page
    6  planner    what fits, how long, how much money
    6  ladder     the four stages of DeepSeek-R1 as one run: their settings, what is measured, the report
    7  cli        the command line: verb -> function
"""

__version__ = "0.1.0"
