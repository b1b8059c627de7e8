"""The Python client on one page: submit a run, watch it, take its result.

    python -m examples.client SPEC.json        (or: python examples/client.py SPEC.json)

Needs a running suite (`python -m services`), and the model and the rows that the spec names.
"""

import sys

from tuneforge import CheckpointSaved, Client, JobFailed, StepMetrics

with Client() as client:
    job = client.jobs.create(sys.argv[1])
    print(f"{job.name} is {job.state}")
    for event in job.watch():  # goes on by itself when the scheduler, the trainer or the network comes back
        match event.payload:
            case StepMetrics() as step:
                print(f"step {step.step}/{step.total_steps}  loss {step.loss:.4f}  {step.eta_s:.0f} s to go")
            case CheckpointSaved() as checkpoint:
                print(f"checkpoint after step {checkpoint.step}")
    try:
        print(f"published {job.result().version}")
    except JobFailed as error:
        sys.exit(str(error))  # what is wrong, and what to do
