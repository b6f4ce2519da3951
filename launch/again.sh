#!/usr/bin/env bash
# Runs a command, and restarts it unless it exits with 0 (done) or 2 (invalid input):
#   launch/again.sh python -m gptjax.main --config=... --workdir=...
# After exit code 1, a bug, it is restarted at most three times without a newer checkpoint in --workdir. SIGTERM,
# Ctrl-C, SIGHUP and SIGUSR1 are forwarded to the command and end the restarts, also during the pause.
set -uo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

PAUSE=${PAUSE:-5} # seconds before a restart
MOST_RESTARTS=${MOST_RESTARTS:-1000}
STOPPED=75

stopping='' pending='' child=''
# shellcheck disable=SC2329 # the traps call it
stop() { # a trap runs between two commands, perhaps before `child` is set for a new process
  stopping=1
  if [[ -n $child ]]; then
    kill -s "$1" "$child" 2>/dev/null
  else
    pending=$1
  fi
}
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1 # forwarded unchanged: it never counts as the second signal, which ends a process
trap 'stop HUP' HUP # forwarded unchanged: a closing terminal sends it twice, and the command counts it once
echo $$ >"${PID_FILE:-/dev/null}"

# Starts its arguments as `child` and waits for it; the exit code is in `code`.
run() {
  setsid "$@" & # else Ctrl-C would reach it twice, and the second signal ends a run at once
  child=$!
  [[ -n $pending ]] && kill -s "$pending" "$child" 2>/dev/null
  pending=
  while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break # else a signal has ended the wait, not the command
  done
  wait "$child" # again: a signal may have ended the wait when the command exited
  code=$?
  child=
}

# Waits unless a stop signal arrives. `sleep` would lose a signal that arrives between its fork and its exec.
pause() {
  sleep "$PAUSE" &
  child=$!
  while [[ -z $stopping ]] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
  done
  kill -KILL "$child" 2>/dev/null
  child=
}

workdir=$(workdir_of "$@")
bugs=0 newest=$(newest_checkpoint "$workdir")
for ((restart = 0; restart <= MOST_RESTARTS; restart++)); do
  if ((restart > 0)); then
    pause
    if [[ -n $stopping ]]; then
      echo "$0: stopped before the restart" >&2
      exit "$STOPPED"
    fi
  fi
  run "$@"
  [[ -n $stopping || $code == 0 || $code == 2 ]] && break
  if ((code == 1)); then
    now=$(newest_checkpoint "$workdir")
    ((now > newest)) && bugs=0
    newest=$now
    if ((++bugs > MOST_BUGS)); then
      echo "$0: exit code 1 after $MOST_BUGS restarts without a newer checkpoint: see the error above" >&2
      break
    fi
  fi
  echo "$0: exit code $code, restarting" >&2
done
exit "$code"
