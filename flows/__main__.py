"""``python -m flows``: list the flows, explain one, run one."""

import sys

from flows.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
