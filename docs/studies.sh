#!/bin/bash
# GPT-1's studies in small, from what docs/sst2.sh has pretrained: Table 5, Figure 2 left, Figure 2 right.
# Started again it goes on where it was stopped.
#
#   docs/studies.sh [FOLDER OF THE RUNS OF docs/sst2.sh] [FOLDER OF THE DATA]
set -e
runs=${1:-runs/sst2}
data=${2:-../shared/data}
main=("${PYTHON:-python}" -m gptjax.main)

"${main[@]}" --config=configs/gpt1_mini.py --workdir="$runs/lstm" --config.data.corpus="$runs/corpus" \
  --config.log.tensorboard=False --config.model.architecture=lstm --config.model.n_layer=1 --config.model.n_inner=256

mine=("--config.init_from=$runs/pretrained" "--config.data.tfds_dir=$data/tfds" --config.log.tensorboard=False)
small=(--config.optimizer.learning_rate=1e-3 --config.train.epochs=2.0 --config.eval.every_steps=0
  --config.log.every_steps=50 --config.model.scan=False --config.finetune.buckets=3 --config.finetune.group_by_length)
"${main[@]}" --config=configs/gpt1_ablations.py:sst2,cola,stsb --workdir="$runs/ablations" "${mine[@]}" "${small[@]}" \
  --config.finetune.lstm_from="$runs/lstm" --config.finetune.limit=4000
"${main[@]}" --config=configs/gpt1_transfer.py:sst2 --workdir="$runs/transfer" "${mine[@]}" "${small[@]}" \
  --config.finetune.limit=4000 --config.finetune.n_seeds=2
"${main[@]}" --config=configs/gpt1_zero_shot.py --workdir="$runs/zero_shot" "${mine[@]}" --config.finetune.lstm_from="$runs/lstm"
