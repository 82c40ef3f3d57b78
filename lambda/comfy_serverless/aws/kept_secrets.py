"""Secrets that AWS keeps: a parameter of Systems Manager, or a secret of Secrets Manager. Never shown, never logged."""

from __future__ import annotations

import json
import threading
import time

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.errors import AssetUnavailable, MissingAsset

#: How long a value that was read is used, in seconds: one that was replaced is known a little later.
KEPT_S = 300.0
_LONGEST = 4096
_FOR_GOOD = frozenset(
    {
        *("ParameterNotFound", "ParameterVersionNotFound", "ResourceNotFoundException", "InvalidKeyId"),
        *("AccessDeniedException", "AccessDenied", "ValidationException", "InvalidParameterException"),
        *("InvalidRequestException", "DecryptionFailure"),
    }
)


class KeptSecret:
    """A secret by its place: the ARN of a secret, or the name of a parameter. Thread-safe."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._value = ""
        self._until = 0.0

    def value(self) -> str:
        """The secret; read again after some minutes.

        Raises:
            MissingAsset: it is not there, may not be read, or is no token.
            AssetUnavailable: AWS does not answer.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                self._value = _token_in(self._read(), self._place)
                self._until = time.monotonic() + KEPT_S
            return self._value

    def _read(self) -> str:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        from comfy_serverless.aws.sqs import CONFIG

        is_secret = is_of_secrets_manager(self._place)
        try:
            if is_secret:
                answer = boto3.client("secretsmanager", config=CONFIG).get_secret_value(SecretId=self._place)
                return str(answer.get("SecretString", ""))
            parameter = boto3.client("ssm", config=CONFIG).get_parameter(Name=self._place, WithDecryption=True)
            return str(parameter["Parameter"]["Value"])
        except (ClientError, BotoCoreError) as error:
            right = "secretsmanager:GetSecretValue" if is_secret else "ssm:GetParameter"
            code = error_code(error) or type(error).__name__
            kind = MissingAsset if code in _FOR_GOOD else AssetUnavailable
            raise kind(
                f"The token that {self._place} should hold cannot be read ({code}): see that it is there, and that the "
                f"worker's role has {right} on it (and kms:Decrypt, if a key of your own encrypts it)."
            ) from error


def is_of_secrets_manager(place: str) -> bool:
    """Whether a place is a secret of Secrets Manager: only its ARN says so."""
    return place.split(":")[2:3] == ["secretsmanager"]


def _token_in(text: str, place: str) -> str:
    """The token in a secret's text: it is the text, or the only value of a JSON object, as the console writes one."""
    token = text.strip()
    if token.startswith("{"):
        try:
            values = list(json.loads(token).values())
        except (ValueError, RecursionError):
            values = []
        token = str(values[0]).strip() if len(values) == 1 else ""
    if not token or len(token) > _LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise MissingAsset(
            f"What {place} holds is no token: it should be the token alone, or a JSON object with it as the only value."
        )
    return token
