# shellcheck shell=bash
# For again.sh and slurm.sbatch: how often a command that ends with exit code 1, a bug, is started again.
# shellcheck disable=SC2034 # the scripts above use it
MOST_BUGS=3 # restarts without a newer checkpoint in between

# The value of --workdir among the arguments, with ~ expanded; nothing without it.
workdir_of() {
  local workdir='' next=''
  for argument in "$@"; do
    if [[ -n $next ]]; then
      workdir=$argument next=''
    fi
    case $argument in
      --workdir=* | -workdir=*) workdir=${argument#*=} ;;
      --workdir | -workdir) next=1 ;;
    esac
  done
  # shellcheck disable=SC2088 # it is text here
  case $workdir in # as gptjax.paths does: a shell expands it at the start of a word alone
    '~' | '~/'*) workdir=$HOME${workdir:1} ;;
  esac
  printf '%s' "$workdir"
}

# The newest checkpoint of a workdir: the largest N of WORKDIR/checkpoints/N/manifest.json; -1 if there is none.
newest_checkpoint() {
  local newest=-1 manifest step
  if [[ -n $1 ]]; then
    for manifest in "$1"/checkpoints/*/manifest.json; do
      step=${manifest%/manifest.json}
      step=${step##*/}
      if [[ $step =~ ^[0-9]+$ && -e $manifest ]] && ((10#$step > newest)); then
        newest=$((10#$step))
      fi
    done
  fi
  echo "$newest"
}
