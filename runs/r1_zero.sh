#!/usr/bin/env bash
# R1-Zero on six families of problems at once, up to MINUTES (90) minutes on two cores.
set -euo pipefail
run=${OUT:-runs/r1_zero}

smallpress pull smollm2-135m
if [ -e "$run/run.json" ]; then
  smallpress resume "$run"
else
  smallpress grpo recipes/r1_zero.toml --minutes "${MINUTES:-90}" --seed "${SEED:-0}" --out "$run"
fi
