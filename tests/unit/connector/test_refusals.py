"""What ComfyUI says of a failure, and what it means."""

from __future__ import annotations

import pytest

from comfy_serverless.connector import recovery
from comfy_serverless.connector.facts import Finished, HistorySays, Submitted
from comfy_serverless.connector.follower import PromptFollower
from comfy_serverless.connector.recovery import Recovery
from comfy_serverless.connector.refusals import advice_at_start, execution_failure, explained, node_error_lines, refusal
from comfy_serverless.errors import (
    ComfyError,
    EngineCrashed,
    NodeExecutionError,
    OutOfMemory,
)


def test_a_workflow_without_outputs_is_told_what_it_lacks() -> None:
    """In the words of ComfyUI's `POST /prompt`."""
    said = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
    assert refusal(said, {}).message == (
        "Prompt has no outputs: no node in it saves or shows anything. Add one that does, such as SaveImage"
    )


ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call.\nFor debugging consider passing"


@pytest.mark.parametrize(
    ("exception_type", "message", "expected"),
    [
        # The process has lost the GPU: a restart helps, and nothing else does.
        ("RuntimeError", "CUDA error: an illegal memory access was encountered" + ADVICE, EngineCrashed),
        ("torch.AcceleratorError", "CUDA error: device-side assert triggered" + ADVICE, EngineCrashed),
        ("RuntimeError", "CUDA error: unspecified launch failure", EngineCrashed),
        ("RuntimeError", "CUDA error: unknown error", EngineCrashed),
        ("RuntimeError", "CUDA error: an illegal instruction was encountered", EngineCrashed),
        ("RuntimeError", "CUDA error: misaligned address", EngineCrashed),
        ("RuntimeError", "CUDA error: uncorrectable ECC error encountered", EngineCrashed),
        ("RuntimeError", "CUDA error: the launch timed out and was terminated", EngineCrashed),
        ("RuntimeError", "HIP error: an illegal memory access was encountered", EngineCrashed),
        ("RuntimeError", "CUDA driver error: unknown error", EngineCrashed),
        ("RuntimeError", "Triton Error [CUDA]: an illegal memory access was encountered", EngineCrashed),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", EngineCrashed),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", EngineCrashed),
        (
            "RuntimeError",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k`",
            EngineCrashed,
        ),
        # Memory can be freed.
        ("RuntimeError", "CUDA error: out of memory" + ADVICE, OutOfMemory),
        ("torch.OutOfMemoryError", "Allocation on device", OutOfMemory),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB", OutOfMemory),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", OutOfMemory),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", OutOfMemory),
        ("MemoryError", "", OutOfMemory),
        # Neither helps: the build does not fit the GPU, or the workflow is wrong.
        ("RuntimeError", "CUDA error: no kernel image is available for execution on the device", NodeExecutionError),
        ("RuntimeError", "CUDA error: invalid device function", NodeExecutionError),
        ("RuntimeError", "CUDA error: invalid device ordinal", NodeExecutionError),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`", NodeExecutionError),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", NodeExecutionError),
        ("ValueError", "the prompt has an illegal instruction", NodeExecutionError),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)", NodeExecutionError),
    ],
)
def test_an_error_of_a_node_is_told_by_what_helps(
    exception_type: str, message: str, expected: type[ComfyError]
) -> None:
    data = {"exception_type": exception_type, "exception_message": message + "\n", "node_type": "KSampler"}
    error = execution_failure(data, node_id="3", class_type="KSampler")
    assert type(error) is expected
    assert error.message.startswith(f"Node 3 (KSampler) raised {exception_type}: ")
    assert error.details["exception_message"] == message or error.details["exception_message"] == "no message"


def test_an_expanded_node_is_told_by_the_node_that_was_submitted() -> None:
    data = {"node_id": "7.0.0.2", "node_type": "VAEDecode", "exception_type": "ValueError", "exception_message": "no"}
    error = execution_failure(data, node_id="7", class_type="Upscaler")
    assert error.message == "Node 7 (Upscaler, in VAEDecode) raised ValueError: no"
    assert error.details["class_type"] == "Upscaler"
    assert error.details["inner_class_type"] == "VAEDecode"


def test_a_dropped_output_is_told_with_what_was_meant() -> None:
    config = [["euler", "heun"], {"tooltip": "how"}]
    error = {"type": "value_not_in_list", "message": "Value not in list", "details": "sampler_name: 'eulr' not in …"}
    extra = {"input_name": "sampler_name", "input_config": config, "received_value": "eulr"}
    lines = node_error_lines({"3": {"class_type": "KSampler", "errors": [error | {"extra_info": extra}]}})
    assert list(lines) == [
        "Node 3 (KSampler): Value not in list: sampler_name: 'eulr' not in … (did you mean 'euler'?)"
    ]


def test_an_engine_that_has_lost_its_gpu_is_replaced() -> None:
    follower = PromptFollower("p", {"3": {"class_type": "KSampler", "inputs": {}}}, now=0.0)
    follower.observe(Submitted(number=1), 0.0)
    error = {
        "prompt_id": "p",
        "node_id": "3",
        "node_type": "KSampler",
        "exception_type": "torch.AcceleratorError",
        "exception_message": "CUDA error: device-side assert triggered",
        "traceback": [],
    }
    status = {"status_str": "error", "completed": False, "messages": [["execution_error", error]]}
    follower.observe(HistorySays({"prompt": [1, "p", {}, {}, []], "outputs": {}, "status": status}), 1.0)
    step = follower.next(1.0)
    assert isinstance(step, Finished)
    assert step.outcome.engine_is_broken
    assert isinstance(step.outcome.error, EngineCrashed)
    assert recovery.after(step.outcome, attempt=1, lost=None) is Recovery.RESTART_AND_RETRY


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("RuntimeError: Found no NVIDIA driver on your system. Please check", "COMFYUI_ARGS=--cpu"),
        ("AssertionError: Torch not compiled with CUDA enabled", "COMFYUI_ARGS=--cpu"),
        ("RuntimeError: No CUDA GPUs are available", "COMFYUI_PYTHON"),
        ("Traceback …\nModuleNotFoundError: No module named 'torch'", "COMFYUI_PYTHON to the one that ComfyUI was"),
        ("ValueError: ModuleNotFoundError: No module named 'x' was said", ""),
        ("", ""),
    ],
)
def test_what_a_start_has_failed_of_says_what_helps(log: str, words: str) -> None:
    advice = advice_at_start(log)
    assert words in advice
    assert bool(advice) == bool(words)


def test_a_file_that_is_named_as_on_windows_is_spelled_out() -> None:
    problem = {
        "type": "custom_validation_failed",
        "message": "Custom validation failed for node",
        "details": "image - Invalid image file: sub\\example.png",
        "extra_info": {"input_name": "image"},
    }
    refused = refusal({}, {"1": {"class_type": "LoadImage", "errors": [problem]}})
    assert refused.message.endswith(r"sub\example.png (folders are separated by /: 'sub/example.png')")


def test_errors_of_nodes_of_ours_are_those_of_the_node_that_they_were_put_before() -> None:
    given = {"3": {"class_type": "SaveImage", "inputs": {}}}
    ours = {"class_type": "RegexReplace", "errors": [{"type": "odd", "message": "Odd"}], "dependent_outputs": ["3"]}
    failed = {"type": "prompt_outputs_failed_validation", "message": "", "details": ""}
    error = explained(refusal(failed, {"3.name": ours}), given, {}, ())
    assert (error.message, [*error.details["node_errors"]]) == ("Node 3 (SaveImage): Odd", ["3"])
    own = {**ours, "class_type": "SaveImage", "errors": [{"type": "wrong", "message": "Wrong"}]}
    error = explained(refusal(failed, {"3.name": ours, "3": own}), given, {}, ())
    assert (error.message, [*error.details["node_errors"]]) == ("Node 3 (SaveImage): Wrong", ["3"])

    submitted = {**given, "3.name": {"class_type": "RegexReplace", "inputs": {}}}
    follower = PromptFollower("p", submitted, now=0.0, given=given)
    follower.observe(Submitted(number=1), 0.0)
    raised = {"prompt_id": "p", "node_id": "3.name", "node_type": "RegexReplace", "exception_type": "TypeError"}
    status = {"status_str": "error", "completed": False, "messages": [["execution_error", raised]]}
    follower.observe(HistorySays({"prompt": [1, "p", {}, {}, []], "outputs": {}, "status": status}), 1.0)
    step = follower.next(1.0)
    assert isinstance(step, Finished)
    assert str(step.outcome.error).startswith("Node 3 (SaveImage, in RegexReplace) raised TypeError")
