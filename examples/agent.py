"""What an agent does, without a model: finds workflows as tools, runs one on a photo, and looks at what it has made.

The official client (`pip install mcp`), at COMFY_BASE_URL/mcp with COMFY_API_KEY.
"""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent


async def talk(client: Client) -> None:
    """Use tools, and print what is said."""
    tools = await client.list_tools()
    print("tools:", ", ".join(tool.name for tool in tools.tools))
    data = base64.b64encode(Path("events/photo.jpg").read_bytes()).decode()
    await call(client, "upload", {"name": "photo.jpg", "data": data})
    await call(client, "run_thumbnail", {"photo": 5, "widht": 96})
    made = await call(client, "run_thumbnail", {"photo": "photo.jpg", "width": 96, "height": 64})
    await call(client, "get_job", {"job_id": made.structured_content["job_id"]})


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    """Call one tool, and print the answer."""

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        if progress and tool.startswith("run_"):
            print(f"  … {message}, {progress / (total or 1):.0%}")

    shown = {name: value if len(str(value)) < 60 else "…" for name, value in arguments.items()}
    print(f"{tool} {shown}")
    result = await client.call_tool(tool, arguments, progress_callback=hear)
    for part in result.content:
        match part:
            case TextContent(text=text):
                print("  " + ("error: " if result.is_error else "") + text.replace("\n", "\n  "))
            case ImageContent(data=data, mime_type=kind):
                print(f"  a picture, {kind}, {len(base64.b64decode(data))} bytes")
            case ResourceLink(name=name, uri=uri):
                print(f"  {name} at {uri}")
    return result


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['COMFY_API_KEY']}"}
    http = httpx2.AsyncClient(headers=headers, timeout=300)
    async with http, Client(streamable_http_client(f"{os.environ['COMFY_BASE_URL']}/mcp", http_client=http)) as client:
        await talk(client)


if __name__ == "__main__":
    asyncio.run(main())
