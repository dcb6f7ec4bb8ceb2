#!/usr/bin/env bash
# The same command on every host of a list, over ssh, as one training.
#
#   launch/multi_vm.sh hosts.txt python train.py --run /shared/runs/reviews ...
#
# hosts.txt has one host a line, as ssh takes it; the first is the coordinator. The command starts in this directory's
# path on every host (or in DIRECTORY) and gets --processes.coordinator, --processes.count and --processes.index.
# SIGTERM and Ctrl-C are passed on to every host.
#
# Exit code: 0 when all ended with 0. Otherwise the first of these that any host ended with: 2 (a user's mistake), 130
# (Ctrl-C), 42 (preempted, the state is saved: start again), and else what the first host of the list that failed says.
#
#   COORDINATOR  HOST:PORT that every host can reach; else the first host, port 8482
#   DIRECTORY    directory of the repository on every host; else this one
#   SSH          the command to use as ssh, in words; else ssh -oBatchMode=yes
set -euo pipefail

if [[ $# -lt 2 || ! -r $1 ]]; then
  echo "usage: launch/multi_vm.sh HOSTS_FILE COMMAND [WORD ...]" >&2
  exit 2
fi

mapfile -t hosts < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$1")
shift
if [[ ${#hosts[@]} -eq 0 ]]; then
  echo "expected a host on every line of the list, found none" >&2
  exit 2
fi

first=${hosts[0]#*@}
coordinator=${COORDINATOR:-$first:8482}
directory=${DIRECTORY:-$PWD}
read -ra ssh <<< "${SSH:-ssh -oBatchMode=yes}"
pid_file=/tmp/fastbert-$(date +%s)-$$

start() { # INDEX COMMAND...: run one process; ends with its exit code
  local index=$1 remote
  shift
  printf -v remote '%q ' "$@" --processes.coordinator "$coordinator" --processes.count "${#hosts[@]}" \
    --processes.index "$index"
  # The shell there becomes the command, so that its number is the command's.
  remote="echo \$\$ > $pid_file-$index && cd $(printf '%q' "$directory") && exec $remote"
  "${ssh[@]}" "${hosts[index]}" "$remote" < /dev/null 2>&1 |
    while IFS= read -r line || [[ -n $line ]]; do
      printf '%s\n' "[$index ${hosts[index]}] $line"
    done
}

interrupted=""
pass_on() { # SIGNAL: to the command on every host
  local index
  interrupted=yes
  for index in "${!hosts[@]}"; do
    "${ssh[@]}" "${hosts[index]}" "kill -s $1 \$(cat $pid_file-$index)" < /dev/null 2> /dev/null &
  done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

processes=()
for index in "${!hosts[@]}"; do
  start "$index" "$@" &
  processes+=($!)
done

codes=()
for process in "${processes[@]}"; do
  while :; do
    interrupted=""
    code=0
    wait "$process" || code=$?
    # A signal that was passed on ends the wait, not the process.
    [[ -n $interrupted ]] || break
  done
  codes+=("$code")
done
trap - TERM INT

for index in "${!hosts[@]}"; do
  "${ssh[@]}" "${hosts[index]}" "rm -f $pid_file-$index" < /dev/null 2> /dev/null || true
done

result=0
for index in "${!hosts[@]}"; do
  echo "${hosts[index]}: exit code ${codes[index]}" >&2
  if [[ $result -eq 0 ]]; then
    result=${codes[index]}
  fi
done
for wanted in 42 130 2; do # the last one found wins
  for code in "${codes[@]}"; do
    if [[ $code -eq $wanted ]]; then
      result=$wanted
    fi
  done
done
exit "$result"
