#!/bin/sh
# Starts ComfyUI where only /tmp is writable and its web page is not needed. More arguments may follow (`--port N`).
set -eu
mkdir -p /tmp/comfyui/input /tmp/comfyui/output /tmp/comfyui/user
cd /opt/comfyui
# COMFYUI_ARGS is a list of words.
# shellcheck disable=SC2086
exec /opt/comfyui-venv/bin/python main.py ${COMFYUI_ARGS:-} \
  --disable-auto-launch \
  --front-end-root /opt/comfyui/web \
  --extra-model-paths-config /opt/comfyui/extra_model_paths.yaml \
  --input-directory /tmp/comfyui/input \
  --output-directory /tmp/comfyui/output \
  --temp-directory /tmp/comfyui \
  --user-directory /tmp/comfyui/user \
  --database-url sqlite:////tmp/comfyui/user/comfyui.db \
  ${MODEL_PATHS_CONFIG:+--extra-model-paths-config "$MODEL_PATHS_CONFIG"} \
  "$@"
