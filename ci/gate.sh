#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sessions of a port's gate and their evidence: the same on a laptop, in the image (its entry point) and on a CI runner.
#
#   gate.sh SESSION... [-- ARGUMENTS]        gate.sh prep workspace parity -- transformer
#
# FVPORT_PORT  folder of the port (default: the current one)
# FVPORT_OUT   folder that receives evidence, report, and one nox report a session (default: they stay in the port)
# FVPORT_SLUG  the port, where the tree holds several
# FVPORT_LOCKED  yes: prep is red where the weights are not those of the port.lock.json that was here before (CI says so)
# FVPORT_ENV   environment with fvport and nox (default: the image's, else the port's noxfile builds its own)
# Exit: 0 pass, 1 a check failed, 2 used wrongly, 3 blocked: not run, skipped, or without a fresh record.
set -uo pipefail

say() { printf 'gate.sh: %s\n' "$*" >&2; }
wrong() { say "$*"; exit 2; }

sessions=()
while (($#)) && [[ $1 != -- ]]; do
  case $1 in
    -h | --help) sed -n '4,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) wrong "unknown option $1; arguments for the sessions go after --" ;;
  esac
  sessions+=("$1"); shift
done
(($#)) && shift
[[ -n ${sessions[*]:-} ]] || wrong "name at least one session, such as: gate.sh mapping keys"

port=$(cd "${FVPORT_PORT:-.}" 2>/dev/null && pwd) || wrong "FVPORT_PORT=${FVPORT_PORT:-.} is no folder"
[[ -f $port/noxfile.py ]] || wrong "$port holds no noxfile.py: set FVPORT_PORT to the port's folder"
[[ -z ${FVPORT_ENV:-} && -x /opt/fvport/env/bin/nox ]] && FVPORT_ENV=/opt/fvport/env
[[ -n ${FVPORT_ENV:-} ]] && export FVPORT_ENV PATH="$FVPORT_ENV/bin:$PATH"
command -v nox >/dev/null || wrong "nox is not here: set FVPORT_ENV to an environment that has it (make env builds one)"

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap '[[ -n ${running:-} ]] && kill -TERM "$running" 2>/dev/null' TERM INT

field() { # field FILE KEY...: a value of a JSON file, or nothing
  python3 -c 'import functools, json, sys
try: print(functools.reduce(lambda d, k: d[int(k) if k.isdigit() else k], sys.argv[2:], json.load(open(sys.argv[1]))))
except (OSError, ValueError, LookupError, TypeError): pass' "$@"
}

fresh_record() { # the record that this run of a check left, not an older one
  find "$port/.fvport/evidence" -mindepth 2 -maxdepth 2 -path "*/${FVPORT_SLUG:-*}/$1.json" \
    -newer "$scratch/start" 2>/dev/null | head -n 1
}

locked() { # what port.lock.json says of the weights, or nothing (FVPORT_SLUG may be unset: then of the only port)
  local file
  for file in "$port"/tests/local_tests/${FVPORT_SLUG:-*}/port.lock.json; do field "$file" components; done
  # shellcheck disable=SC2231 # a slug has no spaces, and * has to be a pattern
  for file in "$port"/tests/local_tests/${FVPORT_SLUG:-*}/variants/*/port.lock.json; do
    [[ -f $file ]] && { echo "${file#"$port"}"; field "$file" components; }
  done
}

judge() { # judge SESSION NOX_CODE: nox knows only red and green; the record knows blocked
  local record verdict
  [[ $(field "$scratch/$1.json" sessions 0 result) == skipped ]] && { say "$1 was skipped, and a skip is no pass"; return 3; }
  case $1 in
    prep)
      (($2)) && return 1
      [[ -z ${FVPORT_LOCKED:-} ]] && return 0
      [[ -n $lock && $lock != "{}" ]] || { say "port.lock.json locks no weights: run nox -s prep and commit it"; return 3; }
      [[ $(locked) == "$lock" ]] || { say "the weights here are not those of port.lock.json"; return 1; }
      return 0 ;;
    workspace | report) return $(($2 != 0)) ;;
    gate)
      (($2)) || return 0
      (cd "$port" && fvport gate --json "${arguments[@]}" >"$scratch/verdict.json" 2>/dev/null); verdict=$?
      return $((verdict ? verdict : 1)) ;;
  esac
  record=$(fresh_record "$1")
  [[ -n $record ]] || { say "$1 left no record"; return $(($2 ? 1 : 3)); }
  verdict=$(field "$record" verdict)
  case $2:$verdict in 0:pass) return 0 ;; *:blocked) return 3 ;; *) return 1 ;; esac
}

lock=$(locked)
arguments=("$@")
codes=() red=()
for session in "${sessions[@]}"; do
  touch "$scratch/start"
  nox -R -f "$port/noxfile.py" --non-interactive --report "$scratch/$session.json" -s "$session" -- "$@" &
  running=$!
  wait "$running"; code=$?
  running=
  ((code > 128)) && { say "interrupted in $session"; codes+=("$code"); red+=("$session"); break; }
  ((code == 3)) && wrong "the port's noxfile has no session $session"
  judge "$session" "$code"; code=$?
  codes+=("$code")
  ((code)) && red+=("$session")
done

if [[ -n ${FVPORT_OUT:-} ]]; then
  mkdir -p "$FVPORT_OUT" || exit 1
  for folder in evidence report; do
    if [[ -d $port/.fvport/$folder ]]; then cp -R "$port/.fvport/$folder" "$FVPORT_OUT/" || exit 1; fi
  done
  for session in "${sessions[@]}"; do
    if [[ -f $scratch/$session.json ]]; then cp "$scratch/$session.json" "$FVPORT_OUT/nox-$session.json" || exit 1; fi
  done
fi

[[ -n ${red[*]:-} ]] && say "not green: ${red[*]}"
for code in "${codes[@]}"; do ((code > 128)) && exit "$code"; done
for worst in 1 2 3; do
  for code in "${codes[@]}"; do ((code == worst)) && exit "$worst"; done
done
exit 0
