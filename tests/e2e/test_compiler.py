"""What torch.compile and Triton need of the image `worker`, in its part below ComfyUI and torch's gigabytes."""

from __future__ import annotations

import pytest

from tests.e2e.lambda_container import USER, build_image, docker

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

#: As torch's Inductor does, with OpenMP; and as Triton does for its launcher, a module for Python.
COMPILE = """
cd /tmp
cat >kernel.cpp <<'CODE'
#include <omp.h>
#include <cmath>
extern "C" int threads() { return omp_get_max_threads() + int(std::exp(0.0)); }
CODE
g++ -O3 -fopenmp -shared -fPIC -o kernel.so kernel.cpp
cat >launcher.c <<'CODE'
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher"};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
CODE
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc -O3 -shared -fPIC -I"$headers" -o launcher.so launcher.c
python3 -c 'import ctypes, launcher; print("threads", ctypes.CDLL("/tmp/kernel.so").threads() > 1)'
"""


def test_code_is_compiled_where_only_tmp_can_be_written_by_any_user() -> None:
    image = build_image("comfyui-runtime")
    said = docker(
        *("run", "--rm", "--read-only", "--tmpfs", "/tmp:rw,exec,mode=1777", "--user", USER, "--network", "none"),
        *("--entrypoint", "sh", image, "-ec", COMPILE),
    )
    assert said == "threads True"
