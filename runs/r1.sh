#!/usr/bin/env bash
# The four stages of DeepSeek-R1, up to MINUTES (150) minutes on two cores. Stopped in whatever stage, it goes on.
set -euo pipefail
run=${OUT:-runs/r1}

smallpress pull smollm2-135m
if [ -e "$run/run.json" ]; then
  smallpress resume "$run"
else
  smallpress r1 recipes/r1.toml --minutes "${MINUTES:-150}" --seed "${SEED:-0}" --out "$run"
fi
