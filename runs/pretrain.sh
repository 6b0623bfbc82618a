#!/usr/bin/env bash
# From files of text to a model that answers, on two cores: runs/pretrain.sh CONVERSATIONS FILES...
# TOKENS (4e6) are seen in all. CONVERSATIONS are JSON lines as in docs/train.md; FILES are text, JSON lines, Parquet
# or folders of code.
# Whatever is done is not done again, and what was stopped goes on. Left in OUT: a Hugging Face folder and a GGUF.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
conversations=$1
shift
run=${OUT:-runs/pretrain}
mkdir -p "$run"

go_on() { # VERB FOLDER WORDS...: begins the run, or goes on with it
  if [ -e "$2/run.json" ]; then smallpress resume "$2"; else smallpress "$1" "${@:3}" --out "$2"; fi
}

[ -e "$run/corpus" ] || smallpress corpus "$@" --out "$run/corpus" --vocab 4096 --not-in "$conversations"
go_on pretrain "$run/base" recipes/pretrain.toml --corpus "$run/corpus" --tokens "${TOKENS:-4e6}" --seed "${SEED:-0}"
go_on sft "$run/chat" --model "$run/base/model" --data "$conversations" --epochs "${EPOCHS:-3}" --set lr=5e-4 --set max_tokens=512
smallpress convert "$run/chat/model" "$run/chat.gguf" --to bf16
echo "talk     smallpress run '$run/chat/model'"
