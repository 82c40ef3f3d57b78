#!/bin/sh
# Starts ComfyUI where only /tmp is writable and its web page is not needed. More arguments may follow (`--port N`).
set -eu
image=$(cd "$(dirname "$0")" && pwd)
tree=${TMPDIR:-/tmp}/comfyui
python=${COMFYUI_PYTHON:-/opt/comfyui-venv/bin/python}
"$python" -I -S "$image/writable_tree.py" "$image" "$tree"
# The processes in which torch compiles kernels share locks in /dev/shm, which Lambda does not have.
[ -w /dev/shm ] || export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-1}"
cd "$tree"
# COMFYUI_ARGS is a list of words.
# shellcheck disable=SC2086
exec "$python" main.py ${COMFYUI_ARGS:-} \
  --disable-auto-launch \
  --front-end-root "$tree/web" \
  --extra-model-paths-config "$tree/extra_model_paths.yaml" \
  --base-directory "$tree" \
  --database-url "sqlite:///$tree/user/comfyui.db" \
  ${MODEL_PATHS_CONFIG:+--extra-model-paths-config "$MODEL_PATHS_CONFIG"} \
  "$@"
