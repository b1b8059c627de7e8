#!/usr/bin/env bash
# qlora end to end; see run.sh.
exec "$(dirname "$0")/run.sh" qlora "$@"
