#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A step of the gate on Buildkite: step.sh check NAME, or step.sh verdict SLUG... (pipeline.py beside it makes the steps).
# The same commands as the workflow's, in the same image. Exit: 0 green; else the worst of what ran.
set -euo pipefail

inside() { bash "$(dirname "${BASH_SOURCE[0]}")/in-image.sh" "$@"; }
export IMAGE=${FVPORT_GATE_IMAGE:-}

case ${1:-} in
  check)
    check=${2:?name the check}
    export OUT="$PWD/gate-out/$FVPORT_SLUG-$check"
    weights=${FVPORT_WEIGHTS:-}
    [[ $PREPARE == workspace ]] && weights=
    read -ra sessions <<<"$PREPARE"
    FVPORT_WEIGHTS=$weights inside "${sessions[@]}"
    FVPORT_WEIGHTS=$weights NETWORK=none inside "$check"
    ;;
  verdict)
    shift
    (($#)) || { echo "step.sh: the plan named no port" >&2; exit 2; }
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for slug in "$@"; do FVPORT_SLUG=$slug inside prep workspace; done
    # Of another build nothing is taken: the artifacts are this build's, and its number is what the gate asks for.
    buildkite-agent artifact download 'gate-out/**/*.json' "$scratch" || echo "step.sh: no check left evidence" >&2
    rm -rf .fvport/evidence
    mkdir -p .fvport/evidence
    for folder in "$scratch"/gate-out/*/evidence; do
      if [[ -d $folder ]]; then cp -R "$folder/." .fvport/evidence/; fi
    done
    only=(--only-run "$FVPORT_RUN" --only-commit "$FVPORT_COMMIT")
    [[ -n $IMAGE ]] && only+=(--only-image "$IMAGE")
    red=0
    for slug in "$@"; do
      export FVPORT_SLUG=$slug OUT="$PWD/gate-out/verdict/$slug"
      NETWORK=none inside gate -- --markdown "$OUT/verdict.md" "${only[@]}" || red=$?
      [[ -f $OUT/verdict.md ]] && buildkite-agent annotate --context "$slug" <"$OUT/verdict.md"
    done
    exit "$red"
    ;;
  *) echo "step.sh: say check NAME or verdict SLUG..." >&2; exit 2 ;;
esac
