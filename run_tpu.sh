#!/usr/bin/env bash
# Distils on a Google Cloud TPU slice: creates it, installs, trains on all its
# workers, starts again after a preemption, and deletes it at the end.
#
#   ./run_tpu.sh --name=NAME --zone=ZONE --type=v3-32 --config=configs/FILE.py \
#       --workdir=gs://BUCKET/RUN [options] [-- FLAGS OF big_distill.main]
#
#   --version=V       runtime of the slice (default: tpu-ubuntu2204-base)
#   --project=P       Google Cloud project (default: gcloud's own)
#   --data_dir=DIR    where prepared TFDS datasets are, such as gs://BUCKET/tfds
#   --max_failures=N  the program may fail so often on a healthy slice (3)
#   --spot            a cheaper slice that may be taken away
#   --keep            do not delete the slice at the end
#   --dry_run         print every command of an undisturbed run, and run none
#
# Example of a flag for the program:  -- --config.batch_size=1024
set -euo pipefail

name='' zone='' type='' config='' workdir='' project='' data_dir=''
version=tpu-ubuntu2204-base max_failures=3 spot='' keep='' dry_run=''
extra=()

fail() { echo "Error: $*" >&2; exit 2; }

parse() {
  while (($#)); do
    case $1 in
      --name=*|--zone=*|--type=*|--config=*|--workdir=*|--project=*|\
      --data_dir=*|--version=*|--max_failures=*)
        local key=${1%%=*}
        printf -v "${key#--}" '%s' "${1#*=}" ;;
      --spot) spot=1 ;;
      --keep) keep=1 ;;
      --dry_run) dry_run=1 ;;
      --help|-h) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
      --) shift; extra=("$@"); break ;;
      *) fail "unknown option $1; see $0 --help (program flags go after --)" ;;
    esac
    shift
  done
  local required
  for required in name zone type config workdir; do
    [[ -n ${!required} ]] || fail "--$required is missing; see $0 --help"
  done
  [[ $workdir == gs://* ]] || fail "--workdir=$workdir: workers share no disk," \
    "so it must be a gs:// address"
  [[ $max_failures =~ ^[0-9]+$ ]] || fail "--max_failures=$max_failures is not" \
    "a number"
}

# Prints a command as a shell would need it written; runs it unless dry.
run() {
  printf '%q ' "$@"; echo
  [[ -n $dry_run ]] || "$@"
}

tpu() {  # A verb of gcloud, its arguments in between, on the slice.
  local verb=$1; shift
  run gcloud compute tpus tpu-vm "$verb" "$@" --zone="$zone" \
    ${project:+--project="$project"}
}

create() {
  tpu create "$name" --accelerator-type="$type" --version="$version" \
    ${spot:+--spot}
}

delete() { tpu delete "$name" --quiet; }

state() {
  gcloud compute tpus tpu-vm describe "$name" --zone="$zone" \
    ${project:+--project="$project"} --format='value(state)' 2>/dev/null ||
    echo MISSING
}

on_workers() { tpu ssh "$name" --worker=all --command="$1"; }

install() {
  local tar=/tmp/big_distill_$name.tar.gz
  run tar czf "$tar" --exclude-vcs -C "$root" .
  tpu scp "$tar" "$name:big_distill.tar.gz" --worker=all
  on_workers 'mkdir -p big_distill && tar xzf big_distill.tar.gz -C big_distill
sudo apt-get install -yq python3-venv
python3 -m venv venv && venv/bin/pip install -q -e "big_distill[tpu]"'
}

# What each worker runs; the same words again resume from the workdir.
program() {
  printf 'cd big_distill && '
  [[ -z $data_dir ]] || printf 'TFDS_DATA_DIR=%q ' "$data_dir"
  printf '../venv/bin/python -m big_distill.main'
  printf ' %q' --config="$config" --workdir="$workdir" --distributed \
    ${extra[@]+"${extra[@]}"}
}

prepare() { create && install; }

clean_up() { [[ -n $keep || -z ${created:-} ]] || delete || true; }

parse "$@"
root=$(cd "$(dirname "$0")" && pwd)
trap clean_up EXIT
trap 'exit 130' INT TERM

failures=0
created=1
prepare
until on_workers "$(program)"; do
  code=$?
  case $(state) in
    READY)
      failures=$((failures + 1))
      if ((failures > max_failures)); then
        echo "Error: failed $failures times on a healthy slice." >&2
        exit "$code"
      fi ;;
    *)  # Preempted, or gone.
      delete || true
      until prepare; do
        delete || true
        sleep "${RETRY_SECONDS:-60}"
      done ;;
  esac
done
