"""The `openai` package's asynchronous client of Azure OpenAI, at the path and with the header that Azure has.

It needs asyncio, and so a process without Trio.
"""

from __future__ import annotations

import asyncio

from openai import AsyncAzureOpenAI

from . import openai_async
from .conversing import converse_async


class Client(openai_async.Client):
    """One connection at a time."""

    def _api(self, url: str, key: str) -> AsyncAzureOpenAI:
        # Where it is not told, it takes wss:// for sockets, whatever the address is.
        sockets = f"{url.replace('http', 'ws', 1)}/openai/v1"
        return AsyncAzureOpenAI(base_url=f"{url}/openai/v1", websocket_base_url=sockets, api_version="v1", api_key=key)


if __name__ == "__main__":
    asyncio.run(converse_async(Client()))
