"""What messages show of an address."""

from __future__ import annotations

import pytest

from comfy_serverless.redaction import redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h.example:8443/a.png?X-Amz-Signature=secret#f", "https://h.example:8443/a.png?…"),
        ("https://h.example/a", "https://h.example/a"),
        ("https://[broken/a?secret", "an address that cannot be read"),
        ("https://u:secret/with@h.example/a", "an address that cannot be read"),
        ("https://u:12/secret@h.example/a", "an address that cannot be read"),
        ("https://u:secret#with@h.example/a", "an address that cannot be read"),
        ("https://u:p@secret@h.example/a", "https://h.example/a"),
        ("https://cdn.example/fox@1.2/a.png", "https://cdn.example/fox@1.2/a.png"),
    ],
)
def test_secrets_in_an_address_are_never_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown
