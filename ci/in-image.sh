#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run sessions of the port in the current folder inside the gate's image: in-image.sh SESSION... [-- ARGUMENTS]
#
# IMAGE          an image that exists (default: built from docker/alignment-gate, once for each text of that folder)
# DEVICE         cpu or cuda (default: cuda where there is a GPU)
# NETWORK        the container's network (default: the engine's own; `none` for checks)
# OUT            folder that receives the evidence (default: gate-out under RUNNER_TEMP, else .fvport/gate-out)
# DOCKER         docker or podman
# FVPORT_READ_ONLY  further folders that the port links to, one a line, mounted at their own path
# FVPORT_WEIGHTS a folder that holds releases as SLUG/; mounted, and linked as official_weights/SLUG
# FVPORT_SLUG    the port, where the tree holds several
# FVPORT_LOCKED  yes: `prep` is red where the weights are not those of the port.lock.json that is here
# FVPORT_RUN, FVPORT_COMMIT  the run of CI and the commit that it gates; records carry them, and the image's name
# FVPORT_SOURCE  what the built image installs fvport from (default: what the port's noxfile says)
set -euo pipefail

folder=$(dirname "${BASH_SOURCE[0]}")
docker=${DOCKER:-docker}
read -ra engine_flags <<<"${FVPORT_ENGINE_FLAGS:-}"
read -ra build_flags <<<"${FVPORT_BUILD_FLAGS:-}"
read -ra run_flags <<<"${FVPORT_RUN_FLAGS:-}"
engine() { "$docker" "${engine_flags[@]}" "$@"; }
# What the engine could not do (125: no container; any failed build) is tried again, twice at most, and said. What ran
# inside never is: a red check stays red.
again() { # again CODES COMMAND...: CODES is a pattern of exit codes
  local try code
  for try in 1 2 3; do
    code=0
    engine "${@:2}" || code=$?
    # shellcheck disable=SC2053 # a pattern
    [[ $try -lt 3 && $code == $1 ]] || return "$code"
    echo "in-image.sh: $docker $2 ended with $code before anything of the port ran: again ($try of 2)" |
      tee -a "${GITHUB_STEP_SUMMARY:-/dev/null}" >&2
    sleep "${FVPORT_RETRY_SECONDS:-20}"
  done
}

command -v "$docker" >/dev/null || { echo "in-image.sh: $docker is not on this machine (DOCKER names another)" >&2; exit 2; }
gpu=; [[ -e /dev/nvidiactl ]] && gpu=yes
device=${DEVICE:-${gpu:+cuda}}; device=${device:-cpu}
[[ $device == cuda && -z $gpu ]] && { echo "in-image.sh: DEVICE=cuda, and this machine has no GPU" >&2; exit 3; }

image=${IMAGE:-}
if [[ -z $image ]]; then
  : "${FVPORT_SOURCE:=$(sed -n 's/^SOURCE = os.environ.get("FVPORT_SOURCE", "\(.*\)")$/\1/p' noxfile.py)}"
  text=$(cat "$folder"/Dockerfile "$folder"/*.lock "$folder"/*.sh; echo "${FVPORT_SOURCE:-}")
  image=localhost/alignment-gate-$device:$(sha256sum <<<"$text" | cut -c1-12)
  if ! engine image inspect "$image" >/dev/null 2>&1; then
    [[ -n ${FVPORT_SOURCE:-} ]] || {
      echo "in-image.sh: no image, and nothing to build it with: set IMAGE, or FVPORT_SOURCE (fvport at a tag)" >&2; exit 2; }
    build_flags+=("--build-arg=FVPORT_SOURCE=$FVPORT_SOURCE")
    again "[1-9]*" build "${build_flags[@]}" "--build-arg=DEVICE=$device" -t "$image" "$folder"
  fi
fi

out=${OUT:-${RUNNER_TEMP:-.fvport}/gate-out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
run_flags+=(--rm --read-only --tmpfs=/tmp "--volume=$PWD:$PWD" "--workdir=$PWD" --env=OMP_NUM_THREADS
  "--env=FVPORT_PORT=$PWD" "--env=FVPORT_OUT=$out" --env=FVPORT_SLUG --env=FVPORT_LOCKED
  --env=FVPORT_RUN --env=FVPORT_COMMIT "--env=FVPORT_IMAGE=$image") # what its records say of their origin
[[ $out/ == "$PWD"/* ]] || run_flags+=("--volume=$out:$out")
if [[ -n ${FVPORT_WEIGHTS:-} ]]; then
  weights=$(cd "$FVPORT_WEIGHTS" 2>/dev/null && pwd) || {
    echo "in-image.sh: FVPORT_WEIGHTS=$FVPORT_WEIGHTS is no folder on this machine" >&2; exit 3; }
  run_flags+=("--volume=$weights:$weights:ro")
  for port in tests/local_tests/*/port.toml; do
    slug=$(basename "$(dirname "$port")")
    for release in "$weights/$slug" "$weights/$slug"_*; do # a variant's release is called SLUG_...
      name=$(basename "$release")
      if [[ -d $release && ! -e official_weights/$name ]]; then
        mkdir -p official_weights; ln -sfn "$release" "official_weights/$name"
      fi
    done
  done
fi
while IFS= read -r extra; do [[ -n $extra ]] && run_flags+=("--volume=$extra:$extra:ro"); done <<<"${FVPORT_READ_ONLY:-}"
[[ -n ${NETWORK:-} ]] && run_flags+=("--network=$NETWORK")
# Files belong to the caller; for root the image's own user stays, who must then be able to write here.
if [[ $(id -u) -ne 0 ]]; then
  run_flags+=("--user=$(id -u):$(id -g)")
  [[ $(basename "$docker") == podman ]] && run_flags+=(--userns=keep-id)
fi
[[ $device == cuda ]] && run_flags+=(--gpus=all --shm-size=8g)
again 125 run "${run_flags[@]}" "$image" "$@"
