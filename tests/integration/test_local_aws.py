"""The local AWS isolates what is asked of its table at once, as the real one does."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

from comfy_serverless.aws.dynamodb import ConditionFailed, Table, put_write
from local.aws.server import LocalAws, local_client
from local.aws.stack import create_table
from local.aws.template import TABLE

ITEMS = 400


def test_a_transaction_that_fails_takes_back_nothing_of_others(local_s3: LocalAws) -> None:
    if TABLE not in local_s3.dynamodb().list_tables()["TableNames"]:
        create_table(local_s3)
    table = Table(local_client("dynamodb", local_s3.endpoint_url), TABLE)
    table.put({"pk": "taken", "sk": "x"})
    names = [str(uuid.uuid4()) for _ in range(ITEMS)]

    def write(name: str) -> None:
        table.put({"pk": name, "sk": "x"})

    def fail(name: str) -> None:
        free = "attribute_not_exists(pk)"
        try:
            table.transact(
                [put_write({"pk": f"{name}-2", "sk": "x"}), put_write({"pk": "taken", "sk": "x"}, condition=free)]
            )
        except ConditionFailed:
            return
        raise AssertionError("the condition holds")

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(act, name) for name in names for act in (write, fail)]:
            done.result()
    assert [name for name in names if table.get(name, "x") is None] == []
    assert [name for name in names if table.get(f"{name}-2", "x") is not None] == []
