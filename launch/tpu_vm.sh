#!/usr/bin/env bash
# Cloud TPU VMs: create, install, run on all workers, follow, restart after preemption, delete.
#   NAME=gptjax ZONE=us-east5-a TYPE=v6e-16 SPOT=1 BUCKET=my-runs launch/tpu_vm.sh create
#   ... launch/tpu_vm.sh install
#   ... launch/tpu_vm.sh run --config=configs/gpt2_small.py --workdir=../bucket/small
# With --dry_run as the first argument, gcloud commands are printed, not run.
set -euo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

NAME=${NAME:-gptjax}
ZONE=${ZONE:-us-central2-b}
TYPE=${TYPE:-v4-32}
VERSION=${VERSION:-tpu-ubuntu2204-base}
SPOT=${SPOT:-}
BUCKET=${BUCKET:-}
POLL=${POLL:-60}

dry_run=
if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi
command=${1:-help}
[[ $# -gt 0 ]] && shift

gcloud_tpu() {
  if [[ -n $dry_run ]]; then
    printf 'gcloud compute tpus'
    printf ' %q' "$@" --zone="$ZONE"
    printf '\n'
  else
    gcloud compute tpus "$@" --zone="$ZONE"
  fi
}

on_all() {
  gcloud_tpu tpu-vm ssh "$NAME" --worker=all --command="$1"
}

create() {
  local flags=(--node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$VERSION")
  [[ -n $SPOT ]] && flags+=(--spot)
  gcloud_tpu queued-resources create "$NAME" "${flags[@]}"
}

state() {
  gcloud_tpu queued-resources describe "$NAME" --format='value(state.state)'
}

await() { # waits until the machines are ready
  local now
  while true; do
    now=$(state)
    echo "$now"
    [[ -n $dry_run || $now == ACTIVE ]] && return
    [[ $now == FAILED || $now == SUSPENDED ]] && return 1
    sleep "$POLL"
  done
}

install() {
  local folder bucket
  folder=$(mktemp -d)
  bucket=$(printf %q "$BUCKET")
  git archive --format=tgz --output="$folder/gptjax.tgz" HEAD
  new_run_token >"$folder/run.token"
  gcloud_tpu tpu-vm scp "$folder/gptjax.tgz" "$folder/run.token" "$NAME:." --worker=all
  rm -rf "$folder"
  # Workers share no disk: a bucket, mounted on all, contains the corpus and the workdir.
  on_all "set -e; chmod 600 run.token; rm -rf gptjax/gptjax gptjax/configs; mkdir -p gptjax bucket; tar -xzf gptjax.tgz -C gptjax
cd gptjax && python3 -m venv ../env && ../env/bin/pip install --quiet --editable '.[tpu]'
if [ -n $bucket ]; then
  command -v gcsfuse || { curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo \"deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update -qq && sudo apt-get install -qq -y gcsfuse; }
  mountpoint -q ../bucket || gcsfuse --implicit-dirs --rename-dir-limit=100000 $bucket ../bucket
fi"
}

run() {
  local flags
  flags=$(printf ' %q' "$@")
  # All workers exit together, and each restarts its own process.
  on_all "cd gptjax && GPTJAX_RUN_TOKEN=\$(cat ../run.token) PID_FILE=../run.pid nohup launch/again.sh ../env/bin/python -m gptjax.main$flags \
    >../run.log 2>&1 </dev/null & sleep 1"
}

case $command in
  create) create ;;
  await) await ;;
  install) install ;;
  run) run "$@" ;;
  logs) gcloud_tpu tpu-vm ssh "$NAME" --worker="${WORKER:-0}" --command='tail -n 100 -F run.log' ;;
  stop) on_all "kill -TERM \$(cat run.pid)" ;;
  status) state ;;
  restart) # after preemption: new machines, the same run
    gcloud_tpu queued-resources delete "$NAME" --force --quiet
    create
    await
    install
    run "$@"
    ;;
  keep) # recreates the machines and restarts the run after each preemption
    while true; do
      now=$(state)
      echo "$now"
      if [[ -n $dry_run || $now == SUSPENDED || $now == FAILED ]]; then
        gcloud_tpu queued-resources delete "$NAME" --force --quiet
        create
        if await; then
          install
          run "$@"
        fi
      fi
      [[ -n $dry_run ]] && break
      sleep "$POLL"
    done
    ;;
  delete) gcloud_tpu queued-resources delete "$NAME" --force --quiet ;;
  *)
    echo "usage: NAME=.. ZONE=.. TYPE=.. [SPOT=1] [BUCKET=..] $0 [--dry_run]" \
      "create | await | install | run FLAGS | logs | stop | status | restart FLAGS | keep FLAGS | delete" >&2
    exit 2
    ;;
esac
