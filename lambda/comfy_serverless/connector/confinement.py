"""What the engine's process may know and do: its environment, its user, its capabilities.

ComfyUI runs custom nodes, and does what strangers' workflows ask of them. Our own process holds the credentials of the
worker's role. So the engine is given only the variables that it needs, and cannot look into our process:

    we are no root      the same user; our process is closed to it (`hide_process`)          Lambda, a laptop
    root                the image's user `comfy-engine`, without any capability              SageMaker, containers
    root, no such user  root without capabilities, but for those over files                  a development container

The kernel lets a process look into another one (`/proc/…/environ`, `mem`, `fd`) only if that is of the same user, is
"dumpable", and has no capability which the onlooker lacks: see ptrace(2), "Ptrace access mode checking".
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from comfy_serverless.errors import InvalidSetting

logger = logging.getLogger(__name__)

#: The user that the image has for the engine.
ENGINE_USER = "comfy-engine"

#: What ComfyUI, its nodes and their libraries read. A `*` at the end stands for any ending.
_PASSED = (
    # the system, the shell, the temporary files
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"),
    *("TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "LC_*", "LOCALE_ARCHIVE", "NIX_*"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "DYLD_*", "MALLOC_*", "TCMALLOC_*"),
    # Python and its environments; compilers, which torch and Triton call
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "MAMBA_*", "PYENV_*", "PIP_CACHE_DIR"),
    *("UV_CACHE_DIR", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON*", "CC", "CXX", "CPATH", "C_INCLUDE_PATH", "GIT_PYTHON_*"),
    # the way to the internet
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    # GPUs
    *("CUDA_*", "CUDNN_*", "CUBLAS_*", "CUBLASLT_*", "NVIDIA_*", "NCCL_*", "ROCM_*", "ROCR_*", "ROCBLAS_*", "HIP_*"),
    *("HIPBLASLT_*", "HSA_*", "MIOPEN_*", "GPU_*", "ZE_*", "SYCL_*", "ONEAPI_*", "IPEX_*", "EGL_*", "PYOPENGL_*"),
    *("LIBGL_*", "MESA_*", "VK_*"),
    # torch and its kind, threads, caches of models
    *("PYTORCH_*", "TORCH*", "TRITON_*", "XFORMERS_*", "FLASH_ATTENTION_*", "ORT_*", "TF_*", "XLA_*", "BNB_*"),
    *("OMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "NUMBA_*", "VECLIB_*"),
    *("HF_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "TOKENIZERS_*", "DIFFUSERS_*", "ACCELERATE_*", "SAFETENSORS_*"),
    *("MODELSCOPE_*", "IMAGEIO_*", "FFMPEG_*", "OPENCV_*", "MPLCONFIGDIR", "MPLBACKEND", "NLTK_DATA", "U2NET_HOME"),
    *("FONTCONFIG_*", "YOLO_CONFIG_DIR", "EASYOCR_MODULE_PATH"),
    # ComfyUI's own, and where it runs
    *("COMFY_*", "COMFYUI_*", "MODEL_PATHS_CONFIG", "AWS_REGION", "AWS_DEFAULT_REGION"),
)
#: Everything of AWS may be a credential, or lead to one. So may what is told to a ComfyUI elsewhere.
_NEVER = re.compile(r"AWS_(?!(?:DEFAULT_)?REGION$).*|COMFYUI_(?:URL|TOKEN|HEADERS)", re.IGNORECASE)
#: Names that speak of a secret pass only if they are named in full.
_SECRET = re.compile(
    r"(?:.*_)?(?:API)?(?:AUTH|CREDENTIALS?|KEYS?|PASS|PASSWD|PASSPHRASE|PASSWORD|PAT|SECRETS?|TOKENS?)(?:_.*)?",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")

_PR_SET_DUMPABLE = 4
#: Capabilities by their bits in `CapEff`: see capabilities(7).
_CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP = 1, 5, 6, 7, 8
#: What root keeps for a checkout whose files belong to somebody else, as they do in a development container.
_FILE_CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid"


def engine_environment(environment: Mapping[str, str], more: Sequence[str] = ()) -> dict[str, str]:
    """The part of an environment that the engine gets.

    Args:
        more: names beside those that everybody needs; one that ends with `*` stands for all that begin so. See
            ENGINE_ENVIRONMENT.

    Raises:
        InvalidSetting: one of `more` is no name, or names something that is never handed on.
    """
    for name in more:
        if not _NAME.fullmatch(name):
            raise InvalidSetting(
                f"ENGINE_ENVIRONMENT={name!r} cannot be used: it must have names of variables, with `*` at most at the "
                "end, and commas between them"
            )
        if _NEVER.fullmatch(name):
            raise InvalidSetting(
                f"ENGINE_ENVIRONMENT={name!r} cannot be used: credentials of this worker are never handed to ComfyUI. "
                "Give a node that needs AWS credentials of its own, under other names"
            )
    return {name: value for name, value in environment.items() if _passes(name, more)}


def _passes(name: str, more: Sequence[str]) -> bool:
    if _NEVER.fullmatch(name):
        return False
    if name in more:
        return True
    is_meant = any(
        name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted for wanted in (*_PASSED, *more)
    )
    return is_meant and not _SECRET.fullmatch(name)


def hide_process() -> None:
    """Close this process, and those that it forks, to others of its user (Linux; elsewhere nothing happens).

    They can neither read its environment, memory and descriptors nor trace it. There are no core dumps, either.

    Raises:
        OSError: the kernel refuses.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this process cannot be closed to others: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class EngineUser:
    """The user that the engine runs as."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What libraries ask for the user and its folders."""
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
        }

    def make_home(self) -> None:
        """Make its folder, unless there is something of this name."""
        with suppress(FileExistsError):
            self.home.mkdir(mode=0o700)
            os.chown(self.home, self.uid, self.gid)

    def may_write(self, folder: Path) -> bool:
        """Whether the mode of a folder lets this user write there."""
        state = folder.stat()
        if state.st_uid == self.uid:
            return bool(state.st_mode & stat.S_IWUSR)
        return bool(state.st_mode & (stat.S_IWGRP if state.st_gid == self.gid else stat.S_IWOTH))


def engine_user(folder: Path | None = None) -> EngineUser | None:
    """The user that the engine can run as, where we are root; None for our own user.

    Args:
        folder: the folder of the engine, where it must be able to write.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    if not _has_capabilities(_CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP):
        return None
    try:
        entry = pwd.getpwnam(ENGINE_USER)
    except KeyError:
        return None
    user = EngineUser(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))
    if folder is not None and not user.may_write(folder):
        logger.warning("ComfyUI runs as root, without capabilities: %s cannot write to %s", user.name, folder)
        return None
    return user


def confining_prefix(user: EngineUser | None) -> list[str]:
    """What stands before the engine's command (Linux with util-linux; elsewhere nothing).

    The kernel ends the engine with us. Where we are root it becomes the other user, or loses what root may do.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    return [setpriv, "--pdeathsig", "KILL", *_lowering(user), "--"]


def _lowering(user: EngineUser | None) -> list[str]:
    """The arguments of setpriv that take rights away."""
    if os.geteuid() != 0:
        return []
    if user is not None:
        identity = ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
        return [*identity, "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
    if not _has_capabilities(_CAP_SETPCAP):  # then root can take nothing away, and has little
        return ["--no-new-privs"]
    return ["--bounding-set", _FILE_CAPABILITIES, "--inh-caps", "-all", "--no-new-privs"]


def _has_capabilities(*bits: int) -> bool:
    """Whether this process has all of these capabilities; not where there is no /proc to say so."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(found[1], 16) if found else 0
    return all(held >> bit & 1 for bit in bits)
