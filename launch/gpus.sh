#!/usr/bin/env bash
# A sweep on a box with several GPUs: a point on each, the next where one ends.
#
#   launch/gpus.sh --config=optimizers.py --workdir=DIR
#   GPUS=0,1,5 launch/gpus.sh --config=optimizers.py --workdir=DIR
#
# The words are those of big-distill-sweep. A single run needs no script:
# big-distill takes all GPUs. Ctrl-C or SIGTERM has all points save and leave;
# the same command goes on. Ends with the table of what is finished.

set -euo pipefail

if [[ ! ${GPUS:-} ]]; then
  GPUS=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)
fi
IFS=, read -ra gpus <<<"$GPUS"
commands=$(big-distill-sweep "$@")
points=$(wc -l <<<"$commands")
echo "$points points on ${#gpus[@]} GPUs: $GPUS."

# Slots are numbered from 0, GPUs as the user has them.
export GPUS
# shellcheck disable=SC2016  # Expanded by the inner bash.
seq 0 "$((points - 1))" | xargs -P "${#gpus[@]}" -I '{}' \
  --process-slot-var=SLOT bash -c '
    IFS=, read -ra gpus <<<"$GPUS"
    CUDA_VISIBLE_DEVICES=${gpus[SLOT]} exec big-distill-sweep "$@"' \
  point "$@" '--index={}' &
workers=$!

# shellcheck disable=SC2329  # The trap calls it.
leave() {  # First stops what would start the next points, then the points.
  local running
  running=$(pgrep -P "$workers" || true)
  kill -TERM "$workers" 2>/dev/null || true
  # shellcheck disable=SC2086  # One word for each process.
  if [[ $running ]]; then
    kill -TERM $running
    while kill -0 $running 2>/dev/null; do sleep .2; done
  fi
  exit 143
}
trap leave TERM INT

code=0
wait "$workers" || code=$?
big-distill-sweep "$@" --rank
exit "$code"
