#!/usr/bin/env bash
# Starts N processes of one run on this machine:
#   launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
# Each gets one of the GPUs in CUDA_VISIBLE_DEVICES (of all GPUs, if that is not set). Without GPUs, each gets DEVICES
# CPU devices (1 by default), unless JAX_PLATFORMS selects something else.
set -euo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

usage() {
  echo "usage: [DEVICES=1] [PYTHON=python] [GRACE=5] $0 N --config=FILE --workdir=FOLDER [--config.FIELD=VALUE ...]" >&2
  exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
n=$1
shift
workdir=$(workdir_of "$@")
[[ -n $workdir ]] || usage
logs=$workdir/logs
[[ $workdir != *://* ]] || logs=logs/${workdir##*/} # the workdir is in a bucket
python=${PYTHON:-python}
GRACE=${GRACE:-5} # seconds for the others to exit after a process has failed
LOST=70 STOPPED=75
mkdir -p "$logs" || exit 2
export_run_token
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit 2

# The GPUs that the processes may use: like CUDA, the entries of CUDA_VISIBLE_DEVICES before the first that is not a
# GPU. If JAX_PLATFORMS selects GPUs, nvidia-smi is not needed, which containers may lack.
gpus=()
platforms=,${JAX_PLATFORMS:-},
installed=$( { nvidia-smi --list-gpus 2>/dev/null || true; } | grep -c '^GPU ' || true)
if ((installed == 0)) && [[ $platforms == *,cuda,* || $platforms == *,gpu,* ]]; then
  installed=$(compgen -G '/dev/nvidia[0-9]*' | wc -l || true)
  [[ -z ${CUDA_VISIBLE_DEVICES:-} ]] || installed=1
fi
if ((installed > 0)) && [[ ${JAX_PLATFORMS:-} != cpu ]]; then
  IFS=', ' read -ra allotted <<<"${CUDA_VISIBLE_DEVICES-$(seq -s, 0 $((installed - 1)))}"
  for gpu in ${allotted[@]+"${allotted[@]}"}; do
    [[ $gpu =~ ^([0-9]+|GPU-.+|MIG-.+)$ ]] || break
    gpus+=("$gpu")
  done
fi
if ((${#gpus[@]} > 0 && ${#gpus[@]} < n)); then
  of=${CUDA_VISIBLE_DEVICES+ in CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES}
  echo "$0: $n processes, but only ${#gpus[@]} GPUs$of: start as many as there are GPUs, or set JAX_PLATFORMS=cpu" >&2
  exit 2
fi

# A stop signal to one process stops all: they agree on a step, save it, and exit with 75. Each has its own session, or
# Ctrl-C would reach it too, as the second signal, which ends it at once. All running processes get the signal; during
# start-up, after all have been started.
processes=() started='' pending='' stopping=''
stop() {
  stopping=1
  if [[ -n $started ]]; then
    for process in $(jobs -pr); do
      kill -s "$1" "$process" 2>/dev/null || true
    done
  else
    pending=$1
  fi
}
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1 # forwarded unchanged: it never counts as the second signal, which ends a process
trap 'stop HUP' HUP # forwarded unchanged: a closing terminal sends it twice, and a process counts it once

for ((i = 0; i < n; i++)); do
  if ((${#gpus[@]} > 0)); then
    device=(CUDA_VISIBLE_DEVICES="${gpus[$i]}")
  else
    device=(JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" JAX_NUM_CPU_DEVICES="${DEVICES:-${JAX_NUM_CPU_DEVICES:-1}}")
  fi
  line=(env "${device[@]}" "$python" -m gptjax.main "$@"
    --coordinator="127.0.0.1:$port" --num_processes="$n" --process_id="$i")
  if ((i == 0)); then
    setsid "${line[@]}" &
  else
    rm -f "$logs/process-$i.log" # it may be a symbolic link
    setsid "${line[@]}" >"$logs/process-$i.log" 2>&1 &
  fi
  processes+=($!)
done

started=1
[[ -z $pending ]] || stop "$pending"

# A process that fails after all have connected ends the others too. Before, for instance while Python imports modules,
# it cannot, and they would wait for it for a minute. So the remaining processes get a stop signal.
codes=() failed='' deadline='' stopped_others=''
while true; do
  left=''
  for i in "${!processes[@]}"; do
    if [[ -n ${codes[$i]:-} ]]; then
      continue
    elif kill -0 "${processes[$i]}" 2>/dev/null; then
      left=1
      continue
    fi
    codes[i]=0
    wait "${processes[$i]}" || codes[i]=$?
    if [[ -z $failed ]] && ((codes[i] != 0 && codes[i] != STOPPED)); then
      failed=$i deadline=$((SECONDS + GRACE))
    fi
  done
  [[ -n $left ]] || break
  if [[ -n $failed && -z $stopping ]] && ((SECONDS >= deadline)); then
    echo "$0: process $failed has ended with exit code ${codes[$failed]}: stopping the others" >&2
    stopped_others=1
    stop TERM
  fi
  sleep 0.3 >/dev/null 2>&1 & # in the background, because a trap waits for a foreground command
  wait "$!" || true
done

code=${codes[0]}
for i in "${!codes[@]}"; do
  if ((code > 128 && codes[i] <= 128)); then # process 0 was killed: show the message of another process
    code=${codes[$i]}
    tail -n 1 "$logs/process-$i.log" >&2 || true
  fi
done
if [[ -n $stopped_others ]]; then
  if ((code == STOPPED)); then # stopped because of the failed process
    code=$((codes[failed] > 128 ? LOST : codes[failed]))
  fi
  if ((failed > 0)); then
    tail -n 1 "$logs/process-$failed.log" >&2 || true
  fi
fi
exit "$code"
