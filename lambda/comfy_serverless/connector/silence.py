"""What is said of a prompt that was waited for in vain. No IO."""

from __future__ import annotations

from comfy_serverless.errors import EngineStalled

#: How long nothing must be heard of an engine elsewhere before it is suspected, in seconds.
SUSPECT_S = 5.0
_RESTART_IT = (
    "If no long workflow runs there, ComfyUI's thread that runs workflows has died: then nothing runs until somebody "
    "restarts the ComfyUI of COMFYUI_URL, which is not ours to restart"
)


def stalled(stall_s: float, *, is_elsewhere: bool) -> EngineStalled:
    """The failure of a prompt whose engine has shown no sign of life.

    Args:
        is_elsewhere: whether the engine is not ours to restart.
    """
    silent = f"ComfyUI has neither reported nor computed anything for {stall_s:g} s"
    return EngineStalled(f"{silent}. {_RESTART_IT}" if is_elsewhere else silent)


def where_it_stands(
    *, silent_s: float, is_executing: bool, is_lost: bool, lost_because: str, is_elsewhere: bool
) -> str:
    """What a prompt was about when its deadline passed, to end a sentence.

    Args:
        silent_s: how long nothing was heard of it.
        is_lost: whether nobody knows that ComfyUI has taken it, and `lost_because` why.
        is_elsewhere: whether the engine is not ours to restart.
    """
    if is_executing:
        where, silent = "while it was executing", f", and ComfyUI has said nothing for {silent_s:.0f} s"
    elif is_lost:
        return f"before ComfyUI had taken it: {lost_because}" if lost_because else "before it was taken"
    else:
        where, silent = "while it waited in the queue", f", in which nothing has moved for {silent_s:.0f} s"
    return f"{where}{silent}. {_RESTART_IT}" if is_elsewhere and silent_s >= SUSPECT_S else where
