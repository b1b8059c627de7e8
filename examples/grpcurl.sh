#!/usr/bin/env bash
# The four services without any client of ours: reflection tells grpcurl everything.
#
#   examples/grpcurl.sh describe              what each service offers
#   examples/grpcurl.sh job MODEL DATASET     create a job at the scheduler and watch it to its end
#   examples/grpcurl.sh attempt FOLDER FILE   train on one trainer that no scheduler manages: a base and rows below its
#                                             inputs folder (TUNEFORGE_TRAINER_INPUTS), nothing else running
#   examples/grpcurl.sh watch-attempt JOB     the events of a job's first attempt, from the trainer that runs it
#
# MODEL is projects/P/models/M/versions/N or .../aliases/A; DATASET is projects/P/datasets/D.
set -euo pipefail

REGISTRY=${TUNEFORGE_REGISTRY_ADDRESS:-127.0.0.1:7101}
SCHEDULER=${TUNEFORGE_SCHEDULER_ADDRESS:-127.0.0.1:7102}
TRAINER=${TUNEFORGE_TRAINER_ADDRESS:-127.0.0.1:7103}
INFERENCE=${TUNEFORGE_INFERENCE_ADDRESS:-127.0.0.1:7104}
GRPCURL=${GRPCURL:-grpcurl}

call() { "$GRPCURL" -plaintext "$@"; }

describe() {
  for address in "$REGISTRY" "$SCHEDULER" "$TRAINER" "$INFERENCE"; do
    call "$address" list
  done
  call "$REGISTRY" describe tuneforge.v1.RegistryService
  call "$SCHEDULER" describe tuneforge.v1.SchedulerService
  call "$TRAINER" describe tuneforge.v1.TrainerService
  call "$INFERENCE" describe tuneforge.v1.InferenceService
  for address in "$REGISTRY" "$SCHEDULER" "$TRAINER" "$INFERENCE"; do
    call "$address" grpc.health.v1.Health/Check
  done
}

job() {
  local name
  name=$(call -d @ "$SCHEDULER" tuneforge.v1.SchedulerService/CreateJob <<JSON | sed -n 's/^  "name": "\(.*\)",$/\1/p'
{
  "parent": "projects/default",
  "spec": {
    "base": {"model": "$1"},
    "supervised": {},
    "lora": {"rank": 8},
    "data": {"train": {"dataset": "$2"}, "max_tokens": 256},
    "optimization": {"max_steps": 20}
  }
}
JSON
  )
  call -d "{\"name\": \"$name\"}" "$SCHEDULER" tuneforge.v1.SchedulerService/WatchJob
}

attempt() {
  local name
  name="projects/default/jobs/by-hand-$(date +%s)/attempts/1"
  call -d @ "$TRAINER" tuneforge.v1.TrainerService/StartAttempt <<JSON
{
  "name": "$name",
  "spec": {
    "base": {"local_path": "$1"},
    "supervised": {},
    "lora": {"rank": 8},
    "data": {"train": {"local_path": "$2"}, "max_tokens": 256},
    "optimization": {"max_steps": 20}
  }
}
JSON
  call -d "{\"name\": \"$name\"}" "$TRAINER" tuneforge.v1.TrainerService/WatchAttempt
}

# Events that were acknowledged are dropped. Nobody acknowledges those of an unmanaged trainer, so that a watch from the
# start works there. On a managed one the answer may be OUT_OF_RANGE, whose metadata has `oldest_seq`: go on from there
# with "after_seq": oldest_seq - 1 beside the name.
watch_attempt() {
  call -d "{\"name\": \"projects/default/jobs/$1/attempts/1\"}" "$TRAINER" tuneforge.v1.TrainerService/WatchAttempt
}

case "${1:-}" in
  describe) describe ;;
  job) job "${2:?MODEL}" "${3:?DATASET}" ;;
  attempt) attempt "${2:?FOLDER}" "${3:?FILE}" ;;
  watch-attempt) watch_attempt "${2:?JOB}" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
