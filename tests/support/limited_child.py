"""A child process for tests: takes the limits of its first argument, JSON, and runs the code of its second."""

import json
import sys

from services.registry.child_limits import set_limits

if __name__ == "__main__":
    set_limits(**json.loads(sys.argv[1]))
    exec(sys.argv[2])
