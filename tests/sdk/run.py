"""Starts the simulator and the gateway, and runs one SDK's tests against them: `run.py python` or `run.py node`.

The tests learn from the environment where everything is: AOAI_TEST_GATEWAY, AOAI_TEST_CA, AOAI_TEST_ADMIN and
AOAI_TEST_KEYS, the tenants' keys as JSON. Every tenant but the first three is up against one limit.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
BINARIES = {
    "gateway": "AOAI_GATEWAY_BIN",
    "simulator": "AOAI_SIMULATOR_BIN",
    "certificate": "AOAI_CERTIFICATE_BIN",
    "config": "AOAI_CONFIG_BIN",
}
START_SECONDS = 30
STOP_SECONDS = 10
SUITE_SECONDS = 600
# What the simulator's App Service endpoint wants to see.
IDENTITY_HEADER = "simulated-identity-header"

# A tier's name is its only tenant's name.
TIERS = {
    "free": "calls_per_minute = 100000\ntokens_per_minute = 100000000",
    # As free, for what fails on purpose: Node runs its files side by side, and each counts what it sees.
    "spare": "calls_per_minute = 100000\ntokens_per_minute = 100000000",
    # As free, for answers that are left before they end: they are counted some time later.
    "leaving": "calls_per_minute = 100000\ntokens_per_minute = 100000000",
    "one-call": "calls_per_minute = 1\ntokens_per_minute = 100000000",
    "one-at-a-time": "calls_per_minute = 100000\ntokens_per_minute = 100000000\nconcurrent_calls = 1",
    "few-tokens": "calls_per_minute = 100000\ntokens_per_minute = 100",
    "no-quota": 'tokens_per_minute = 100000000\ntoken_quota = { tokens = 1, period = "yearly" }',
    "no-money": 'tokens_per_minute = 100000000\nspend_quota = { dollars = 0.000001, period = "yearly" }',
    "only-embeddings": 'tokens_per_minute = 100000000\ndeployments = ["embed"]',
}

@contextlib.contextmanager
def service(
    name: str, command: list[str], stream: str, announcement: Callable[[str], object], **environment: str
) -> Iterator[object]:
    """Runs a process while the block runs; gives what `announcement` makes of the first line that it recognises."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
        **{stream: subprocess.PIPE},
    )
    pipe = getattr(process, stream)
    announced = threading.Event()
    found: list[object] = []
    log: list[str] = []

    def read() -> None:
        # To the end in any case: a full pipe would stop the process.
        for line in pipe:
            log.append(line)
            if not found and (value := announcement(line)) is not None:
                found.append(value)
                announced.set()
        announced.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        announced.wait(START_SECONDS)
        if not found:
            raise SystemExit(f"the {name} does not listen:\n{''.join(log)}")
        yield found[0]
        if process.poll() is not None:
            raise SystemExit(f"the {name} ended with {process.returncode}:\n{''.join(log[-40:])}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
    check_log(name, log)


def check_log(name: str, log: list[str]) -> None:
    """No key may reach a log, whatever a caller did with it."""
    leaks = [line for line in log if re.search(r"aoai_[0-9A-Za-z]{20,}", line)]
    if leaks:
        raise SystemExit(f"the {name} logged a key {len(leaks)} times")
    panics = [line for line in log if "panicked" in line]
    if panics:
        raise SystemExit(f"the {name} panicked:\n{''.join(panics)}")


def simulator_listens(line: str) -> str | None:
    match = re.search(r"https?://127\.0\.0\.1:\d+", line)
    return match and match[0]


def gateway_listens(line: str) -> dict[str, str] | None:
    """The fields `address` and `admin` of the line that says "listening", be it JSON or text."""
    if "listening" not in line:
        return None
    try:
        event = json.loads(line)
        fields = event.get("fields", event)
    except ValueError:
        fields = {key: value.strip('"') for key, value in re.findall(r"(\w+)=(\S+)", line)}
    return {"gateway": fields["address"], "admin": fields["admin"]} if "admin" in fields else None


def configuration(program: str, azure: str, tiers: str) -> bytes:
    """The configuration that the end-to-end tests have too, with a tier for each tenant."""
    command = [program, azure, "--with", tiers, "--with", '[listen]\ndrain_timeout = "2s"']
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def add_tenant(gateway: str, config: Path, name: str) -> str:
    command = [gateway, "tenant", "add", name, "--tier", name, "--config", str(config)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.search(r"^primary: (\S+)$", printed, re.MULTILINE)[1]


def suite(name: str) -> list[str]:
    if name == "python":
        return [sys.executable, "-W", "error::ResourceWarning", "-m", "unittest", "discover", "--verbose",
                "--start-directory", str(HERE / "python")]
    files = sorted(str(file) for file in (HERE / "node").glob("*.test.mjs"))
    return ["node", "--test", "--test-reporter=spec", *files]


def main() -> int:
    name = sys.argv[1]
    binaries = {binary: os.environ[variable] for binary, variable in BINARIES.items()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aoai-gateway-sdk-")))
        subprocess.run([binaries["certificate"], folder / "tls"], check=True)
        simulator = [binaries["simulator"], "--listen", "127.0.0.1:0"]
        azure = stack.enter_context(service("simulator", simulator, "stdout", simulator_listens))

        tiers = "\n".join(f"[tiers.{tier}]\n{limits}" for tier, limits in TIERS.items())
        config = folder / "gateway.toml"
        config.write_bytes(configuration(binaries["config"], azure, tiers))
        keys = {tenant: add_tenant(binaries["gateway"], config, tenant) for tenant in TIERS}

        serve = [binaries["gateway"], "serve", "--config", str(config)]
        identity = {"IDENTITY_ENDPOINT": f"{azure}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER}
        addresses = stack.enter_context(service("gateway", serve, "stderr", gateway_listens, **identity))

        certificate = str(folder / "tls/tls.crt")
        environment = {
            "AOAI_TEST_GATEWAY": f"https://{addresses['gateway']}",
            "AOAI_TEST_ADMIN": f"http://{addresses['admin']}",
            "AOAI_TEST_CA": certificate,
            "AOAI_TEST_KEYS": json.dumps(keys),
            # Node reads its additional authorities from here alone.
            "NODE_EXTRA_CA_CERTS": certificate,
        }
        return subprocess.run(suite(name), env=os.environ | environment, timeout=SUITE_SECONDS).returncode


if __name__ == "__main__":
    sys.exit(main())
