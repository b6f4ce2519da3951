#!/usr/bin/env bash
# GPT-2 124M on OpenWebText, as nanoGPT trains it: docs/howto/recipes.md
#   launch/recipes/openwebtext.sh prepare && launch/recipes/openwebtext.sh train
# Further flags go to the command of the step. SOURCE, TOKENIZER, CORPUS and WORKDIR replace the values below.
set -euo pipefail
gptjax=("${PYTHON:-python}" -m gptjax)
text=hf://datasets/Skylion007/openwebtext@79d93d786212f7344586290adb811d4ae6a1762c/plain_text
source=${SOURCE:-"parquet:$text/*.parquet"}
corpus=${CORPUS:-corpora/openwebtext-gpt2}
workdir=${WORKDIR:-runs/openwebtext}

step=${1:-}
[[ $# -gt 0 ]] && shift
case $step in
  prepare)
    exec "${gptjax[@]}" prepare --source="$source" --tokenizer="${TOKENIZER:-gpt2}" --workers=16 \
      --on_error=skip --out="$corpus" "$@"
    ;;
  plan) exec "${gptjax[@]}" plan --config=gpt2_small --topology=a100:8 "$@" ;;
  train) exec "${gptjax[@]}" pretrain --config=gpt2_small --config.data.corpus="$corpus" --workdir="$workdir" "$@" ;;
  report) exec "${gptjax[@]}" report --workdir="$workdir" "$@" ;;
  *)
    echo "usage: $0 prepare | plan | train | report [FLAGS]" >&2
    exit 2
    ;;
esac
