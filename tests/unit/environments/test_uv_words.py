"""What uv is told of this machine, and what its words mean."""

from __future__ import annotations

import pytest

from comfy_serverless.environments.locking.resolver import File, NotAnswered, Unsolvable
from comfy_serverless.environments.locking.uv import environment, failure, vias
from comfy_serverless.environments.locking.wheel_choice import best


def test_pips_index_is_used_where_uv_has_none() -> None:
    pip = {"PIP_INDEX_URL": "https://a", "PIP_EXTRA_INDEX_URL": "https://b", "PIP_FIND_LINKS": "/x /y", "PATH": "/bin"}
    got = environment(pip)
    assert (got["UV_DEFAULT_INDEX"], got["UV_INDEX"], got["UV_FIND_LINKS"], got["PATH"]) == (
        "https://a",
        "https://b",
        "/x,/y",
        "/bin",
    )
    assert environment({**pip, "UV_DEFAULT_INDEX": "https://c"}).get("UV_INDEX") is None


def test_variables_that_change_what_is_chosen_do_not_count() -> None:
    hostile = (
        "UV_PRERELEASE",
        "UV_RESOLUTION",
        "UV_EXCLUDE_NEWER",
        "UV_OVERRIDE",
        "UV_CONSTRAINT",
        "UV_TORCH_BACKEND",
        "UV_CONFIG_FILE",
    )
    got = environment({**dict.fromkeys(hostile, "x"), "UV_CACHE_DIR": "/c", "UV_INDEX_MINE_PASSWORD": "p"})
    assert not set(hostile) & got.keys()
    assert (got["UV_CACHE_DIR"], got["UV_INDEX_MINE_PASSWORD"]) == ("/c", "p")


_HINT = (
    "hint: An index URL (https://i/) could not be queried due to a lack of valid authentication credentials "
    "(401 Unauthorized)\n"
)


@pytest.mark.parametrize(
    ("said", "reason", "subject"),
    [
        (
            "error: Request failed after 3 retries\n  cause: Failed to fetch: http://i/a/\n  cause: tcp connect error",
            "index",
            "",
        ),
        (
            "error: Failed to fetch: `https://i/simple/numpy/`\n  cause: HTTP status client error (401 Unauthorized)",
            "index",
            "https://i/simple/numpy/",
        ),
        (
            "error: Failed to download and build `a @ git+https://f/x@main`\n  cause: Git operation failed",
            "fetch",
            "a @ git+https://f/x@main",
        ),
        (
            "error: Git operation failed\n  cause: no branch `v9`\n  cause: `git fetch 'https://f/x' '+v9'`",
            "fetch",
            "https://f/x",
        ),
        (
            "error: Failed to download `x @ https://h/x-1-py3-none-any.whl`\n  cause: Request failed",
            "fetch",
            "x @ https://h/x-1-py3-none-any.whl",
        ),
        (
            "error: Failed to download and build `cc==1.0`\n  cause: Build backend failed (exit status: 1)",
            "build",
            "cc==1.0",
        ),
        (
            "error: Failed to download and build `cc==1.0`\n  cause: No solution found when resolving: `setuptools`",
            "build",
            "cc==1.0",
        ),
        (
            f"error: No solution found when resolving dependencies\n  cause: Because x was not found\n\n{_HINT}",
            "login",
            "",
        ),
        ("error: something that nobody has seen", "other", ""),
    ],
)
def test_what_uv_cannot_find_out_has_a_reason_and_a_subject(said: str, reason: str, subject: str) -> None:
    meant = failure(said)
    assert isinstance(meant, NotAnswered)
    assert (meant.reason, meant.subject) == (reason, subject)


def test_no_solution_is_a_paragraph() -> None:
    said = "warning: x\nerror: No solution found when resolving dependencies\n  cause: Because a\n    And because b.\n"
    meant = failure(said)
    assert isinstance(meant, Unsolvable)
    assert str(meant) == "Because a And because b."


def test_who_asks_for_a_library_is_read_of_the_annotations() -> None:
    numpy = "numpy==2\n    # via\n    #   -r asked.in\n    #   scipy\n    #   Torch_SDE\n"
    text = f"{numpy}scipy==1\n    # via torchsde\nlib @ git+https://f/x@abc\n    # via -r asked.in\n"
    assert vias(text) == {"numpy": ("scipy", "torch-sde"), "scipy": ("torchsde",), "lib": ()}


def test_the_wheel_that_pip_would_take_is_locked() -> None:
    names = (
        "a-1-py3-none-any.whl", "a-1-cp311-cp311-win_amd64.whl", "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_39_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_aarch64.whl", "broken.whl",
    )  # fmt: skip

    def chosen(*of: str) -> str | None:
        found = best([File(f"https://i/files/{name}#x", "0" * 64, 1) for name in of])
        return found.name if found else None

    assert chosen(*names) == "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert chosen(*names[:4]) == "a-1-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert chosen(*names[:3]) == "a-1-py3-none-any.whl"
    assert chosen("a-1-2-py3-none-any.whl", "a-1-10-py3-none-any.whl") == "a-1-10-py3-none-any.whl"
    assert chosen(*names[5:]) is None
