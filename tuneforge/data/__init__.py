"""Rows of data sets and how they become tokens: reading, checking, chat templates and token masks.

Nothing here needs torch or transformers. Tokenising needs `tokenizers` and chat templates need `jinja2`; both come with
the extra `[data]` and are imported when they are first used. Begin with `rows.py`, go on with `rendering.py`, then
`masks.py`.
"""
