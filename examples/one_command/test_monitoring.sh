#!/usr/bin/env bash
# A run with metrics: they are scraped while it trains, then the result is checked. See run.sh.
set -euo pipefail

PORT=${PORT:-8000}
"$(dirname "$0")/run.sh" lora --epochs 3 --enable-metrics --metrics-port "$PORT" "$@" &
RUN=$!
trap 'kill "$RUN" 2> /dev/null || true' EXIT

# What is there once a step was made: status 1 and a number of steps above 0.
until curl -sf "http://127.0.0.1:$PORT/metrics" | grep -qE '^finetuning_training_step\{.*\} [1-9]'; do
  kill -0 "$RUN" || { echo 'the run has ended before its metrics were seen' >&2; exit 1; }
  sleep 0.1
done
curl -sf "http://127.0.0.1:$PORT/metrics" | grep '^finetuning_job_status{'
trap - EXIT
wait "$RUN"
