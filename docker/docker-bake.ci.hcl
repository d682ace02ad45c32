# SPDX-License-Identifier: Apache-2.0
# Laid over docker-bake.hcl in CI: names in a registry, the cache there (every stage of it), and where an image comes from.
# REGISTRY has no default that works: a CI that does not set it must not push to somebody else's.

variable "REGISTRY" {
  default = "" # host/owner
}

target "gate-cuda" {
  tags       = ["${REGISTRY}/fvport-gate-cuda:${TAG}"]
  cache-from = ["type=registry,ref=${REGISTRY}/fvport-gate-cuda:cache"]
  cache-to   = ["type=registry,ref=${REGISTRY}/fvport-gate-cuda:cache,mode=max"]
  attest     = ["type=provenance,mode=max", "type=sbom"]
}

target "gate-cpu" {
  tags       = ["${REGISTRY}/fvport-gate-cpu:${TAG}"]
  cache-from = ["type=registry,ref=${REGISTRY}/fvport-gate-cpu:cache"]
  cache-to   = ["type=registry,ref=${REGISTRY}/fvport-gate-cpu:cache,mode=max"]
  attest     = ["type=provenance,mode=max", "type=sbom"]
}
