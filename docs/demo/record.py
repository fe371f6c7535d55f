#!/usr/bin/env python3
"""Records `vipool demo` as an asciinema v2 cast file. Usage: record.py VIPOOL > demo.cast

The recording contains the output of a real run with its times. Run this program as an ordinary user.
Play the recording with `asciinema play docs/demo/demo.cast`.
"""

import json
import os
import pty
import sys
import time

WIDTH, HEIGHT = 120, 40


def record(command):
    """Runs a command on a terminal. For each piece of output, yields the seconds since the start and the text."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS=str(WIDTH), LINES=str(HEIGHT), TERM="xterm")
        os.execv(command[0], command)
    start = time.monotonic()
    while True:
        try:
            output = os.read(terminal, 65536)
        except OSError:  # Linux returns EIO when no process has the terminal open.
            output = b""
        if not output:
            break
        yield time.monotonic() - start, output.decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"{command} failed with wait status {status}")


def main():
    vipool = os.path.abspath(sys.argv[1])
    header = {"version": 2, "width": WIDTH, "height": HEIGHT, "title": "vipool demo"}
    lines = [json.dumps(header)]
    lines += [json.dumps([round(seconds, 3), "o", text]) for seconds, text in record([vipool, "demo"])]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
