# shellcheck shell=bash
# Shared by the launchers: the limit of restarts after exit code 1, a bug (again.sh and slurm.sbatch), and the token
# with which the processes of a run authenticate (local.sh, slurm.sbatch and tpu_vm.sh).
# shellcheck disable=SC2034 # the scripts above use it
MOST_BUGS=3 # restarts without a newer checkpoint

# Exports GPTJAX_RUN_TOKEN for all processes started later, a new one if it is not set. It is not passed as an
# argument, because all users of the machine can see arguments.
export_run_token() {
  [[ -n ${GPTJAX_RUN_TOKEN:-} ]] || GPTJAX_RUN_TOKEN=$(new_run_token)
  export GPTJAX_RUN_TOKEN
}

new_run_token() {
  od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# Prints the value of --workdir in the arguments, with ~ expanded; nothing without it.
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
  case $workdir in # like gptjax.storage.files.paths: a shell expands ~ only at the start of a word
    '~' | '~/'*) workdir=$HOME${workdir:1} ;;
  esac
  printf '%s' "$workdir"
}

# Prints the newest checkpoint of a workdir: the largest N of WORKDIR/checkpoints/N/manifest.json; -1 if there is none,
# or if it is in a bucket that cannot be listed.
newest_checkpoint() {
  local newest=-1 manifest step manifests=()
  case $1 in
    gs://*)
      while read -r manifest; do
        manifests+=("$manifest")
      done < <(gcloud storage ls "${1%/}/checkpoints/*/manifest.json" 2>/dev/null)
      ;;
    ?*) manifests=("$1"/checkpoints/*/manifest.json) ;; # the pattern itself if there is none
  esac
  for manifest in ${manifests[@]+"${manifests[@]}"}; do
    step=${manifest%/manifest.json}
    step=${step##*/}
    if [[ $step =~ ^[0-9]+$ && ($manifest == gs://* || -e $manifest) ]] && ((10#$step > newest)); then
      newest=$((10#$step))
    fi
  done
  echo "$newest"
}
