#!/usr/bin/env bash
# lora end to end; see run.sh.
exec "$(dirname "$0")/run.sh" lora "$@"
