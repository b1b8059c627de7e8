#!/usr/bin/env bash
# full end to end; see run.sh.
exec "$(dirname "$0")/run.sh" full "$@"
