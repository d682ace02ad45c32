# SPDX-License-Identifier: Apache-2.0
# The gate's images for `docker buildx bake`, run from the repository's root; what `python -m ci.container` builds (a test
# compares the two).
#
#   docker buildx bake -f docker/docker-bake.hcl                                     # gate-cuda
#   docker buildx bake -f docker/docker-bake.hcl gate-cpu
#   docker buildx bake -f docker/docker-bake.hcl -f docker/docker-bake.ci.hcl gate-cuda gate-cpu --push
#
# The locks decide what is installed. PYTHON, FASTVIDEO and TORCH_BACKEND say what an image has to be: one that the base and
# the lock do not make is no image, the build stops and says so.

variable "CUDA" {
  default = "13.0.2" # of the base; another one goes by its tag, unless CUDA_DIGEST pins it
}

variable "CUDA_DIGEST" {
  default = CUDA == "13.0.2" ? "@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701" : ""
}

variable "BASE_IMAGE" {
  default = "docker.io/nvidia/cuda:${CUDA}-base-ubuntu24.04${CUDA_DIGEST}"
}

variable "PYTHON" {
  default = "3.12" # which the base has; FastVideo's kernels are built for it
}

variable "FASTVIDEO" {
  default = "0.2.1"
}

variable "TORCH_BACKEND" {
  default = "cu130" # of the locked torch, on both devices: its CUDA libraries run on a CPU, too
}

variable "VERSION" {
  default = "unknown"
}

variable "REVISION" {
  default = "unknown"
}

variable "TAG" {
  default = "latest"
}

group "default" {
  targets = ["gate-cuda"]
}

target "gate" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = "gate"
  args = {
    BASE_IMAGE    = "${BASE_IMAGE}"
    PYTHON        = "${PYTHON}"
    FASTVIDEO     = "${FASTVIDEO}"
    TORCH_BACKEND = "${TORCH_BACKEND}"
    VERSION       = "${VERSION}"
    REVISION      = "${REVISION}"
  }
}

target "gate-cuda" {
  inherits = ["gate"]
  tags     = ["localhost/fvport-gate-cuda:${TAG}"]
  args = {
    DEVICE = "cuda"
  }
}

target "gate-cpu" {
  inherits = ["gate"]
  tags     = ["localhost/fvport-gate-cpu:${TAG}"]
  args = {
    DEVICE = "cpu"
  }
}
