"""The environment becomes typed settings, and a wrong value is named."""

from __future__ import annotations

import traceback
from dataclasses import Field, fields
from pathlib import Path

import pytest

from comfy_serverless.errors import InvalidSetting
from comfy_serverless.settings import Settings


def test_nothing_set_gives_the_defaults_of_the_original() -> None:
    settings = Settings.from_environment({})
    assert (settings.app_name, settings.api_url, settings.initial_port) == ("COMFY_SERVERLESS", "127.0.0.1", 8188)
    assert settings.test_payload is None


def test_every_variable_of_the_original_is_read() -> None:
    settings = Settings.from_environment(
        {
            "APP_NAME": "MINE",
            "API_COMMAND_LINE": "python3 ComfyUI/main.py",
            "API_URL": "localhost",
            "INITIAL_PORT": "9000",
            "TEST_PAYLOAD": "tests/contract/test_payload.json",
            "MAX_COMFY_START_ATTEMPTS": "10",
            "COMFY_START_ATTEMPTS_SLEEP": "0.5",
        }
    )
    assert settings.api_command_line == "python3 ComfyUI/main.py"
    assert settings.test_payload == Path("tests/contract/test_payload.json")
    assert settings.start_timeout_s == 5.0


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), ("0.0", 0.0), ("0.5", 0.5), ("", 2.0)])
def test_a_wait_can_be_turned_off(value: str, seconds: float) -> None:
    assert Settings.from_environment({"POLL_HOLD_S": value}).poll_hold_s == seconds


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("INITIAL_PORT", "http", "between 1 and 65535"),
        ("INITIAL_PORT", "70000", "between 1 and 65535"),
        ("STALL_S", "-1", "positive"),
        ("STALL_S", "nan", "positive"),
        ("STALL_S", "soon", "positive number"),
        ("POLL_HOLD_S", "-1", "positive"),
        ("LINK_EXPIRY_S", "0", "positive"),
        ("LINK_EXPIRY_S", "99999999", "a week"),
        ("TEST_PAYLOAD", "/no/such/file.json", "no such file"),
        ("COMFYUI_URL", "localhost:8188", "http://"),
        ("COMFYUI_URL", "http://", "host:port"),
        ("COMFYUI_URL", "http://host:99999", "host:port"),
        ("COMFYUI_URL", "http://host:8188\r", "host:port"),
        ("API_URL", "http://localhost", "host name"),
        ("ALLOW_PRIVATE_ADDRESSES", "perhaps", "true or false"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(variable: str, value: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason) as raised:
        Settings.from_environment({variable: value})
    assert variable in raised.value.message


@pytest.mark.parametrize(
    "address",
    [
        *("ftp://me:s3cret@host", "me:s3cret@host", "http://me:s3cret/x@host", "http://me:12/s3cret@host"),
        *("http://s3cret/x@host", "http://me:s3cret#x@host", "http://me:s3cret?x@host:1", "ftp://host/?token=s3cret"),
    ],
)
def test_a_message_about_an_address_has_no_password_of_it(address: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        Settings.from_environment({"COMFYUI_URL": address})
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"OUTPUT_BUCKET": "", "INITIAL_PORT": ""}) == Settings()


def test_every_setting_has_one_variable_and_a_meaning() -> None:
    variables = [setting.metadata["variable"] for setting in fields(Settings)]
    assert len(set(variables)) == len(variables)
    assert all(setting.metadata["meaning"] for setting in fields(Settings))


def test_what_is_required_is_named_all_at_once() -> None:
    settings = Settings(jobs_table="table", batch_queue_url="https://queue")
    assert settings.require("batch_queue_url", "jobs_table") == ("https://queue", "table")
    with pytest.raises(InvalidSetting, match=r"OUTPUT_BUCKET, ASSETS_BUCKET$"):
        settings.require("output_bucket", "jobs_table", "assets_bucket")


def test_more_settings_hold_what_has_no_variable() -> None:
    settings = Settings.from_environment(
        {"MORE_SETTINGS": "ENGINE_MAX_JOBS=500 COMFYUI_ARGS='--cpu --verbose'", "STALL_S": "7"}
    )
    assert (settings.engine_max_jobs, settings.comfyui_args, settings.stall_s) == (500, "--cpu --verbose", 7.0)


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: str(setting.name))
def test_every_setting_can_be_one_of_more_settings_but_not_twice(setting: Field[object]) -> None:
    variable = setting.metadata["variable"]
    with pytest.raises(InvalidSetting, match=f"{variable} has a value of its own"):
        Settings.from_environment({"MORE_SETTINGS": f"{variable}=1", variable: "1"})
    try:
        Settings.from_environment({"MORE_SETTINGS": f"{variable}=1"})
    except InvalidSetting as error:
        assert error.message.startswith(variable if setting.metadata["is_secret"] else f"{variable}='1'"), error  # noqa: PT017  (it was understood, and is no good value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ENGINE_MAX_JOB=5", "'ENGINE_MAX_JOB' is no"),
        ("ENGINE_MAX_JOBS", "is no NAME=value"),
        ("COMFYUI_ARGS='--cpu", "cannot be read: No closing quotation"),
        ("ENGINE_MAX_JOBS=many", "ENGINE_MAX_JOBS='many' cannot be used"),
        ("MORE_SETTINGS=1", "'MORE_SETTINGS' is no"),
        ("AWS_SECRET_ACCESS_KEY=1", "is no NAME=value of a setting"),
    ],
)
def test_more_settings_that_cannot_be_used_are_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason):
        Settings.from_environment({"MORE_SETTINGS": text})


@pytest.mark.parametrize("text", [" http://host:1", "HTTP://host:1", "Http://host:1  "])
def test_an_address_of_comfyui_is_read_as_browsers_do(text: str) -> None:
    assert Settings.from_environment({"COMFYUI_URL": text}).comfyui_url == "http://host:1"
