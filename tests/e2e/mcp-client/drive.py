"""Drives an MCP server over stdio with the client of PyPI's `mcp` and prints what it saw, as JSON.

usage: drive.py MODE COMMAND ARGUMENT...      MODE: legacy (initialize first) or auto (the client chooses)
"""

import asyncio
import json
import sys

from mcp import Client, StdioServerParameters


async def main() -> None:
    mode, command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments)
    async with Client(server, mode=mode, read_timeout_seconds=60) as client:
        tools = (await client.list_tools()).tools
        read = await client.call_tool(
            "tail_log",
            {"target": "web-1", "path": "/var/log/shop/web.log", "lines": 3, "reason": "another client"},
        )
        refused = await client.call_tool("read_file", {"target": "web-1", "path": "/etc/shadow"})
        print(
            json.dumps(
                {
                    "protocol": client.protocol_version,
                    "server": client.server_info.name if client.server_info else None,
                    "tools": sorted(tool.name for tool in tools),
                    "read": read.structured_content,
                    "read_is_error": bool(read.is_error),
                    "refused": refused.structured_content,
                    "refused_is_error": bool(refused.is_error),
                }
            )
        )


asyncio.run(main())
