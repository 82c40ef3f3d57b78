# The images. They run as AWS Lambda runs them: root file system read-only, only /tmp writable, any user.
#
#   docker build --target api -t comfy-serverless:api .              the HTTP API: no ComfyUI, no engine, no torch
#   docker build --target worker-lite -t comfy-serverless:lite .     connector, handlers, embedded engine; no torch
#   docker build --target worker -t comfy-serverless:cpu .           ComfyUI itself, on the processor
#   docker run -p 8080:8080 comfy-serverless:lite serve              as SageMaker runs it: /ping and /invocations
#   docker build --target worker -t comfy-serverless:gpu .           ComfyUI itself, on an NVIDIA GPU, with
#       --build-arg TORCH=cuda --build-arg COMFYUI_ARGS=
#
# The same sources make the same image: Debian by digest and by a day of its archive, Python's libraries by their hashes,
# ComfyUI by its commit. Where Docker Hub or that archive cannot be reached: BASE_IMAGE, DEBIAN_MIRROR, DEBIAN_SNAPSHOT.
#
# No BuildKit-only syntax: Docker's classic builder (used by `sam build`) and Podman must build it too.

# bookworm of 5 October 2026: `docker buildx imagetools inspect debian:bookworm-slim` shows the newest.
ARG BASE_IMAGE=debian:bookworm-slim@sha256:7c7b2c966bc9ee8cedfeef67e0e279108992c77681fa595db4a9d65c06ccc587

# ---- Python without build tools ----
FROM ${BASE_IMAGE} AS python
# Debian as it was at that moment. Nothing: the sources that the base image has.
ARG DEBIAN_SNAPSHOT=20261120T000000Z
ARG DEBIAN_MIRROR=http://snapshot.debian.org/archive
RUN if [ -n "$DEBIAN_SNAPSHOT" ]; then \
      rm -f /etc/apt/sources.list.d/debian.sources \
      && for of in "debian $DEBIAN_SNAPSHOT bookworm" "debian $DEBIAN_SNAPSHOT bookworm-updates" \
           "debian-security $DEBIAN_SNAPSHOT bookworm-security"; do \
           set -- $of && echo "deb [check-valid-until=no] $DEBIAN_MIRROR/$1/$2 $3 main"; \
         done >/etc/apt/sources.list; \
    fi \
 && apt-get -o Acquire::Retries=5 update \
 && apt-get -o Acquire::Retries=5 upgrade -y --no-install-recommends \
 && apt-get -o Acquire::Retries=5 install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*

# ---- build stage; none of it is shipped ----
FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip
# Only byte code is compiled. It is never checked against its source again, because neither will change.
ENV PIP_ONLY_BINARY=:all: PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN printf '#!/bin/sh\nexec python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"\n' >/usr/local/bin/byte-compile \
 && chmod +x /usr/local/bin/byte-compile

# ---- our own virtual environment ----
FROM build AS worker-venv
COPY requirements/lambda.txt /build/
RUN python3 -m venv --without-pip /opt/worker \
 && pip --python /opt/worker/bin/python install --no-deps --require-hashes -r /build/lambda.txt \
 && byte-compile /opt/worker

# ---- the same for the API, which runs no workflows: only the services of the AWS SDK that it talks to ----
FROM build AS api-venv
COPY requirements/api.txt /build/
RUN python3 -m venv --without-pip /opt/worker \
 && pip --python /opt/worker/bin/python install --no-deps --require-hashes -r /build/api.txt \
 && cd /opt/worker/lib/python3.11/site-packages/botocore/data \
 && find . -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name dynamodb ! -name sqs ! -name sts \
      ! -name ssm ! -name sagemaker-runtime ! -name cloudwatch ! -name stepfunctions -exec rm -rf {} + \
 && byte-compile /opt/worker

FROM build AS code
COPY lambda/ /opt/code/
# The version is pyproject's: `importlib.metadata` finds it here, as it does after `pip install`.
COPY pyproject.toml /build/
RUN mkdir /opt/code/comfy_serverless.dist-info \
 && sed -n 's/^version = "\(.*\)"$/Metadata-Version: 2.1\nName: comfy-serverless\nVersion: \1/p' /build/pyproject.toml \
      >/opt/code/comfy_serverless.dist-info/METADATA \
 && byte-compile /opt/code

# ---- what the targets have in common ----
FROM python AS runtime
LABEL org.opencontainers.image.title="comfy-serverless" \
      org.opencontainers.image.licenses="MIT"
# ComfyUI runs as this user where the container's user is root: see connector/confinement.py.
RUN useradd --uid 10064 --user-group --no-create-home --home-dir /tmp/comfy-engine --shell /usr/sbin/nologin comfy-engine
# Files that libraries keep in the home or a cache go to /tmp; HOME and USER are not set everywhere.
# ComfyUI can write to /tmp, too: the AWS SDK must not take its settings, or credentials, from there.
ENV HOME=/tmp USER=lambda XDG_CACHE_HOME=/tmp/.cache XDG_CONFIG_HOME=/tmp/.config \
    AWS_CONFIG_FILE=/opt/aws/config AWS_SHARED_CREDENTIALS_FILE=/opt/aws/credentials \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    LAMBDA_TASK_ROOT=/var/task WORKFLOWS_DIR=/opt/workflows
WORKDIR /var/task
# No USER for our own process: Lambda runs the image as its own user, SageMaker requires root, and `sam local` adds a layer as root.
# Lambda passes the handler's name, SageMaker the word `serve`, and no other command can be set there.
ENTRYPOINT ["/opt/worker/bin/python", "-m", "comfy_serverless.handlers.start"]
CMD ["comfy_serverless.handlers.generate.handler"]

# ---- target: connector, handlers, embedded engine ----
FROM runtime AS worker-lite
COPY --from=worker-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/ /opt/worker/lib/python3.11/site-packages/

# ---- target: the API, its authorizer, and the care of jobs ----
FROM runtime AS api
COPY --from=api-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/comfy_serverless/ /opt/worker/lib/python3.11/site-packages/comfy_serverless/
COPY --from=code /opt/code/comfy_serverless.dist-info/ /opt/worker/lib/python3.11/site-packages/comfy_serverless.dist-info/
CMD ["comfy_serverless.handlers.api.handler"]

# ---- ComfyUI's virtual environment, with the torch of the chosen build ----
FROM build AS comfyui-venv
# Libraries of packs may come as sources, or from git: see requirements/comfyui.in.
RUN apt-get install -y --no-install-recommends gcc g++ git libc6-dev python3-dev
ENV PIP_ONLY_BINARY=
COPY requirements/comfyui.txt /build/
# pip has no hashes for git: there the commit is the content. torch/testing has files that only a newer Python can
# compile, and nothing that a worker needs.
RUN python3 -m venv --without-pip /opt/comfyui-venv \
 && sed -n '/ @ git+/!p' /build/comfyui.txt >/build/hashed.txt \
 && sed -n '/ @ git+/p' /build/comfyui.txt >/build/git.txt \
 && pip --python /opt/comfyui-venv/bin/python install --no-deps --require-hashes -r /build/hashed.txt \
 && { [ ! -s /build/git.txt ] || pip --python /opt/comfyui-venv/bin/python install --no-deps -r /build/git.txt; } \
 && byte-compile -x torch/testing/ /opt/comfyui-venv
# `cpu`, or `cuda`: PyPI's, for CUDA 13. Another build of the same versions has its own index, and no lock.
ARG TORCH=cpu
ARG TORCH_INDEX_URL=
COPY requirements/torch.in requirements/torch-cpu.txt requirements/torch-cuda.txt /build/
RUN case "$TORCH_INDEX_URL:$TORCH" in \
      :cpu) set -- --no-deps --index-url https://download.pytorch.org/whl/cpu -r /build/torch-cpu.txt ;; \
      :cuda) set -- --no-deps --require-hashes -r /build/torch-cuda.txt ;; \
      :*) echo "TORCH is cpu or cuda; for another build set TORCH_INDEX_URL" >&2; exit 2 ;; \
      *) set -- --index-url "$TORCH_INDEX_URL" -r /build/torch.in ;; \
    esac \
 && pip --python /opt/comfyui-venv/bin/python install "$@" \
 && byte-compile -x torch/testing/ /opt/comfyui-venv

# ---- ComfyUI, at a pinned commit: 0.33.0, as of 22 August 2026 ----
# `make comfyui-upgrade REF=…` pins another one, with the libraries that it needs.
FROM build AS comfyui
ARG COMFYUI_REPOSITORY=https://github.com/comfyanonymous/ComfyUI.git
ARG COMFYUI_PINNED=783545f689a0af730065994b46b382ae24844c99
# A tag, a branch or a commit that runs with the same libraries; empty for the pinned one.
ARG COMFYUI_REF=
COPY comfyui/ /build/comfyui/
WORKDIR /opt/comfyui
RUN if [ ! -f /build/comfyui/main.py ]; then \
      apt-get install -y --no-install-recommends git \
      && git init -q && git fetch -q --depth 1 "$COMFYUI_REPOSITORY" "${COMFYUI_REF:-$COMFYUI_PINNED}" && git checkout -q FETCH_HEAD; \
    fi \
 && cp -r /build/comfyui/. . \
 && rm -rf .git .github .ci tests tests-unit input output temp user \
 && mkdir input web \
 && byte-compile .

# ---- what ComfyUI needs of Debian: a compiler for torch.compile and Triton, and what packs ask for ----
FROM runtime AS comfyui-runtime
COPY requirements/apt.txt /opt/apt.txt
RUN apt-get -o Acquire::Retries=5 update \
 && apt-get -o Acquire::Retries=5 install -y --no-install-recommends gcc g++ libc6-dev python3-dev \
      $(sed 's/#.*//' /opt/apt.txt) \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*

# ---- target: ComfyUI itself; what changes often comes last ----
FROM comfyui-runtime AS worker
COPY --from=comfyui-venv /opt/comfyui-venv/ /opt/comfyui-venv/
COPY --from=comfyui /opt/comfyui/ /opt/comfyui/
COPY --from=worker-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/ /opt/worker/lib/python3.11/site-packages/
ARG COMFYUI_ARGS=--cpu
# The first two make the container engine add the driver if there is a GPU.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    API_COMMAND_LINE=/opt/comfyui/start.sh COMFYUI_ARGS=$COMFYUI_ARGS \
    HF_HOME=/tmp/comfy-engine/.cache/huggingface TORCHINDUCTOR_CACHE_DIR=/tmp/comfy-engine/.cache/inductor \
    TRITON_CACHE_DIR=/tmp/comfy-engine/.cache/triton
# ComfyUI answers also without the packs that it cannot import: here that ends the build. Names of packs, with commas
# between them, or `*`: those may fail.
ARG ALLOW_IMPORT_FAILURES=
RUN COMFYUI_ARGS=--cpu /opt/worker/bin/python -m comfy_serverless.connector.import_check "$ALLOW_IMPORT_FAILURES" \
 && rm -rf /tmp/comfyui /tmp/comfy-engine
