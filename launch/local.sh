#!/usr/bin/env bash
# N processes of one run on this machine:
#   launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
# Each has one GPU of those in CUDA_VISIBLE_DEVICES (of all, if that is not set); where there is none, DEVICES CPU
# devices of its own (1 by default), unless JAX_PLATFORMS asks for something else.
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
python=${PYTHON:-python}
GRACE=${GRACE:-5} # seconds in which the others end by themselves once a process has failed
LOST=70 STOPPED=75
mkdir -p "$logs" || exit 2
export_run_token
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit 2

# The GPUs that the processes may use: as CUDA reads CUDA_VISIBLE_DEVICES, up to what is no GPU. Where JAX_PLATFORMS
# says that there are some, they need no nvidia-smi, which containers may lack.
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

# To stop one is to stop all: they agree on a step, save it, and end with 75. Each has a session of its own, or
# Ctrl-C would reach it as well: as the second signal, which ends it at once. All that still run are told, and
# while they are being started: as soon as all are.
processes=() started='' pending='' told=''
stop() {
  told=1
  if [[ -n $started ]]; then
    for process in $(jobs -pr); do
      kill -s "$1" "$process" 2>/dev/null || true
    done
  else
    pending=$1
  fi
}
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1 # as itself: it is never the second signal, which ends a process at once
trap 'stop HUP' HUP # as itself: a terminal that closes sends it twice, and a process counts it once

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
    rm -f "$logs/process-$i.log" # it may be a link to anywhere
    setsid "${line[@]}" >"$logs/process-$i.log" 2>&1 &
  fi
  processes+=($!)
done

started=1
[[ -z $pending ]] || stop "$pending"

# A process that fails once all have connected tells the others why, and they end. Before, as while Python imports, it
# cannot: they would wait for it for a minute. So those that are left are told to stop.
codes=() failed='' deadline='' cut_short=''
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
  if [[ -n $failed && -z $told ]] && ((SECONDS >= deadline)); then
    echo "$0: process $failed has ended with exit code ${codes[$failed]}: stopping the others" >&2
    cut_short=1
    stop TERM
  fi
  sleep 0.3 >/dev/null 2>&1 & # not in the foreground, where a trap would wait for its end
  wait "$!" || true
done

code=${codes[0]}
for i in "${!codes[@]}"; do
  if ((code > 128 && codes[i] <= 128)); then # process 0 was killed: others say so
    code=${codes[$i]}
    tail -n 1 "$logs/process-$i.log" >&2 || true
  fi
done
if [[ -n $cut_short ]]; then
  if ((code == STOPPED)); then # only because of what had failed
    code=$((codes[failed] > 128 ? LOST : codes[failed]))
  fi
  if ((failed > 0)); then
    tail -n 1 "$logs/process-$failed.log" >&2 || true
  fi
fi
exit "$code"
