"""asyncssh as a peer: runs a command whenever a line says so, on a kept connection or on a new one, and times itself.

usage: kept.py HOST PORT USER KEY COMMAND      lines in: warm or cold; lines out: {"ms", "bytes", "exit"}
"""

import asyncio
import json
import sys
import time

import asyncssh


async def main() -> None:
    host, port, user, key, command = sys.argv[1:]
    options = {
        "port": int(port), "username": user, "client_keys": [key], "known_hosts": None, "config": None,
        "agent_path": None, "kex_algs": ["curve25519-sha256"],
    }
    kept = await asyncssh.connect(host, **options)
    for line in iter(sys.stdin.readline, ""):
        begun = time.perf_counter()
        connection = kept if line == "warm\n" else await asyncssh.connect(host, **options)
        done = await connection.run(command, encoding=None)
        took = time.perf_counter() - begun
        if connection is not kept:
            connection.close()
            await connection.wait_closed()
        seen = {"ms": took * 1000, "bytes": len(done.stdout), "exit": done.exit_status}
        print(json.dumps(seen), flush=True)


asyncio.run(main())
