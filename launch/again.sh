#!/usr/bin/env bash
# Runs a command, and runs it again when it ends with anything but 0 (done) or 2 (wrong input):
#   launch/again.sh python -m gptjax.main --config=... --workdir=...
# SIGTERM and Ctrl-C go on to the command, and are the end.
set -uo pipefail

PAUSE=${PAUSE:-5} # seconds before it is started again
MOST_RESTARTS=${MOST_RESTARTS:-1000}

told=
trap 'told=1; kill -TERM "$child" 2>/dev/null' TERM INT
echo $$ >"${PID_FILE:-/dev/null}"

for ((restart = 0; restart <= MOST_RESTARTS; restart++)); do
  ((restart == 0)) || sleep "$PAUSE"
  setsid "$@" & # else Ctrl-C reaches it twice, and the second signal ends a run at once
  child=$!
  while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break # else a signal has ended the wait, not the command
  done
  [[ -n $told || $code == 0 || $code == 2 ]] && break
  echo "$0: exit code $code, started again" >&2
done
exit "$code"
