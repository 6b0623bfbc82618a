#!/usr/bin/env bash
# From an open model to a reasoner: pull, measure, train by reinforcement learning, measure again.
# MINUTES (15) holds all of it but the download. A run that was stopped goes on; a finished one is moved aside.
set -euo pipefail
run=${OUT:-runs/demo}
run=${run%/}

smallpress pull smollm2-135m
if [ -e "$run/result.json" ]; then mv "$run" "$run-$(date -r "$run/result.json" +%Y%m%d-%H%M%S)"; fi
if [ -e "$run/run.json" ]; then
  smallpress resume "$run"
else
  smallpress grpo recipes/demo.toml --minutes "${MINUTES:-15}" --seed "${SEED:-0}" --out "$run"
fi
echo "talk     smallpress run '$run/model' --template r1_zero_example 'What is 7 + 5 + 9?'"
