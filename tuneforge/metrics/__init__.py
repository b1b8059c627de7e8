"""The figures of jobs under the names that dashboards for fine-tuning know (`finetuning_...`), from a job's events.

One fold for everyone who shows them: the trainer's `/metrics`, `tuneforge train --enable-metrics` and
`tuneforge metrics serve`.
"""
