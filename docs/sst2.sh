#!/bin/bash
# Pretrains a small GPT-1 on sixteen novels and fine-tunes it on SST-2 with three seeds, beside the same model
# without pretraining; then CoLA, RTE and STS-B. Started again it goes on where it was stopped.
#
#   docs/sst2.sh [FOLDER FOR THE RUNS] [FOLDER OF THE DATA]
set -e
runs=${1:-runs/sst2}
data=${2:-../shared/data}
python=${PYTHON:-python}
main=("$python" -m gptjax.main)

[ -f "$runs/corpus/manifest.json" ] || "$python" -m gptjax.data.prepare --source="jsonl:$data/text/books.jsonl.gz" \
  --tokenizer=train-bpe:2048 --out="$runs/corpus" --validation_fraction=0.05
"${main[@]}" --config=configs/gpt1_mini.py --workdir="$runs/pretrained" --config.data.corpus="$runs/corpus" \
  --config.log.tensorboard=False

# A model this small wants a larger rate than GPT-1's 6.25e-5, with and without pretraining.
mine=("--config.init_from=$runs/pretrained" "--config.data.tfds_dir=$data/tfds" --config.optimizer.learning_rate=1e-3
  --config.train.epochs=2.0 --config.eval.every_steps=0 --config.checkpoint.every_steps=100
  --config.log.every_steps=50 --config.log.tensorboard=False --config.model.scan=False --config.finetune.buckets=3 --config.finetune.group_by_length)
sst2=(--config=configs/gpt1_finetune.py:sst2 --config.finetune.n_seeds=3 --config.finetune.limit=8000 "${mine[@]}")
"${main[@]}" --workdir="$runs/with" "${sst2[@]}"
"${main[@]}" --workdir="$runs/without" "${sst2[@]}" --config.finetune.pretrained=False
"${main[@]}" --config=configs/gpt1_finetune.py:cola,rte,stsb --workdir="$runs/others" --predict "${mine[@]}" \
  --config.finetune.limit=4000
