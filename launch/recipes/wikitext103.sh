#!/usr/bin/env bash
# GPT-2 124M on WikiText-103: docs/howto/recipes.md
#   for step in download prepare train score; do launch/recipes/wikitext103.sh $step || break; done
# Further flags go to the command of the step. TEXT, TOKENIZER, CORPUS and WORKDIR replace the values below.
set -euo pipefail
gptjax=("${PYTHON:-python}" -m gptjax)
text=${TEXT:-wikitext-103-raw} # wiki.train.raw, wiki.valid.raw and wiki.test.raw
corpus=${CORPUS:-corpora/wikitext103-gpt2}
workdir=${WORKDIR:-runs/wikitext103}
parquet=${PARQUET:-'hf://datasets/Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3/wikitext-103-raw-v1'}

step=${1:-}
[[ $# -gt 0 ]] && shift
case $step in
  # The files there have a row for each line of the text.
  download)
    exec "${PYTHON:-python}" - "$parquet" "$text" <<'END'
import os
import sys

import fsspec
import pyarrow.parquet

parquet, text = sys.argv[1:]
files, folder = fsspec.core.url_to_fs(parquet)
os.makedirs(text, exist_ok=True)
for split, name in (('train', 'train'), ('validation', 'valid'), ('test', 'test')):
  parts, target = sorted(files.glob(f'{folder}/{split}-*.parquet')), f'{text}/wiki.{name}.raw'
  assert parts, f'{parquet} has no files {split}-*.parquet'
  with open(f'{target}.new', 'w', encoding='utf-8', newline='') as out:
    for part in parts:
      with files.open(part) as file:
        out.writelines(pyarrow.parquet.read_table(file, columns=['text'])['text'].to_pylist())
  os.replace(f'{target}.new', target)
  print(target)
END
    ;;
  prepare)
    exec "${gptjax[@]}" prepare --source="text:$text/wiki.train.raw" --tokenizer="${TOKENIZER:-gpt2}" \
      --validation_fraction=0.005 --out="$corpus" "$@"
    ;;
  plan) exec "${gptjax[@]}" plan --config=gpt2_wikitext103 --config.train.steps=36000 --topology=a100:1 "$@" ;;
  train)
    exec "${gptjax[@]}" pretrain --config=gpt2_wikitext103 --config.data.corpus="$corpus" --workdir="$workdir" "$@"
    ;;
  # The validation set, in consecutive windows, as llm.c's issue 340 measures it.
  score) exec "${gptjax[@]}" score --from="$workdir" --stride=1024 "$text/wiki.valid.raw" "$@" ;;
  report) exec "${gptjax[@]}" report --workdir="$workdir" "$@" ;;
  *)
    echo "usage: $0 download | prepare | plan | train | score | report [FLAGS]" >&2
    exit 2
    ;;
esac
