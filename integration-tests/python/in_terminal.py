"""Runs a program in a terminal of its own and prints what it wrote there, then how it ended, as JSON.

usage: in_terminal.py INTERRUPT_AT PROGRAM [ARGUMENT...]
Ctrl-C is pressed when INTERRUPT_AT is written, unless that is empty.
Prints {"output", "status"}: the status as a number, negative for a signal.
"""

import json
import os
import pty
import signal
import sys


def main(interrupt_at, *command):
    child, terminal = pty.fork()
    if child == 0:
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(command[0], command)
    output, is_pressed = b"", not interrupt_at
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            # Linux says so when nobody has the terminal open any more.
            piece = b""
        if not piece:
            break
        output += piece
        if not is_pressed and interrupt_at.encode() in output:
            os.write(terminal, b"\x03")
            is_pressed = True
    _, status = os.waitpid(child, 0)
    print(json.dumps({"output": output.decode(), "status": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
