#!/bin/bash
# Pretrains a small GPT-1 on sixteen novels and fine-tunes it on SST-2, with three seeds, beside the same model
# without pretraining; then CoLA, RTE and STS-B. About twenty minutes on two cores; goes on where it was stopped.
#
#   docs/sst2.sh [FOLDER FOR THE RUNS] [FOLDER OF THE DATA]
set -e
runs=${1:-runs/sst2}
data=${2:-../shared/data}
python=${PYTHON:-python}
main="$python -m gptjax.main"
mine="--config.data.tfds_dir=$data/tfds --config.optimizer.learning_rate=5e-4 --config.log.tensorboard=False \
  --config.model.dropout=0.1 --config.eval.every_steps=0 --config.checkpoint.every_steps=500 --config.log.every_steps=50"

[ -f "$runs/corpus/manifest.json" ] || $python -m gptjax.data.prepare --source="jsonl:$data/text/books.jsonl.gz" \
  --tokenizer=train-bpe:4096 --out="$runs/corpus" --validation_fraction=0.05
$main --config=configs/gpt1_mini.py --workdir="$runs/pretrained" --config.data.corpus="$runs/corpus" \
  --config.log.tensorboard=False

some="--config.init_from=$runs/pretrained --config.finetune.limit=8000 --config.train.epochs=2.0 $mine"
$main --config=configs/gpt1_finetune.py:sst2 --workdir="$runs/with" --config.finetune.n_seeds=3 $some
$main --config=configs/gpt1_finetune.py:sst2 --workdir="$runs/without" --config.finetune.n_seeds=3 $some \
  --config.finetune.pretrained=False
$main --config=configs/gpt1_finetune.py:cola,rte,stsb --workdir="$runs/others" --predict $some
