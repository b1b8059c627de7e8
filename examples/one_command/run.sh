#!/usr/bin/env bash
# One method end to end: train, then check what is in the folder. Small enough for a machine without a GPU.
#
#   examples/one_command/run.sh lora|qlora|full [FLAGS OF tuneforge train]
#
# MODEL is a folder or an id of the hub (default: SmolLM2-135M-Instruct, made by `make weights`), ROWS a file of rows.
set -euo pipefail

METHOD=$1
shift
TUNEFORGE=${TUNEFORGE:-.venv/bin/tuneforge}
MODEL=${MODEL:-.tuneforge/cache/smollm2-135m-instruct}
ROWS=${ROWS:-examples/one_command/rows.jsonl}
OUT=${OUT:-.tuneforge/one-command/$METHOD}

$TUNEFORGE train --model-id "$MODEL" --dataset-path "$ROWS" --output-dir "$OUT" --method "$METHOD" \
  --epochs 1 --batch-size 1 --max-seq-length 512 --lora-rank 8 --lora-alpha 16 "$@"

CHECKPOINTS=()
if compgen -G "$OUT/checkpoint-*" > /dev/null; then CHECKPOINTS=(--checkpoint-path "$OUT"); fi
$TUNEFORGE validate --training-info "$OUT/training_info.json" --model-path "$OUT" --base-path "$MODEL" \
  --profile-path "$OUT/aim_profile.json" --test-dataset "$ROWS" "${CHECKPOINTS[@]}"
