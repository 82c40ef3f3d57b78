"""No setting takes a value that cannot be used: each is named at once, whoever reads it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from comfy_serverless.cli.main import main
from comfy_serverless.connector.launch import choose_engine
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.handlers import wiring
from comfy_serverless.setting_values import UNSEEN
from comfy_serverless.settings import Settings

ALL = {setting.metadata["variable"]: setting for setting in fields(Settings)}
#: Any visible text is a value of these.
TEXTS = {"APP_NAME", "OUTPUT_PREFIX", "DROP_OWNER", "WORKER_IMAGE"}
#: Longer than any file's name.
LONG = f"/{'x' * 300}"
NUMBER = ["", "x", "0", "-1", "1.5.2", "1e999", "nan", "9" * 500, "1 2"]
WHOLE = [*NUMBER, "1.5"]
PRICE = ["", "x", "-1", "1.5.2", "1e999", "nan", "1001", "$1", "1,5"]
BUCKET = ["s3://bucket", "a b", "x", "a/b", "ü" * 5]
QUEUE = ["a-queue/", "sqs://x", "https://", "https://host:99999/x", "https://a b/", "https://host:0"]
PORT = [*WHOLE, "65536", "http"]
GARBAGE: dict[str, list[str]] = {
    "API_COMMAND_LINE": [
        "python 'x",
        "python x\\",
        "''",
        " ",
        "/nowhere/python main.py",
        "no-such-program-at-all --x",
        "~nobody-here/x",
    ],
    "API_URL": ["http://localhost", "host:1", "a b", "me@host", "host/x", "host?x"],
    "INITIAL_PORT": PORT,
    "USD_PER_SECOND": PRICE,
    "USD_PER_REQUEST": PRICE,
    "USD_PER_GB_SECOND": PRICE,
    "WORKER_MEMORY_MB": WHOLE,
    "SAGEMAKER_BIND_TO_PORT": PORT,
    "TEST_PAYLOAD": ["/no/such/file.json", LONG, "~nobody-here/x.json", "."],
    "MAX_COMFY_START_ATTEMPTS": WHOLE,
    "COMFY_START_ATTEMPTS_SLEEP": NUMBER,
    "COMFYUI_DIR": ["/nope", LONG, f"~{LONG}", "~nobody-here/ComfyUI", "~/no-such-checkout", "tests"],
    "COMFYUI_PYTHON": [
        "/nope",
        f"./{'x' * 300}",
        "~/no/python",
        "no-such-python",
        "conda run -n x python",
        "/usr",
        "/etc/passwd",
    ],
    "COMFYUI_ARGS": ["--cpu 'x", '--cpu "x', "--cpu \\"],
    "COMFYUI_URL": [
        *(
            "localhost:8188",
            "ftp://host",
            "http://",
            "http://host:port",
            "http://host:99999",
            "http://host:0",
            "http://[::1",
        ),
        *(
            "http://host:1\r",
            "http://ho st",
            "http://host\n",
            "http://host?token=s3cret",
            "http://host/#s3cret",
            "http:///x",
        ),
        *("http://me:s3c/ret@host", "http://a%3Ab:s3cret@host", "http://.host", f"http://{'a' * 80}.example", "//host"),
    ],
    "COMFYUI_TOKEN": ["Bearer s3cret", "s3cret s3cret", "s3crét"],
    "HF_TOKEN": ["Bearer s3cret", "s3cret s3cret", "s3crét"],
    "CIVITAI_TOKEN": ["Bearer s3cret", "s3cret s3cret", "s3crét"],
    "HUGGING_FACE_TOKEN_PARAMETER": [f"hf_{'s3cret' * 6}", "Bearer s3cret", "arn:aws:s3:::s3cret", "/", LONG * 9],
    "CIVITAI_TOKEN_PARAMETER": [
        "0123456789abcdef" * 2,
        "s3cret s3cret",
        "arn:aws:ssm:x:1:parameter/s3cret",
        "a/",
        "/ü",
    ],
    "ALLOW_UNPINNED_MODELS": ["maybe", "2", "on", "y"],
    "COMFYUI_HEADERS": [
        *("s3cret", "X s3cret: y", "{s3cret", '{"X": 3}', '{"X": {"s3cret": 1}}', "X:", "X: s3crét", "X: a\x07s3cret"),
        *(
            "Host: s3cret",
            "Content-Length: 7",
            "Accept-Encoding: s3cret",
            "Sec-WebSocket-Key: s3cret",
            "X: s3cret\nx: y",
            "{" * 100_000,
        ),
    ],
    "ENGINE_ENVIRONMENT": ["A-B", "A B", "A=B", "*A", "Ü"],
    "STALL_S": NUMBER,
    "ENGINE_GROWTH_BYTES": WHOLE,
    "ENGINE_MAX_JOBS": WHOLE,
    "OUTPUT_BUCKET": BUCKET,
    "KEEP_LOGS": ["", "yes", "failed,all", "some"],
    "MAX_LISTED_OUTPUTS": WHOLE,
    "WORKFLOWS_DIR": ["/nope", "~nobody-here", "pyproject.toml"],
    "DEFAULT_DEADLINE_S": NUMBER,
    "MAX_RECEIVES": WHOLE,
    "DEADLINE_MARGIN_S": NUMBER,
    "MAX_INPUT_BYTES": WHOLE,
    "MAX_INPUT_PIXELS": WHOLE,
    "INPUT_CACHE_BYTES": WHOLE,
    "INPUT_TIMEOUT_S": NUMBER,
    "THUMBNAILS": ["perhaps", "2", "webp"],
    "ALLOW_PRIVATE_ADDRESSES": ["perhaps", "2", "on"],
    "ALLOWED_INPUT_BUCKETS": BUCKET,
    "ALLOWED_OUTPUT_BUCKETS": BUCKET,
    "KEPT_OUTPUT_BYTES": WHOLE,
    "LINK_EXPIRY_S": [*WHOLE, "604801"],
    "JOBS_TABLE": ["a table", "https://x", "-x"],
    "ASSETS_BUCKET": BUCKET,
    "JOB_QUEUE_URL": QUEUE,
    "BATCH_QUEUE_URL": QUEUE,
    "MANIFEST_QUEUE_URL": QUEUE,
    "WEBHOOK_QUEUE_URL": QUEUE,
    "BATCH_STATE_MACHINE": ["machine", "arn:x", "a b"],
    "BATCH_MAP_BYTES": WHOLE,
    "MAX_BAD_LINES": WHOLE,
    "DISPATCH_PARAMETER": ["a b", "https://x", "ü"],
    "ENDPOINT_NAME": ["a b", "https://x", "ü"],
    "RELEASE_VERSION": ["a b", "-x", "a/b", "x" * 65, "ü"],
    "RELEASE_FILE": ["~nobody-here/x", "pyproject.toml", "/etc", "tests/unit/data/releases/0.1.0/ended.json"],
    "WAITING_PER_INSTANCE": WHOLE,
    "MAX_QUEUED_JOBS": WHOLE,
    "LEASE_S": NUMBER,
    "MAX_RUNS": WHOLE,
    "POLL_HOLD_S": [value for value in NUMBER if value != "0"],
    "EVENTS_HOLD_S": NUMBER,
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["host", "ftp://host", "http://", "http://host/a b", "http://host:0"],
    "EVENTS_URL": ["host", "ftp://host", "https://", "https://host/a b", "https://host/live?x", "https://me@host/live"],
    "STREAMS_PER_OWNER": WHOLE,
    "EVENTS_LINK_S": [*WHOLE, "43201"],
    "MAX_UPLOAD_BYTES": [*WHOLE, "5000000001"],
    "CORS_ORIGINS": ["app.example", "https://", "ftp://x", "https://a, x"],
    "IN_FLIGHT": WHOLE,
    "MODEL_DATA_DIR": ["~nobody-here/x"],
    "MODELS_MANIFEST": ["/nope.json", "s3://bucket", "s3://a b/key", "~nobody-here/x", "."],
    "MODEL_STORE_DIR": ["pyproject.toml", "~nobody-here/x"],
    "MODEL_STORE_BYTES": WHOLE,
    "ALLOW_PICKLED_MODELS": ["perhaps"],
}
CASES = [
    *((variable, value) for variable, values in GARBAGE.items() for value in values if value),
    # What no variable takes, whatever it means.
    *((variable, f"a{odd}b") for variable in ALL for odd in "\n\r\t\x1b\x7f\udcff" if variable != "COMFYUI_HEADERS"),
]


def test_the_walk_has_all_settings() -> None:
    assert GARBAGE.keys() | TEXTS == ALL.keys()


@pytest.mark.parametrize(("variable", "value"), CASES, ids=lambda text: ascii(text)[:60])
def test_what_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        Settings.from_environment({variable: value})
    assert raised.value.message.startswith(variable)
    assert "s3cret" not in raised.value.message
    assert len(raised.value.message) < 700


def test_the_command_line_and_the_handlers_say_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wiring.settings.cache_clear()
    for variable, values in [*GARBAGE.items(), *((name, ["a\rb"]) for name in TEXTS)]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, values[-1])
            assert main(["run", "workflows/thumbnail.json", "--json"]) == 1
            told = capsys.readouterr()
            assert told.err.startswith(f"invalid_setting: {variable}"), told.err
            with pytest.raises(InvalidSetting, match=variable):
                wiring.settings()


def test_the_container_ends_with_them_too() -> None:
    environment = {"COMFYUI_ARGS": "--cpu 'x", "PATH": "/usr/bin:/bin", "PYTHONPATH": "lambda"}
    command = [sys.executable, "-m", "comfy_serverless.handlers.start", "serve"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "Error: COMFYUI_ARGS=" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_secret_is_shown_by_no_message() -> None:
    with pytest.raises(InvalidSetting) as raised:
        Settings.from_environment({"COMFYUI_TOKEN": "s3cret\r"})
    assert raised.value.message == f"COMFYUI_TOKEN cannot be used: {UNSEEN}"


# What may be written, and what it means.


def test_a_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings.from_environment({"COMFYUI_DIR": "~/ComfyUI", "COMFYUI_PYTHON": "~/python"})
    assert choose_engine(settings).command[0] == str(tmp_path / "python")
    assert settings.comfyui_dir == tmp_path / "ComfyUI"
    assert Settings.from_environment({"MODEL_STORE_DIR": "~/models"}).model_store_dir == tmp_path / "models"
    command = Settings.from_environment({"API_COMMAND_LINE": f"{sys.executable} main.py"})
    assert choose_engine(command).command == [sys.executable, "main.py"]


def test_a_python_may_be_meant_from_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    settings = Settings.from_environment({"COMFYUI_DIR": str(tmp_path), "COMFYUI_PYTHON": "bin/python"})
    assert choose_engine(settings).command[0] == str(tmp_path / "bin" / "python")
    absent = Settings.from_environment({"COMFYUI_DIR": str(tmp_path), "COMFYUI_PYTHON": "nope/python"})
    with pytest.raises(InvalidSetting, match="COMFYUI_PYTHON='nope/python'"):
        choose_engine(absent)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("ComfyUI/main.py", "in its folder ComfyUI: name that one"),
        ("resources/ComfyUI/main.py", "in its folder resources/ComfyUI"),
        ("custom_nodes/x/a.py", "ComfyUI Desktop.*COMFYUI_URL"),
        ("models/checkpoints/x", "ComfyUI Desktop.*COMFYUI_URL"),
        ("a.txt", r"there is no main\.py in it$"),
    ],
)
def test_a_folder_that_is_no_checkout_is_told_by_what_it_is(tmp_path: Path, inside: str, words: str) -> None:
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / inside).touch()
    with pytest.raises(InvalidSetting, match=words):
        Settings.from_environment({"COMFYUI_DIR": str(tmp_path)})
    with pytest.raises(InvalidSetting, match=words):
        choose_engine(Settings(comfyui_dir=tmp_path))


@pytest.mark.parametrize("variable", ["COMFYUI_URL", "COMFYUI_DIR", "INITIAL_PORT", "OUTPUT_BUCKET", "COMFYUI_TOKEN"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_value_in_quotation_marks_is_told_for_what_it_is(variable: str, quote: str) -> None:
    """`docker run --env-file` and systemd keep what a shell would take away."""
    text = {"INITIAL_PORT": "8188", "COMFYUI_URL": "http://me:geheim@127.0.0.1:8188"}.get(variable, "s")
    with pytest.raises(InvalidSetting, match=f"^{variable}.*begins with a quotation mark") as caught:
        Settings.from_environment({variable: f"{quote}{text}{quote}"})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("settings", [Settings(api_command_line="python 'x"), Settings(comfyui_args="'x")], ids=str)
def test_a_quote_that_is_open_is_told_by_whoever_made_the_settings(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    from dataclasses import replace

    with pytest.raises(InvalidSetting, match="quote"):
        choose_engine(replace(settings, comfyui_dir=tmp_path))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("X-Api-Key: a:b", (("X-Api-Key", "a:b"),)),
        ("A: 1\r\n\nB: 2\n", (("A", "1"), ("B", "2"))),
        ('{"CF-Access-Id": "x", "CF-Access-Secret": "y z"}', (("CF-Access-Id", "x"), ("CF-Access-Secret", "y z"))),
    ],
)
def test_headers_are_lines_or_json(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert Settings.from_environment({"COMFYUI_HEADERS": text}).comfyui_headers == pairs


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8188", "https://gpu.example/base/path/", "http://[::1]:8188", "http://u%20:p%40@bücher.example"],
)
def test_an_address_of_comfyui(url: str) -> None:
    assert Settings.from_environment({"COMFYUI_URL": url}).comfyui_url == url
