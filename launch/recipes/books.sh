#!/usr/bin/env bash
# GPT-1 on books: docs/howto/recipes.md
#   SOURCE='text:books/*.txt' launch/recipes/books.sh prepare && launch/recipes/books.sh train
# Without SOURCE, the English books of Project Gutenberg: BooksCorpus, the paper's text, is not distributed any more.
# Further flags go to the command of the step. SOURCE, TOKENIZER, CORPUS and WORKDIR replace the values below.
set -euo pipefail
gptjax=("${PYTHON:-python}" -m gptjax)
text=hf://datasets/manu/project_gutenberg@164853d214065df26a630ee1ab91a0c39e461caf/data
source=${SOURCE:-"parquet:$text/en-*.parquet"}
corpus=${CORPUS:-corpora/books-gpt1}
workdir=${WORKDIR:-runs/books}

step=${1:-}
[[ $# -gt 0 ]] && shift
case $step in
  # gpt1:gpt1 is the folder gpt1 with encoder_bpe_40000.json and vocab_40000.bpe of openai/finetune-transformer-lm.
  prepare)
    exec "${gptjax[@]}" prepare --source="$source" --tokenizer="${TOKENIZER:-gpt1:gpt1}" --workers=16 \
      --on_error=skip --out="$corpus" "$@"
    ;;
  # 100 passes over 1.2 G tokens.
  plan) exec "${gptjax[@]}" plan --config=gpt1 --config.train.steps=3662110 --topology=a100:1 "$@" ;;
  train) exec "${gptjax[@]}" pretrain --config=gpt1 --config.data.corpus="$corpus" --workdir="$workdir" "$@" ;;
  report) exec "${gptjax[@]}" report --workdir="$workdir" "$@" ;;
  *)
    echo "usage: $0 prepare | plan | train | report [FLAGS]" >&2
    exit 2
    ;;
esac
