#!/usr/bin/env bash
# Distils on a Cloud TPU slice, through preemptions, and deletes the slice.
#
#   ./run_tpu.sh --name=NAME --zone=ZONE --type=TYPE --version=VERSION \
#       --config=FILE.py[:ARGS] --workdir=gs://BUCKET/DIR [OPTIONS] [-- FLAGS]
#
#   ./run_tpu.sh --name=funmatch --zone=us-central2-b --type=v4-32 --spot \
#       --version=tpu-ubuntu2204-base --workdir=gs://my-bucket/funmatch \
#       --config=configs/quickstart.py:epochs=300 -- --config.batch_size=1024
#
#   --name          of the slice; it is created, and must not exist yet
#   --zone          of Google Cloud, where the type is offered
#   --type          accelerator type, FAMILY-SIZE: v3-8, v4-32, v5litepod-16
#   --version       image of the slice: tpu-ubuntu2204-base, v2-alpha-tpuv6e
#   --config        file of configs/ that git tracks, with its arguments
#   --workdir       folder of checkpoints and results; resumes what is there
#   --project       instead of gcloud's own
#   --data_dir      becomes TFDS_DATA_DIR
#   --spot          a cheaper slice, which may be preempted at any time
#   --queued        wait in the queue for a slice, as a queued resource, for days
#                   if need be, where without it no capacity is an error
#   --keep          use the slice if it exists, and do not delete it at the end
#   --unchecked     create the slice without compiling for it first
#   --max_failures  of the program on one slice, before giving up; default 3
#   --pause         seconds between attempts; default 30
#   --dry_run       print the commands of a successful run, and run none
#   --help          print this
#   -- FLAGS        passed to big_distill.main as they are
#
# Where python3 has big_distill and libtpu (pip install -e '.[tpu]', no TPU needed),
# the run is compiled for the slice before anything is created, in minutes; a
# slice that does not hold it is refused, with what would.
#
# What git tracks, as it is in the working tree, is installed on all workers,
# where the program then runs. After a preemption the slice is created anew,
# however long that takes, and the same command resumes from the workdir. If the
# program fails, the last exit code is this script's. Ctrl-C deletes the slice;
# with --keep, it leaves the slice, and maybe the program, running.
#
# A slice of several hosts needs your key in ssh-agent:
#   ssh-add ~/.ssh/google_compute_engine

set -euo pipefail

readonly REQUIRED='name zone type version config workdir'
readonly OPTIONAL='project data_dir max_failures pause'
readonly SWITCHES='spot queued keep unchecked dry_run help'

name='' zone='' type='' version='' config='' workdir=''
project='' data_dir='' max_failures=3 pause=30
spot='' queued='' keep='' unchecked='' dry_run='' help=''
program_flags=()

created=''
temp=''
root=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Commands and news go to 3: run's own output may be captured.
exec 3>&2

# An image may bring an older Python than setup.py asks for, and no venv; uv
# fetches its own. Where Python is the distribution's to manage, pip installs
# nothing beside it unless told to.
readonly INSTALL="rm -rf big_distill && mkdir big_distill \
&& tar -xzf big_distill.tar.gz -C big_distill \
&& PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user --quiet uv \
&& python3 -m uv venv --seed --allow-existing --python=3.11 big_distill_env \
&& cd big_distill \
&& ../big_distill_env/bin/python -m pip install --quiet -e '.[train,tpu]'"


say() {
  [[ $dry_run ]] || printf 'run_tpu.sh: %s\n' "$*" >&3
}

fail() {
  printf 'Error: %s\n' "$*" >&2
  exit 2
}

quote() {  # Prints words as a line that a shell reads back as these words.
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

run() {  # Prints a command, and runs it unless --dry_run.
  quote "$@" >&3
  [[ $dry_run ]] || "$@"
}

cloud() {  # KIND VERB ARGUMENTS of gcloud compute tpus.
  local kind=$1 verb=$2
  shift 2
  # --quiet: at night nobody is there to answer a question.
  run gcloud compute tpus "$kind" "$verb" --quiet "--zone=$zone" \
    ${project:+"--project=$project"} "$@"
}

tpu() {  # VERB ARGUMENTS, of a slice.
  cloud tpu-vm "$@"
}

request() {  # VERB ARGUMENTS, of a place in the queue, called as its slice.
  cloud queued-resources "$@"
}


is_one_of() {  # WORD WORDS
  [[ $1 =~ ^[A-Za-z_]+$ && " $2 " == *" $1 "* ]]
}

parse() {
  local word option
  while (($#)); do
    word=$1
    shift
    if [[ $word == -- ]]; then
      program_flags=("$@")
      return
    fi
    option=${word%%=*}
    option=${option#--}
    if [[ $word != --* ]] ||
        ! is_one_of "$option" "$REQUIRED $OPTIONAL $SWITCHES"; then
      fail "Unknown option $word. Allowed, each with -- before it: $REQUIRED" \
        "$OPTIONAL $SWITCHES. Flags of big_distill.main go after a lone --."
    elif is_one_of "$option" "$SWITCHES"; then
      [[ $word != *=* ]] ||
        fail "$word: --$option takes no value. Give it as --$option, or not."
      printf -v "$option" yes
    elif [[ $word == *=* ]]; then
      printf -v "$option" %s "${word#*=}"
    else
      [[ $# -gt 0 && $1 != --* ]] ||
        fail "$word has no value. Give one as $word=VALUE."
      printf -v "$option" %s "$1"
      shift
    fi
  done
}

check() {  # Stops at what would otherwise fail on a slice, which costs money.
  local option missing=''
  for option in $REQUIRED; do
    [[ ${!option} ]] || missing+=" --$option"
  done
  [[ ! $missing ]] ||
    fail "Missing$missing. Needed: --${REQUIRED// / --}. See --help."

  [[ $type != v5e-* ]] ||
    fail "--type=$type: the cloud calls it v5litepod-${type#*-}."
  [[ $type =~ ^[a-z0-9]+-[1-9][0-9]*$ ]] ||
    fail "--type=$type: allowed is FAMILY-SIZE, such as v4-32. For all of a" \
      "zone: gcloud compute tpus accelerator-types list --zone=$zone"
  [[ $max_failures =~ ^[1-9][0-9]*$ ]] ||
    fail "--max_failures=$max_failures: give a whole number, 1 or more."
  [[ $pause =~ ^[0-9]+$ ]] ||
    fail "--pause=$pause: give a whole number of seconds."

  # One host has up to 8 cores of v2, v3, v4 and v5p, or 8 chips of the others.
  if [[ $workdir != gs://* ]]; then
    ((${type##*-} <= 8)) ||
      fail "--workdir=$workdir: hosts of a $type share no disk. Give a folder" \
        'in a bucket, gs://BUCKET/DIR.'
    [[ $keep ]] ||
      fail "--workdir=$workdir would be deleted with the slice. Give a folder" \
        'in a bucket, gs://BUCKET/DIR, or pass --keep.'
  fi

  git -C "$root" rev-parse --git-dir &>/dev/null ||
    fail "$root is no git checkout, so what to copy is unknown. Clone it."
  git -C "$root" --literal-pathspecs ls-files --error-unmatch -- \
      "${config%%:*}" &>/dev/null ||
    fail "--config=$config: git does not track ${config%%:*}, so workers" \
      "would lack it. Give a path from $root; if it is new, git add it."
  [[ $dry_run ]] || command -v gcloud >/dev/null ||
    fail 'No gcloud on PATH. Install it from https://cloud.google.com/sdk, or' \
      'pass --dry_run.'
}


pack() {
  # Only the name: in a dry run too, mkdir is the command that makes it.
  temp=$(mktemp -du)
  run mkdir -m 700 "$temp"
  run cd "$root"
  # shellcheck disable=SC2016  # Expanded by the inner bash.
  run bash -o pipefail -c 'git ls-files -z | tar --null -czf "$0" -T -' \
    "$temp/big_distill.tar.gz"
}

foresee() {  # Refuses a slice that does not hold the run.
  local word before='' overrides=()
  [[ ! $unchecked ]] || return 0
  if ! run python3 -c 'import libtpu, big_distill.programs' 2>/dev/null; then
    say "python3 has no libtpu or not all of big_distill, so whether a $type" \
      "holds this run is not known. pip install -e '.[tpu]' lets it be seen."
    return
  fi
  for word in "${program_flags[@]}"; do
    # A value may be a word of its own, as big_distill.main has it.
    [[ $word != --config.* && ($before != --config.* || $before == *=* ||
        $word == --*) ]] || overrides+=("$word")
    before=$word
  done
  say "Compiling for a $type, which takes minutes; --unchecked leaves it out."
  run python3 -m big_distill.tools.compile "--config=$config" \
    "--slice=$type" --noevals "${overrides[@]}" >&2 ||
    fail "--type=$type is refused, see above; --unchecked creates it all the same."
}

state() {  # READY, PREEMPTED, ... or MISSING; in a dry run, what is expected.
  local found ask=(tpu describe "$name" '--format=value(state)')
  [[ ! $queued ]] || ask=(request describe "$name" '--format=value(state.state)')
  if [[ $dry_run ]]; then
    "${ask[@]}"
    echo "$1"
  elif found=$("${ask[@]}" 2>"$temp/errors"); then
    # What a request is called that has its slice, has lost it or got none.
    case $queued$found in
      yesACTIVE) echo READY ;;
      yesSUSPENDED | yesFAILED) echo TERMINATED ;;
      *) echo "$found" ;;
    esac
  elif grep -q NOT_FOUND "$temp/errors"; then
    echo MISSING
  else
    # No network or an expired login say nothing about the slice.
    cat "$temp/errors" >&2
    return 1
  fi
}

settled_state() {  # Waits for a state that asks for action.
  local found
  until found=$(state READY) &&
      is_one_of "$found" 'READY PREEMPTED TERMINATED UNKNOWN MISSING'; do
    say "The slice $name is ${found:-out of reach}; looking again in $pause s."
    sleep "$pause"
  done
  echo "$found"
}

create() {
  # Before the command: interrupted, it may leave a slice behind.
  created=yes
  if [[ ! $queued ]]; then
    tpu create "$name" "--accelerator-type=$type" "--version=$version" \
      ${spot:+--spot}
    return
  fi
  request create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$version" ${spot:+--spot} || return
  [[ $(settled_state) == READY ]]
}

delete() {
  if [[ $queued ]]; then
    request delete "$name" --force  # And its slice.
  else
    tpu delete "$name"
  fi
}

recreate() {
  while true; do
    # A failed creation may leave remains, too.
    delete || true
    ! create || return 0
    say "No new slice yet; trying again in $pause s."
    sleep "$pause"
  done
}

claim() {
  local found
  found=$(state MISSING)
  if [[ $found == MISSING ]]; then
    create
  elif [[ $keep ]]; then
    say "Using the slice $name, which is $found."
  else
    fail "The slice $name exists in $zone already, and is $found; this run" \
      'would delete it at its end. Choose another --name, or pass --keep.'
  fi
}

on_workers() {
  # A preempted host answers no more; by default ssh waits for it for hours.
  tpu ssh "$name" --worker=all \
    '--ssh-flag=-o ServerAliveInterval=60 -o ConnectTimeout=30' "--command=$1"
}

install() {
  tpu scp "$temp/big_distill.tar.gz" "$name:big_distill.tar.gz" --worker=all &&
    on_workers "$INSTALL"
}

# A program outlives a lost connection, and holds the TPU. gcloud connects again
# by itself, so it is the command that must make way for itself.
# shellcheck disable=SC2016  # Expanded on the workers.
make_way() {
  printf %s 'pid=$(cat ../big_distill.pid 2>/dev/null || echo none)' \
    ' && while grep -qs big_distill.main "/proc/$pid/cmdline";' \
    ' do kill -9 "$pid"; sleep 1; done && echo $$ >../big_distill.pid'
}

launch() {
  local program=(../big_distill_env/bin/python -m big_distill.main
    "--config=$config" "--workdir=$workdir" --distributed
    "${program_flags[@]}")
  [[ ! $data_dir ]] ||
    program=(env "TFDS_DATA_DIR=$data_dir" "${program[@]}")
  on_workers "cd big_distill && $(make_way) && exec $(quote "${program[@]}")"
}

distil() {
  local code found failures=0
  while true; do
    code=0
    { install && launch; } || code=$?
    # A preempted program saves and leaves, with exit code 0 even; the state of
    # its slice may follow a moment later.
    [[ $dry_run ]] || sleep "$pause"
    found=$(settled_state)
    if [[ $found != READY ]]; then
      say "The slice $name is $found; creating it again."
      recreate
      failures=0
    elif ((code == 0)); then
      return
    else
      failures=$((failures + 1))
      say "Exit code $code: failure $failures of $max_failures."
      ((failures < max_failures)) || exit "$code"
    fi
  done
}

clean_up() {
  local code=$?
  # Neither a second Ctrl-C nor a closed terminal may leave a slice running.
  trap '' INT TERM HUP PIPE
  set +e
  # Ctrl-C ends a tee behind this script too; gcloud must not mind.
  say 'Cleaning up.' || exec >/dev/null 2>&1 3>&1
  if [[ $created && ! $keep ]] && ! delete &&
      [[ $(state MISSING) != MISSING ]]; then
    say "The slice $name could not be deleted, and costs money. Delete it:"
    dry_run=yes delete
    code=$((code ? code : 1))
  fi
  run rm -rf "$temp"
  exit "$code"
}

main() {
  ((BASH_VERSINFO[0] >= 5)) ||
    fail "This is bash $BASH_VERSION; bash 5 is needed. Install it."
  parse "$@"
  if [[ $help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    return
  fi
  check
  [[ ! $dry_run ]] || exec 3>&1

  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 141' PIPE
  trap 'exit 143' TERM
  pack
  foresee
  claim
  distil
}

main "$@"
