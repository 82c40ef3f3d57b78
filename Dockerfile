# The images. They run as AWS Lambda runs them: root file system read-only, only /tmp writable, any user.
#
#   docker build --target api -t comfy-serverless:api .              the HTTP API: no ComfyUI, no engine, no torch
#   docker build --target mcp -t comfy-serverless:mcp .              the same with the tools of agents, /mcp
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

# ---- the same for the tools of agents: the API's libraries, with those of the protocol ----
FROM build AS mcp-venv
COPY requirements/mcp.txt /build/
RUN python3 -m venv --without-pip /opt/worker \
 && pip --python /opt/worker/bin/python install --no-deps --require-hashes -r /build/mcp.txt \
 && cd /opt/worker/lib/python3.11/site-packages/botocore/data \
 && find . -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name dynamodb ! -name sqs ! -name sts \
      ! -name ssm ! -name sagemaker-runtime ! -name cloudwatch -exec rm -rf {} + \
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

# ---- what the worker's image of these sources is built from: the API goes by what was told of that very build ----
FROM python AS release
COPY comfyui/comfy-build.* /build/
RUN mkdir /opt/release \
 && if [ -f /build/comfy-build.lock ]; then \
      printf '{"release_version": "%s"}\n' "$(sha256sum /build/comfy-build.lock | cut -c1-12)" >/opt/release/release.json; \
    fi

# ---- target: the API, its authorizer, and the care of jobs ----
FROM runtime AS api
COPY --from=release /opt/release/ /opt/
COPY --from=api-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/comfy_serverless/ /opt/worker/lib/python3.11/site-packages/comfy_serverless/
COPY --from=code /opt/code/comfy_serverless.dist-info/ /opt/worker/lib/python3.11/site-packages/comfy_serverless.dist-info/
CMD ["comfy_serverless.handlers.api.handler"]

# ---- target: the tools of agents ----
FROM runtime AS mcp
COPY --from=release /opt/release/ /opt/
COPY --from=mcp-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/comfy_serverless/ /opt/worker/lib/python3.11/site-packages/comfy_serverless/
COPY --from=code /opt/code/comfy_serverless.dist-info/ /opt/worker/lib/python3.11/site-packages/comfy_serverless.dist-info/
CMD ["comfy_serverless.handlers.mcp.handler"]

# ---- what comfyui/comfy-build.lock says, as lists: the stages below copy those that they need ----
# Whether it is still of comfy-build.yaml is asked by our own code, with two libraries of Debian's beside ours.
FROM worker-venv AS lock
RUN apt-get install -y --no-install-recommends python3-packaging python3-yaml
ENV PYTHONPATH=/build/lambda:/usr/lib/python3/dist-packages
# The glob is there whether there is a lock (or more-requirements.txt) or not: our own words say how one is made.
COPY comfyui/*.* /build/comfyui/
COPY requirements/torch.in requirements/torch-needs.in requirements/torch-cpu.txt requirements/torch-cuda.txt \
     requirements/apt.txt /build/requirements/
COPY lambda/comfy_serverless/ /build/lambda/comfy_serverless/
RUN python3 /build/comfyui/from_lock.py libraries /build/comfyui/comfy-build.lock /build/requirements /build/lists \
 && /opt/worker/bin/python -m comfy_serverless.environments.stale /build/comfyui /build/requirements \
 && mkdir /build/environment && cp /build/comfyui/comfy-build.* /build/environment/

# ---- libraries of ComfyUI, in its virtual environment ----
FROM build AS libraries
COPY --from=lock /build/lists/core.txt /build/
RUN python3 -m venv --without-pip /opt/comfyui-venv \
 && pip --python /opt/comfyui-venv/bin/python install --no-deps --require-hashes -r /build/core.txt \
 && byte-compile /opt/comfyui-venv

# ---- the torch of the chosen build: for the same environment, in a folder and so in a layer of its own ----
FROM libraries AS torch
# `cpu`, or `cuda`: PyPI's, for CUDA 13. Another build of the same versions has its own index, and no lock.
ARG TORCH=cpu
ARG TORCH_INDEX_URL=
COPY requirements/torch.in /build/
COPY --from=lock /build/lists/torch-cpu.txt /build/lists/torch-cuda.txt /build/
# Another build is installed by its versions: torch.in has no hashes, and nobody here has locked it. torch/testing has
# files that only a newer Python can compile, and nothing that a worker needs.
RUN case "$TORCH_INDEX_URL:$TORCH" in \
      :cpu) set -- --no-deps --index-url https://download.pytorch.org/whl/cpu --require-hashes -r /build/torch-cpu.txt ;; \
      :cuda) set -- --no-deps --require-hashes -r /build/torch-cuda.txt ;; \
      :*) echo "TORCH is cpu or cuda; for another build set TORCH_INDEX_URL" >&2; exit 2 ;; \
      *) set -- --index-url "$TORCH_INDEX_URL" -r /build/torch.in ;; \
    esac \
 && pip --python /opt/comfyui-venv/bin/python install --prefix /opt/torch "$@" \
 && byte-compile -s /opt/torch -p /opt/comfyui-venv -x torch/testing/ /opt/torch

# ---- libraries that only packs need, also such as come as sources: those are built with what the lock has for it ----
FROM torch AS pack-libraries
COPY --from=lock /build/lists/packs.txt /build/lists/sources.txt /build/lists/git.txt /build/lists/builders.txt /build/
RUN mkdir -p /opt/pack-libraries \
 && { [ ! -s /build/packs.txt ] || pip --python /opt/comfyui-venv/bin/python install --prefix /opt/pack-libraries \
        --no-deps --require-hashes -r /build/packs.txt; }
RUN if [ -s /build/sources.txt ] || [ -s /build/git.txt ]; then \
      apt-get install -y --no-install-recommends gcc g++ git libc6-dev make python3-dev \
      && python3 -m venv --without-pip /opt/builders \
      && { [ ! -s /build/builders.txt ] || PIP_ONLY_BINARY= pip --python /opt/builders/bin/python install --no-deps \
             --no-build-isolation --require-hashes -r /build/builders.txt; } \
      && for folder in comfyui-venv torch pack-libraries; do \
           echo "/opt/$folder/lib/python3.11/site-packages"; \
         done >/opt/builders/lib/python3.11/site-packages/libraries.pth \
      && for list in "--require-hashes -r /build/sources.txt" "-r /build/git.txt"; do \
           [ ! -s "${list##* }" ] || PIP_ONLY_BINARY= pip --python /opt/builders/bin/python wheel --no-deps \
             --no-build-isolation --wheel-dir /build/wheels $list || { \
             echo "A library that comes as sources cannot be built: see above. comfyui/comfy-build.lock says who asks for it" \
               "(declared_by). Name a version that has a wheel in pipDependencies, or do without the pack." >&2; exit 1; }; \
         done \
      && pip --python /opt/comfyui-venv/bin/python install --prefix /opt/pack-libraries --no-deps --no-index /build/wheels/*.whl; \
    fi
# What cannot be compiled is for another Python. If a pack needs it, the import check at the end says so.
RUN byte-compile -s /opt/pack-libraries -p /opt/comfyui-venv /opt/pack-libraries || true

# ---- ComfyUI: of the lock, or a checkout in comfyui/ ----
FROM build AS comfyui
RUN apt-get install -y --no-install-recommends git
# Where it comes from in place of the lock's repository, and a tag, a branch or a commit that runs with the same libraries.
ARG COMFYUI_REPOSITORY=
ARG COMFYUI_REF=
COPY comfyui/ /build/comfyui/
# What packed the archives of the lock unpacks them.
COPY lambda/comfy_serverless/environments/archives.py lambda/comfy_serverless/environments/git_program.py \
    lambda/comfy_serverless/environments/tree_zip.py \
     /build/comfyui/comfy_serverless/environments/
RUN python3 /build/comfyui/from_lock.py comfyui /build/comfyui/comfy-build.lock /build/comfyui /opt/comfyui \
      "$COMFYUI_REPOSITORY" "$COMFYUI_REF" \
 && byte-compile -x /custom_nodes/ /opt/comfyui \
 && { byte-compile /opt/comfyui/custom_nodes || true; }

# ---- packs of custom nodes ----
FROM comfyui AS packs
RUN python3 /build/comfyui/from_lock.py packs /build/comfyui/comfy-build.lock /build/comfyui /opt/comfyui/custom_nodes /opt/packs \
 && { byte-compile -s /opt/packs -p /opt/comfyui/custom_nodes /opt/packs || true; }

# ---- what ComfyUI needs of Debian: a compiler for torch.compile and Triton, and what packs ask for ----
FROM runtime AS comfyui-runtime
COPY --from=lock /build/lists/apt.txt /opt/apt.txt
RUN apt-get -o Acquire::Retries=5 update \
 && apt-get -o Acquire::Retries=5 install -y --no-install-recommends gcc g++ libc6-dev python3-dev $(cat /opt/apt.txt) \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*

# ---- target: ComfyUI itself; what changes often comes last ----
FROM comfyui-runtime AS worker
COPY --from=torch /opt/torch/ /opt/comfyui-venv/
COPY --from=libraries /opt/comfyui-venv/ /opt/comfyui-venv/
COPY --from=pack-libraries /opt/pack-libraries/ /opt/comfyui-venv/
COPY --from=comfyui /opt/comfyui/ /opt/comfyui/
COPY --from=packs /opt/packs/ /opt/comfyui/custom_nodes/
COPY --from=worker-venv /opt/worker/ /opt/worker/
COPY workflows/ /opt/workflows/
COPY --from=code /opt/code/ /opt/worker/lib/python3.11/site-packages/
COPY --from=lock /build/environment/ /opt/environment/
ARG COMFYUI_ARGS=--cpu
# The first two make the container engine add the driver if there is a GPU. ComfyUI's Python has PyAV, too, which thumbnails
# of videos are made with.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    API_COMMAND_LINE=/opt/comfyui/start.sh COMFYUI_PYTHON=/opt/comfyui-venv/bin/python COMFYUI_ARGS=$COMFYUI_ARGS \
    HF_HOME=/tmp/comfy-engine/.cache/huggingface TORCHINDUCTOR_CACHE_DIR=/tmp/comfy-engine/.cache/inductor \
    TRITON_CACHE_DIR=/tmp/comfy-engine/.cache/triton
# ComfyUI answers also without the packs that it cannot import, or with fewer classes: here that ends the build. Names of
# packs, with commas between them, or `*`: those may fail. Names of classes, or `*`: those may have vanished.
ARG ALLOW_IMPORT_FAILURES=
ARG ALLOW_VANISHED=
RUN COMFYUI_ARGS=--cpu /opt/worker/bin/python -m comfy_serverless.environments.image.check build \
      --allow-import-failures "$ALLOW_IMPORT_FAILURES" --allow-vanished "$ALLOW_VANISHED" \
 && rm -rf /tmp/*
