#!/usr/bin/env bash
# Cloud TPU VMs: create, install, run on all workers, follow, restart after preemption, delete.
#   export NAME=gptjax ZONE=us-east5-a TYPE=v6e-16 SPOT=1
#   launch/tpu_vm.sh keep --config=configs/gpt2_small.py --workdir=gs://BUCKET/runs/small
# With --dry_run as the first argument, gcloud commands are printed, not run.
set -euo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

NAME=${NAME:-gptjax}
ZONE=${ZONE:-us-central2-b}
TYPE=${TYPE:-v4-32}
NODES=${NODES:-1} # slices; the processes of all of them are one run
VERSION=${VERSION:-}
SPOT=${SPOT:-}
PYTHON_VERSION=${PYTHON_VERSION:-3.11}
POLL=${POLL:-60}  # seconds
TRIES=${TRIES:-5} # of describe, POLL seconds apart
STARTS_PER_HOUR=${STARTS_PER_HOUR:-10} # of machines, installations and runs, by keep
LOST=70 STOPPED=75

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
command=${1:-help}
[[ $# -gt 0 ]] && shift

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() {
  echo "$0: $*" >&2
}

gcloud_tpu() {
  if [[ -n $dry_run ]]; then
    printf 'gcloud compute tpus'
    printf ' %q' "$@" --zone="$ZONE"
    printf '\n'
  else
    gcloud compute tpus "$@" --zone="$ZONE"
  fi
}

on_worker() { # on_worker NODE WORKER COMMAND
  gcloud_tpu queued-resources ssh "$NAME" --node="$1" --worker="$2" --ssh-flag=-oConnectTimeout=30 \
    --ssh-flag=-oServerAliveInterval=30 --command="$3"
}

on_all() {
  on_worker all all "$1"
}

# https://cloud.google.com/tpu/docs/runtimes
runtime_version() {
  case $TYPE in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) # from TPU7x on, Google offers TPUs through GKE and Compute Engine only
      say "no runtime version is known for TYPE=$TYPE: set VERSION, or use GKE (launch/gke.sh)"
      return 2
      ;;
  esac
}

create() {
  local version
  local flags=(--accelerator-type="$TYPE")
  version=${VERSION:-$(runtime_version)} || return
  flags+=(--runtime-version="$version")
  if ((NODES > 1)); then
    flags+=(--node-count="$NODES" --node-prefix="$NAME") # the nodes are NAME-0, NAME-1, ...
  else
    flags+=(--node-id="$NAME")
  fi
  [[ -z $SPOT ]] || flags+=(--spot)
  gcloud_tpu queued-resources create "$NAME" "${flags[@]}"
}

delete() {
  gcloud_tpu queued-resources delete "$NAME" --force --quiet
}

# Prints the state of `describe_state KIND NAME FIELD`, and NOT_FOUND for what does not exist. Another error is retried:
# it says nothing about the machines.
describe_state() {
  local try out
  for ((try = 1; try <= TRIES; try++)); do
    if out=$(gcloud_tpu "$1" describe "$2" --format="value($3)" 2>"$scratch/error"); then
      echo "$out"
      return
    elif grep -q NOT_FOUND "$scratch/error"; then
      echo NOT_FOUND
      return
    fi
    say "describe has failed ($try of $TRIES tries): $(tail -n 1 "$scratch/error")"
    ((try == TRIES)) || sleep "$POLL"
  done
  return 1
}

state() {
  describe_state queued-resources "$NAME" state.state
}

# Prints READY, or the state of the first node that is not.
nodes() {
  local i now
  for ((i = 0; i < NODES; i++)); do
    now=$(describe_state tpu-vm "$NAME$( ((NODES > 1)) && echo "-$i")" state) || return
    [[ $now == READY ]] || break
  done
  echo "$now"
}

await() { # waits until the machines are ready
  local now
  while true; do
    now=$(state) || return
    echo "$now"
    [[ -z $dry_run && $now != ACTIVE ]] || return 0
    [[ $now != FAILED && $now != SUSPENDED && $now != NOT_FOUND ]] || return 1
    sleep "$POLL"
  done
}

# What the workers run. Each script begins in the home folder.
# The worker's own Python is 3.10 (Ubuntu 22.04). uv installs another one without root: apt has only a release candidate
# of 3.11, and its lock is often held by the updates of a new machine. Downloads are retried.
# shellcheck disable=SC2016 # expanded on the workers
INSTALL='set -e
rm -f installed
chmod 600 run.token
rm -rf gptjax/gptjax gptjax/configs gptjax/launch
mkdir -p gptjax
tar -xzf gptjax.tgz -C gptjax
PATH=$HOME/.local/bin:$PATH
retry() {
  for pause in 5 15 45; do
    "$@" && return
    sleep $pause
  done
  "$@"
}
get_uv() {
  curl -LsSf --connect-timeout 30 https://astral.sh/uv/install.sh -o uv.sh && sh uv.sh --quiet
}
new_env() {
  rm -rf env && uv venv --quiet --python "$PYTHON_VERSION" env
}
command -v uv >/dev/null || retry get_uv
env/bin/python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || retry new_env
retry uv pip install --quiet --python env/bin/python --editable "./gptjax[tpu,gcs]"
touch installed'

# Starts the command unless it is running: the process and its children hold the lock. All workers exit together, and
# each restarts its own process. The exit code is in run.exit.
# shellcheck disable=SC2016
RUN='cd gptjax
if ! flock --nonblock ../run.lock true; then
  echo "$(hostname): a run is running already: stop it first" >&2
  exit
fi
rm -f ../run.exit ../run.stopped
GPTJAX_RUN_TOKEN=$(cat ../run.token) PID_FILE=../run.pid nohup flock ../run.lock sh -c '\''launch/again.sh "$@"
echo $? >../run.exit'\'' run ../env/bin/python -m gptjax.main'

# Stops the run and waits until it has saved.
# shellcheck disable=SC2016
STOP='flock --nonblock run.lock true || {
  kill -TERM "$(cat run.pid)"
  flock --timeout 600 run.lock true
}'

# Prints a line with "bare" (nothing is installed), "running", the exit code of the run, "stopped" (by `stop`), or "none".
# shellcheck disable=SC2016
PROBE='if [ ! -e installed ]; then state=bare
elif ! flock --nonblock run.lock true; then state=running
elif [ -e run.stopped ]; then state=stopped
else state=$(cat run.exit 2>/dev/null || echo none); fi
echo "worker: $state"'

install() {
  local top changed
  top=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel) || return
  changed=$(git -C "$top" status --porcelain) || return
  say "copying commit $(git -C "$top" log -1 --format='%h (%s)')"
  [[ -z $changed ]] || say "warning: these changes are not committed and not copied:"$'\n'"$changed"
  git -C "$top" archive --format=tgz --output="$scratch/gptjax.tgz" HEAD || return
  new_run_token >"$scratch/run.token" || return
  gcloud_tpu queued-resources scp "$scratch/gptjax.tgz" "$scratch/run.token" "$NAME:." --node=all --worker=all || return
  on_all "PYTHON_VERSION=$(printf %q "$PYTHON_VERSION")"$'\n'"$INSTALL"
}

run() {
  local line=$RUN
  (($# == 0)) || line+=$(printf ' %q' "$@")
  on_all "$line >>../run.log 2>&1 </dev/null & sleep 1"
}

stop() {
  on_all "touch run.stopped"$'\n'"$STOP"
}

# Ends `keep`; the machines stay unless the run is done or its input is wrong.
finish() {
  local try
  say "$2"
  on_all 'tail -n 3 run.log' || true
  if [[ $1 == 0 || $1 == 2 ]]; then
    for ((try = 1; try <= TRIES; try++)); do
      delete && exit "$1"
      sleep "$POLL"
    done
    say "the machines could not be deleted, and cost money: use 'delete'"
  else
    say "the machines stay: look at 'logs', then 'keep' again or 'delete'"
  fi
  exit "$1"
}

starts=() # times of those in the last hour
count_start() {
  local time now recent=()
  now=$(date +%s)
  for time in ${starts[@]+"${starts[@]}"} "$now"; do
    ((now - time >= 3600)) || recent+=("$time")
  done
  starts=("${recent[@]}")
  ((${#starts[@]} <= STARTS_PER_HOUR)) || finish "$LOST" "more than STARTS_PER_HOUR=$STARTS_PER_HOUR starts"
  say "$1"
}

# Looks once at the run on machines that are ready.
seen=
supervise() {
  local states
  states=$(on_all "$PROBE" | grep -a '^worker: ' | sort -u | tr '\n' ' ') || states=
  states=" ${states//worker: /}"
  if [[ -z $seen ]]; then # how an earlier run on these machines has ended does not matter
    case $states in
      ' ') ;;
      *' bare '*) states=' bare ' ;;
      *' running '*) say "a run is running already" ;;
      *) states=' none ' ;;
    esac
  fi
  [[ $states == ' ' ]] || seen=1
  case $states in # the first line that matches decides
    ' ') say "not all workers answer" ;;
    *' 0 '*) finish 0 "the run is done" ;; # all processes have saved before one exits with 0
    *' 2 '*) finish 2 "the config or the input is invalid" ;;
    *' 1 '*) finish 1 "a bug: again.sh has restarted the run without progress" ;;
    *' bare '*) # new machines, perhaps beside old ones, which have another token
      count_start "installing and starting the run"
      if on_all "$STOP" && install; then
        run "$@" || true
      fi
      ;;
    *' stopped '*) finish "$STOPPED" "stopped" ;;
    ' running ') ;;
    *)
      count_start "starting the run where it is not running:$states"
      run "$@" || true
      ;;
  esac
}

# Supervises the run until it ends: creates machines where there are none or they have been preempted, installs, and
# starts the run where it is not running. A command that fails is tried again in the next round.
keep() {
  local now
  if [[ -n $dry_run ]]; then
    state && nodes && on_all "$PROBE" && delete && create && install && run "$@"
    return
  fi
  [[ -n ${VERSION:-$(runtime_version)} ]] || exit 2
  while true; do
    now=$(state) || now=unknown
    if [[ $now == ACTIVE ]]; then
      now=$(nodes) || now=unknown
      [[ $now != NOT_FOUND ]] || now=TERMINATED
    fi
    echo "$now"
    case $now in
      READY) supervise "$@" ;;
      NOT_FOUND | SUSPENDED | FAILED | PREEMPTED | TERMINATED)
        count_start "creating the machines: $now"
        if [[ $now == NOT_FOUND ]] || delete; then
          create || true
        fi
        ;;
    esac
    sleep "$POLL"
  done
}

case $command in
  create | await | install | stop | delete) "$command" ;;
  run | keep) "$command" "$@" ;;
  logs) on_worker "${NODE:-0}" "${WORKER:-0}" 'tail -n 100 -F run.log' ;;
  status) state ;;
  restart) # after preemption: new machines, the same run
    delete
    create
    await
    install
    run "$@"
    ;;
  *)
    echo "usage: NAME=.. ZONE=.. TYPE=.. [NODES=slices] [SPOT=1] [VERSION=..] $0 [--dry_run]" \
      "create | await | install | run FLAGS | logs | stop | status | restart FLAGS | keep FLAGS | delete" >&2
    exit 2
    ;;
esac
