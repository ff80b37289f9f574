#!/usr/bin/env bash
# One run on GPUs of a SLURM cluster, taken up again until it is finished.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     --config=quickstart.py --workdir=/shared/quickstart
#
# One process for each GPU, which is how JAX counts them under SLURM. The
# workdir lies where all nodes see it. Two minutes before its time is up, or
# when it is preempted, the run saves and leaves, and the job goes back into
# the queue. A run that fails is not repeated.
#
#SBATCH --job-name=big_distill
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

workdir=''
for word; do
  [[ $word != --workdir=* ]] || workdir=${word#--workdir=}
done
if [[ ! $workdir ]]; then
  echo 'Error: --workdir=DIR is missing: a folder that all nodes see.' >&2
  exit 2
elif [[ $workdir == *://* ]]; then
  echo "Error: --workdir=$workdir: whether a run is finished is asked of a" \
    'folder that all nodes see. Name one.' >&2
  exit 2
fi
workdir=${workdir/#\~\//$HOME/}  # As the run reads it.

srun --kill-on-bad-exit=1 big-distill "$@" --distributed

# A run that left before its end has exit code 0, and no result; of students that
# learn together each has a folder of its own.
shopt -s nullglob
begun=("$workdir/config.json")
[[ -e ${begun[0]} ]] || begun=("$workdir"/*/config.json)
finished=${#begun[@]}
for config in "${begun[@]}"; do
  [[ -e ${config%config.json}result.json ]] || finished=0
done
if ((!finished)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
