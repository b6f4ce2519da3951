# shellcheck shell=bash
# For the scripts here: how often a command that ends with exit code 1, a bug, is started again (again.sh and
# slurm.sbatch), and the token by which the processes of a run know each other (local.sh and slurm.sbatch).
# shellcheck disable=SC2034 # the scripts above use it
MOST_BUGS=3 # restarts without a newer checkpoint in between

# Gives all that is started from here one GPTJAX_RUN_TOKEN, a new one if there is none. It is not passed as an
# argument: those are shown to every user of the machine.
export_run_token() {
  [[ -n ${GPTJAX_RUN_TOKEN:-} ]] || GPTJAX_RUN_TOKEN=$(new_run_token)
  export GPTJAX_RUN_TOKEN
}

new_run_token() {
  od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'
}

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
  case $workdir in # as gptjax.files.paths does: a shell expands it at the start of a word alone
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
