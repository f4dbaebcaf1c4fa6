#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for trying and testing: slurm_one_node.sh install|start|stop|status
#
# Debian or Ubuntu, as root. `start` writes its own configuration and state under $SLURM_ONE_NODE (default
# /var/tmp/slurm-one-node) and leaves /etc alone; use it with: export SLURM_CONF=/var/tmp/slurm-one-node/slurm.conf
# Two partitions: "low" is preempted (signalled, then requeued) by jobs of "high".
set -euo pipefail

home=${SLURM_ONE_NODE:-/var/tmp/slurm-one-node}
export SLURM_CONF=$home/slurm.conf

install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
}

configure() {
    mkdir -p "$home"/{state,spool,log}
    chmod 755 "$home" "$home"/*
    cat >"$SLURM_CONF" <<EOF
ClusterName=one
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket
CredType=cred/munge
SlurmctldPort=${SLURM_ONE_NODE_PORT:-16817}
SlurmdPort=$((${SLURM_ONE_NODE_PORT:-16817} + 1))
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=20
MinJobAge=600
InactiveLimit=0
BatchStartTimeout=20
NodeName=$(hostname -s) CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$(free -m | awk '/^Mem:/ {print int($2 * 0.9)}') State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 OverSubscribe=NO
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF OverSubscribe=NO
EOF
}

munge_up() {
    mkdir -p "$home/munge"
    [ -s "$home/munge/key" ] || dd if=/dev/urandom of="$home/munge/key" bs=1024 count=1 status=none
    chown -R munge:munge "$home/munge"
    chmod 711 "$home/munge"
    chmod 400 "$home/munge/key"
    runuser -u munge -- munged --force --key-file="$home/munge/key" --socket="$home/munge/socket" \
        --pid-file="$home/munge/pid" --log-file="$home/munge/log" --seed-file="$home/munge/seed"
}

running() { # does the process of a pid file live?
    [ -s "$1" ] && kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null
}

start() {
    [ "$(id -u)" = 0 ] || { echo "slurm_one_node.sh must run as root" >&2; exit 2; }
    command -v slurmctld >/dev/null && command -v munged >/dev/null ||
        { echo "Slurm is not installed: slurm_one_node.sh install" >&2; exit 2; }
    configure
    running "$home/munge/pid" || munge_up
    running "$home/slurmctld.pid" || slurmctld
    running "$home/slurmd.pid" || slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        scontrol update NodeName="$(hostname -s)" State=RESUME 2>/dev/null || true
        sleep 1
    done
    echo "the node does not come up: see $home/log" >&2
    exit 1
}

stop() {
    for name in slurmd slurmctld munge/pid; do
        file=$home/$name
        [ "$name" = munge/pid ] || file=$home/$name.pid
        if running "$file"; then
            kill "$(cat "$file")"
            for _ in $(seq 100); do running "$file" || break; sleep 0.1; done
        fi
    done
}

status() {
    sinfo && squeue
}

case ${1:-} in
install | start | stop | status) "$1" ;;
*)
    echo "usage: slurm_one_node.sh install|start|stop|status" >&2
    exit 2
    ;;
esac
