#!/usr/bin/env bash
# Runs a command, and runs it again when it ends with anything but 0 (done) or 2 (wrong input):
#   launch/again.sh python -m gptjax.main --config=... --workdir=...
# After exit code 1, a bug, it is started again three times at most, unless there is a newer checkpoint in
# --workdir. SIGTERM, Ctrl-C, SIGHUP and SIGUSR1 go on to the command, and are the end; during the pause too.
set -uo pipefail
# shellcheck source=launch/restarts.sh
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

PAUSE=${PAUSE:-5} # seconds before it is started again
MOST_RESTARTS=${MOST_RESTARTS:-1000}
STOPPED=75

told='' pending='' child=''
# shellcheck disable=SC2329 # the traps call it
stop() { # a trap runs between two commands: perhaps before the process that was just started has a name
  told=1
  if [[ -n $child ]]; then
    kill -s "$1" "$child" 2>/dev/null
  else
    pending=$1
  fi
}
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1 # as itself: it is never the second signal, which ends a process at once
trap 'stop HUP' HUP # as itself: a terminal that closes sends it twice, and the command counts it once
echo $$ >"${PID_FILE:-/dev/null}"

# Starts its arguments as `child` and waits for it; the exit code is in `code`.
run() {
  setsid "$@" & # else Ctrl-C reaches it twice, and the second signal ends a run at once
  child=$!
  [[ -n $pending ]] && kill -s "$pending" "$child" 2>/dev/null
  pending=
  while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break # else a signal has ended the wait, not the command
  done
  wait "$child" # again: a signal may have ended the wait as it came to its end
  code=$?
  child=
}

# Waits, until it is told to stop. A signal that meets `sleep` between its fork and its exec would be lost there.
pause() {
  sleep "$PAUSE" &
  child=$!
  while [[ -z $told ]] && kill -0 "$child" 2>/dev/null; do
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
    if [[ -n $told ]]; then
      echo "$0: told to stop before it was started again" >&2
      exit "$STOPPED"
    fi
  fi
  run "$@"
  [[ -n $told || $code == 0 || $code == 2 ]] && break
  if ((code == 1)); then
    now=$(newest_checkpoint "$workdir")
    ((now > newest)) && bugs=0
    newest=$now
    if ((++bugs > MOST_BUGS)); then
      echo "$0: exit code 1 after $MOST_BUGS restarts without a newer checkpoint: see the error above" >&2
      break
    fi
  fi
  echo "$0: exit code $code, started again" >&2
done
exit "$code"
