#!/usr/bin/env bash
# GPT-2 124M on 10 G tokens of FineWeb, as llm.c trains it: docs/howto/recipes.md
#   for step in download prepare train; do launch/recipes/fineweb.sh $step || break; done
# Further flags go to the command of the step. SHARDS, SOURCE, TOKENIZER, CORPUS and WORKDIR replace the values below.
set -euo pipefail
gptjax=("${PYTHON:-python}" -m gptjax)
shards=${SHARDS:-fineweb10B} # of llm.c: fineweb_train_*.bin and fineweb_val_*.bin
text=hf://datasets/HuggingFaceFW/fineweb@9bb295ddab0e05d785b879661af7260fed5140fc/sample/10BT
source=${SOURCE:-"parquet:$text/*.parquet"}
corpus=${CORPUS:-corpora/fineweb10B}
workdir=${WORKDIR:-runs/fineweb}

step=${1:-}
[[ $# -gt 0 ]] && shift
case $step in
  # The tokens that llm.c's dev/data/fineweb.py makes, as modded-nanogpt publishes them: 104 files, 21 GB.
  download)
    exec "${HF:-hf}" download kjj0/fineweb10B-gpt2 --repo-type dataset \
      --revision 889765ea1f903759787add96995d81171b632d0c --local-dir "$shards" "$@"
    ;;
  prepare) exec "${gptjax[@]}" adopt "llmc:$shards" --tokenizer="${TOKENIZER:-gpt2}" --out="$corpus" "$@" ;;
  # Instead of download and prepare: the text itself, in another order and with another validation split.
  prepare-text)
    exec "${gptjax[@]}" prepare --source="$source" --tokenizer="${TOKENIZER:-gpt2}" --workers=16 \
      --validation_fraction=0.01 --on_error=skip --out="$corpus" "$@"
    ;;
  plan) exec "${gptjax[@]}" plan --config=gpt2_fineweb --topology=a100:8 "$@" ;;
  train) exec "${gptjax[@]}" pretrain --config=gpt2_fineweb --config.data.corpus="$corpus" --workdir="$workdir" "$@" ;;
  report) exec "${gptjax[@]}" report --workdir="$workdir" "$@" ;;
  *)
    echo "usage: $0 download | prepare | prepare-text | plan | train | report [FLAGS]" >&2
    exit 2
    ;;
esac
