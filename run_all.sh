#!/usr/bin/env bash
# One door: sets up the environment on first use, then runs everything. ./run_all.sh --help lists the commands.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
need_gb=8 # of disk, for the environment
# Linux: reuse the memory of large tensors in place of handing it back and asking for it again at every step.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-1073741824}

fail() { echo "run_all.sh: $*" >&2; exit 1; }

# An active conda environment counts as the project's if the project is installed in it.
if [[ -n ${CONDA_PREFIX:-} && -x $CONDA_PREFIX/bin/python ]] && (cd / && "$CONDA_PREFIX/bin/python" -c \
    'import importlib.metadata as m; m.version("saliency-companion")' 2>/dev/null); then
  exec "$CONDA_PREFIX/bin/python" -m saliency_lib "$@"
fi

find_python() { # prints the first Python that is new enough and can make environments
  local seen="" candidate version
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    seen+="${seen:+, }$candidate is $version"
  done
  fail "needs Python 3.11 or newer with its venv module (${seen:-no Python found}); install one, for example with" \
    "'apt-get install python3 python3-venv', or use conda with environment.yml."
}

set_up() { # makes .venv from requirements.lock; a half-made one is completed by the next call
  local python free log=$root/build/setup.log
  mkdir -p "$root/build" 2>/dev/null || fail "cannot write in $root; copy the project to a folder of your own."
  free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1048576) }')
  if ((free < need_gb)); then
    fail "the disk of $root has $free GB free, the environment needs $need_gb GB; free some space and run again."
  fi
  "$venv/bin/python" -c '' 2>/dev/null || {
    python=$(find_python) || exit 1
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$log" 2>&1 || fail "could not make $venv: $(tail -n 1 "$log")"
  }
  echo "Setting up $venv once, a few minutes; log in $log" >&2
  # The lock is complete. It holds one OpenCV, the headless one, since the other needs graphics libraries.
  if ! { "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$root/requirements.lock" &&
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e "$root"; } \
    >"$log" 2>&1; then
    if grep -qi "no space left" "$log"; then
      fail "the disk filled up during set-up; free some space ($need_gb GB in all) and run again."
    elif grep -qiE "connection|name resolution|max retries|timed out|proxy|from versions: none" "$log"; then
      fail "the package registry cannot be reached; check the network or pip's settings and run again (log: $log)."
    fi
    fail "set-up failed: $(grep -i error "$log" | tail -n 1) (log: $log)"
  fi
  echo "$key" >"$venv/.complete"
}

venv=$root/.venv
key=$(cat "$root/requirements.lock" "$root/pyproject.toml" | cksum)
if [[ $(cat "$venv/.complete" 2>/dev/null) != "$key" ]] || ! [[ -x $venv/bin/python ]]; then
  set_up
fi
exec "$venv/bin/python" -m saliency_lib "$@"
