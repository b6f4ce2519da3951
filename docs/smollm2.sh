#!/bin/bash
# The figures of SmolLM2-135M-Instruct in docs/results.md: zero-shot tasks, GPT-1's second stage on SST-2 and RTE in
# three ways, and a run continued from the weights. Started again it goes on where it was stopped.
#
#   docs/smollm2.sh [FOLDER FOR THE RUNS] [FOLDER OF THE DATA]
set -e
runs=${1:-runs/smollm2}
data=${2:-../shared/data}
python=${PYTHON:-python}
main=("$python" -m gptjax.main)
from="--config.init_from=$runs/weights"

[ -f "$runs/weights/tokenizer.json" ] || "$python" docs/smollm2.py "$runs/weights"

"${main[@]}" --config=configs/gpt2_zero_shot.py --workdir="$runs/lambada" "$from" --config.eval.tasks=lambada \
  --config.eval.data_dir="$data/eval" --config.eval.limit=200 --config.eval.grid=False
"${main[@]}" --config=configs/gpt2_zero_shot.py --workdir="$runs/core" "$from" --config.eval.tasks=core \
  --config.eval.data_dir="$data/core" --config.eval.limit=50

# Three widths, compiled as a scan over the layers: a compilation takes as long as a hundred steps. With microbatches a
# step on RTE's long pairs needs 9 GB instead of 20.
tune=("$from" "--config.data.tfds_dir=$data/tfds" --config.finetune.buckets=3 --config.finetune.group_by_length
  --config.model.scan=True --config.model.dropout=0 --config.train.microbatch_size=8
  --config.optimizer.warmup_fraction=0.1 --config.eval.every_steps=0 --config.checkpoint.every_steps=0
  --config.log.tensorboard=False)
for task in sst2:3000:1.0 rte:600:1.0; do
  IFS=: read -r name limit epochs <<< "$task"
  one=(--config=configs/gpt1_finetune.py:"$name" "${tune[@]}" --config.finetune.limit="$limit"
    --config.train.epochs="$epochs")
  "${main[@]}" --workdir="$runs/$name-full" "${one[@]}" --config.optimizer.learning_rate=1e-4
  "${main[@]}" --workdir="$runs/$name-last" "${one[@]}" --config.finetune.train=last \
    --config.finetune.last_layers=6 --config.optimizer.learning_rate=3e-4
  "${main[@]}" --workdir="$runs/$name-lora" "${one[@]}" --config.finetune.train=lora \
    --config.optimizer.learning_rate=1e-3
done

"${main[@]}" --config=configs/quickstart.py --workdir="$runs/continued" "$from" --config.optimizer.name=adamw \
  --config.optimizer.learning_rate=1e-4 --config.optimizer.warmup_steps=5 --config.train.steps=40 \
  --config.train.batch_size=16 --config.eval.every_steps=10 --config.eval.steps=8 --config.log.every_steps=1
