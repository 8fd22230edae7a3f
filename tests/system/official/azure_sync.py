"""The `openai` package's synchronous client of Azure OpenAI, at the path and with the header that Azure has."""

from __future__ import annotations

from openai import AzureOpenAI

from . import openai_sync
from .conversing import converse


class Client(openai_sync.Client):
    """One connection at a time."""

    def _api(self, url: str, key: str) -> AzureOpenAI:
        # Where it is not told, it takes wss:// for sockets, whatever the address is.
        sockets = f"{url.replace('http', 'ws', 1)}/openai/v1"
        return AzureOpenAI(base_url=f"{url}/openai/v1", websocket_base_url=sockets, api_version="v1", api_key=key)


if __name__ == "__main__":
    converse(Client())
