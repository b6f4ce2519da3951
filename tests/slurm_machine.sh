#!/usr/bin/env bash
# A Slurm of one machine that plays two nodes, for tests; needs root on Debian or Ubuntu:
#   tests/slurm_machine.sh start FOLDER    installs what is missing, starts munge, slurmctld and slurmd
#   tests/slurm_machine.sh stop FOLDER
# Its configuration, state and logs lie in FOLDER; clients need SLURM_CONF=FOLDER/slurm.conf. The second node has a
# name that no host has, and is taken only by jobs of two nodes. Jobs of the partition `urgent` preempt others.
set -euo pipefail

action=${1:?start or stop} folder=$(realpath -m "${2:?a folder}")
export SLURM_CONF=$folder/slurm.conf

start() {
  if ! command -v slurmctld munged slurmd >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge >/dev/null
  fi
  mkdir -p "$folder/state" "$folder/spool"
  local host
  host=$(hostname -s)
  cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1
JobRequeue=1
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=$(nproc) Weight=1 State=UNKNOWN
NodeName=second NodeHostname=$host NodeAddr=127.0.0.1 Port=16819 CPUs=$(nproc) Weight=2 State=UNKNOWN
PartitionName=all Nodes=$host,second Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=$host,second PriorityTier=10 MaxTime=INFINITE State=UP
END
  if ! munge -n >/dev/null 2>&1; then
    [[ -e /etc/munge/munge.key ]] || mungekey --create
    chown munge: /etc/munge/munge.key
    mkdir -p /run/munge
    chown munge: /run/munge
    runuser -u munge -- /usr/sbin/munged
    echo started >"$folder/munge"
  fi
  slurmctld -c
  mkdir -p "$folder/spool/$host" "$folder/spool/second"
  slurmd -c -N "$host"
  slurmd -c -N second
  for ((i = 0; i < 100; i++)); do
    [[ $(sinfo --noheader --partition=all --format=%T 2>/dev/null) == idle ]] && return
    sleep 0.2
  done
  tail -n 20 "$folder"/*.log >&2
  exit 1
}

stop() {
  scontrol shutdown 2>/dev/null || true
  for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid"; do
    if [[ -e $file ]]; then
      kill "$(cat "$file")" 2>/dev/null || true
    fi
  done
  if [[ -e $folder/munge ]]; then
    munged --stop
    rm "$folder/munge"
  fi
}

case $action in
  start) start ;;
  stop) stop ;;
  *) exit 2 ;;
esac
