#!/usr/bin/env bash
# Google Kubernetes Engine: fills in gke_jobset.yaml and applies it.
#   export IMAGE=REGISTRY/gptjax:TAG ACCELERATOR=tpu-v6e-slice TOPOLOGY=4x4 HOSTS=4
#   launch/gke.sh start --config=configs/gpt2_small.py --workdir=gs://BUCKET/runs/small
# `manifest` prints what `start` applies.
set -euo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

NAME=${NAME:-gptjax}
IMAGE=${IMAGE:-}
ACCELERATOR=${ACCELERATOR:-tpu-v5-lite-podslice}
TOPOLOGY=${TOPOLOGY:-4x4}
HOSTS=${HOSTS:-4}   # machines of a slice
CHIPS=${CHIPS:-4}   # of a machine
SLICES=${SLICES:-1} # the processes of all of them are one run
SPOT=${SPOT:-}      # spot machines
QUEUE=${QUEUE:-}    # a local queue of Kueue

usage() {
  echo "usage: IMAGE=.. [NAME=..] [ACCELERATOR=..] [TOPOLOGY=..] [HOSTS=..] [CHIPS=..] [SLICES=..] [SPOT=1]" \
    "[QUEUE=..] $0 start FLAGS | manifest FLAGS | status | logs | stop" >&2
  exit 2
}

check() { # check VARIABLE PATTERN
  if [[ ! ${!1} =~ ^($2)$ ]]; then
    echo "$0: $1='${!1}' must match $2" >&2
    exit 2
  fi
}

# Prints an argument as a string of YAML. Kubernetes replaces $(NAME) in arguments, and $$ by $.
quoted() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  text=${text//$'\r'/\\r}
  text=${text//\$/\$\$}
  printf '"%s"' "$text"
}

# shellcheck disable=SC2034 # read by name
manifest() {
  local line variable argument ARGS=''
  for argument in "$@"; do
    ARGS+=${ARGS:+, }$(quoted "$argument")
  done
  ARGS="[$ARGS]"
  check IMAGE '[A-Za-z0-9._:@/-]+'
  check TOPOLOGY '[0-9]+(x[0-9]+)+'
  for variable in HOSTS CHIPS SLICES; do
    check "$variable" '[1-9][0-9]*'
  done
  for variable in ACCELERATOR ${QUEUE:+QUEUE}; do
    check "$variable" '[a-z0-9.-]+'
  done
  while IFS= read -r line; do
    if [[ $line =~ \ '# only with '([A-Z]+)$ ]]; then
      variable=${BASH_REMATCH[1]}
      [[ -n ${!variable} ]] || continue
      line=${line% '# only with'*}
    fi
    for variable in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS SLICES QUEUE ARGS; do # ARGS last: it may contain ${NAME}
      [[ $line != *"\${$variable}"* ]] || line=${line%%"\${$variable}"*}${!variable}${line#*"\${$variable}"}
    done
    printf '%s\n' "$line"
  done <"$(dirname "${BASH_SOURCE[0]}")/gke_jobset.yaml"
}

start() {
  local text
  text=$(manifest "$@")
  kubectl get secret "$NAME" >/dev/null 2>&1 ||
    new_run_token | kubectl create secret generic "$NAME" --from-file=token=/dev/stdin
  kubectl apply --filename=- <<<"$text"
}

check NAME '[a-z0-9]([a-z0-9-]*[a-z0-9])?'
command=${1:-help}
[[ $# -gt 0 ]] && shift
case $command in
  start | manifest) "$command" "$@" ;;
  status) kubectl get jobset "$NAME" ;;
  logs) kubectl logs --follow "job/$NAME-run-${SLICE:-0}" ;; # of its first pod
  stop) kubectl delete jobset "$NAME" ;;
  *) usage ;;
esac
