"""The engine: one process that holds one base with its adapters and completes prompts.

It is the only part of the service that imports torch. `__main__.py` is started by `services/inference/engines.py` with
one end of a socket pair; `orders.py` takes messages, `intake.py` turns them into work, `models.py` holds the weights,
`rotation.py` shares the machine between requests, `batch.py` computes, `sampling.py` chooses tokens and `text.py` makes
text of them.
"""
