"""Does what a newcomer does with `cargo xtask run`: pastes its lines, starts it twice, ends it, and looks what is left.

The only argument is the xtask executable.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 600  # it may have to build first
STOP_SECONDS = 20
LAST_LINE = "Ctrl-C stops everything"


@contextlib.contextmanager
def demo(xtask: str, folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Runs the demo, with `folder` for its temporary files; gives the process and what it printed on starting."""
    process = subprocess.Popen(
        [xtask, "run", "--port", "0", "--admin-port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith(LAST_LINE):
                break
        else:
            raise SystemExit(f"the demo ended with {process.wait()} before it was ready")
        yield process, printed
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def children(process: int) -> list[int]:
    """The direct children of a process (proc(5), task/children)."""
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in file.read_text().split()]
    return found


def paste(printed: str) -> tuple[str, str]:
    """Runs both curl lines just as they were printed."""
    lines = re.findall(r"^ +curl (?:.*\\\n)+.*$", printed, re.MULTILINE)
    assert len(lines) == 2, f"{len(lines)} curl lines were printed:\n{printed}"
    plain, streamed = (subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True) for line in lines)
    return plain.stdout, streamed.stdout


def check_answers(plain: str, streamed: str) -> None:
    message = json.loads(plain)["choices"][0]["message"]["content"]
    assert message, plain
    events = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", streamed
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == message, f"streamed {text!r}, whole {message!r}"


def check_metrics(printed: str) -> None:
    (url,) = re.findall(r"http://\S+/metrics", printed)
    with urllib.request.urlopen(url) as response:
        text = response.read().decode()
    assert re.search(r'^aoai_cost_dollars_total\{[^}]*tenant="demo"', text, re.MULTILINE), text


def check_port_in_use(xtask: str, printed: str) -> None:
    """A second demo on the same port says so in one line and ends with the gateway's own exit code."""
    port = re.search(r"https://127\.0\.0\.1:(\d+)", printed)[1]
    second = subprocess.run(
        [xtask, "run", "--port", port, "--admin-port", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert second.returncode != 0
    # Cargo's progress is indented, and ends with "Finished".
    said = second.stderr.partition("Finished")[2].splitlines()[1:]
    about = [line for line in said if port in line]
    assert len(about) == 1, second.stderr


def main() -> None:
    (xtask,) = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="aoai-demo-") as name:
        folder = Path(name)
        with demo(xtask, folder) as (process, printed):
            assert list(folder.iterdir()), "the demo keeps its files elsewhere"
            check_answers(*paste(printed))
            check_metrics(printed)
            check_port_in_use(xtask, printed)
            started = children(process.pid)
            assert len(started) == 2, f"children {started}"
            process.send_signal(signal.SIGINT)
            code = process.wait(STOP_SECONDS)
            assert code == 0, f"Ctrl-C ended the demo with {code}"
        left = [child for child in started if Path(f"/proc/{child}").exists()]
        assert not left, f"still running: {left}"
        assert not list(folder.iterdir()), f"left behind: {list(folder.iterdir())}"

        with demo(xtask, folder) as (process, _):
            simulator, *_ = children(process.pid)
            os.kill(simulator, signal.SIGKILL)
            code = process.wait(STOP_SECONDS)
            assert code == 1, f"a killed part ended the demo with {code}"
        assert not list(folder.iterdir()), f"left behind: {list(folder.iterdir())}"


if __name__ == "__main__":
    main()
