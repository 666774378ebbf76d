"""The gateway under test: its clients, and what its metrics say."""

import json
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Callable

import openai

URL = os.environ["AOAI_TEST_GATEWAY"]
ADMIN = os.environ["AOAI_TEST_ADMIN"]
KEYS = json.loads(os.environ["AOAI_TEST_KEYS"])
TRUST = ssl.create_default_context(cafile=os.environ["AOAI_TEST_CA"])

API_VERSION = "2024-10-21"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# For what a metric counts after its caller has read the last byte.
SETTLE_SECONDS = 30


def steer(**behaviour: object) -> str:
    """An instruction to the simulator, for the `user` field."""
    return "sim:" + json.dumps(behaviour)


def answer(tokens: int) -> str:
    """What the simulator says in that many tokens."""
    return " ".join(WORDS[number % len(WORDS)] for number in range(tokens))


def azure(tenant: str = "free", **options: object) -> openai.AzureOpenAI:
    """The client with deployments in its paths and the key in `api-key`."""
    return openai.AzureOpenAI(
        azure_endpoint=URL,
        api_version=API_VERSION,
        http_client=openai.DefaultHttpxClient(verify=TRUST),
        **{"api_key": KEYS[tenant]} | options,
    )


def v1(tenant: str = "free", **options: object) -> openai.OpenAI:
    """The client with deployments in its bodies and the key as a bearer token."""
    return openai.OpenAI(
        base_url=f"{URL}/openai/v1",
        http_client=openai.DefaultHttpxClient(verify=TRUST),
        **{"api_key": KEYS[tenant]} | options,
    )


def async_azure(tenant: str = "free", **options: object) -> openai.AsyncAzureOpenAI:
    """As `azure`, for asyncio."""
    return openai.AsyncAzureOpenAI(
        azure_endpoint=URL,
        api_version=API_VERSION,
        http_client=openai.DefaultAsyncHttpxClient(verify=TRUST),
        **{"api_key": KEYS[tenant]} | options,
    )


def async_v1(tenant: str = "free", **options: object) -> openai.AsyncOpenAI:
    """As `v1`, for asyncio."""
    return openai.AsyncOpenAI(
        base_url=f"{URL}/openai/v1",
        http_client=openai.DefaultAsyncHttpxClient(verify=TRUST),
        **{"api_key": KEYS[tenant]} | options,
    )


def metric(name: str, **labels: str) -> float:
    """The sum of a metric over all series that have these labels."""
    with urllib.request.urlopen(f"{ADMIN}/metrics") as response:
        text = response.read().decode()
    total = 0.0
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name:
            series = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            if labels.items() <= series.items():
                total += float(match[3])
    return total


class Counter:
    """How much a metric has grown since this was made."""

    def __init__(self, name: str, **labels: str) -> None:
        self.read: Callable[[], float] = lambda: metric(name, **labels)
        self.start = self.read()

    def reaches(self, expected: float) -> float:
        """Waits a while for the growth to reach `expected`, and gives what it then is."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (grown := self.read() - self.start) < expected and time.monotonic() < deadline:
            time.sleep(0.02)
        return grown
