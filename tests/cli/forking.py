"""A process that has imported what commands need, and becomes a new process for each of them.

Importing takes five seconds, most commands of the tests less than one. Every line of its standard
input is one call, as JSON; the line that it answers is the exit code.
"""

import json
import os
import sys

import wbcclf.classifiers.training._fit  # noqa: F401  what commands import late: torch, skorch
from wbcclf.cli import main

if __name__ == "__main__":
    for line in sys.stdin:
        call = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(call["cwd"])
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                os.dup2(os.open(call[name], os.O_RDWR | os.O_CREAT), number)
            sys.argv = ["wbcclf", *call["arguments"]]
            main()
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
