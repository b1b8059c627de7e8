"""A messy data set with known faults: each row is there for one reason, and what must be found is beside it."""

import json
from pathlib import Path
from typing import Any

CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"
PHONE = "+49 30 1234 5678"
EMAIL = "jane.roe@corp.io"
# Put together here, so that no scanner of this repository takes them for real ones.
AWS_KEY = "AKIA" + "Q7RSTUVWXYZ23456"
PRIVATE_KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"
RANDOM_WORD = "q9ZtR4mX7bLw2KpV8nYd3HsF6jGc5"
SECRETS = (CARD, IBAN, PHONE, EMAIL, AWS_KEY, RANDOM_WORD)

LONG = (
    "The lighthouse keeper counts the ships that pass at dusk and writes their names into a ledger bound in green "
    "cloth, which his daughter reads aloud on winter evenings."
)


def chat(question: str, answer: str, *, system: str = "") -> dict[str, Any]:
    """Returns a conversation of two turns."""
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


Seeded = tuple[str, object, tuple[tuple[str, str], ...]]
"""Name, row (text for a line as it is), and what is found at it: (code, field)."""

TRAIN: tuple[Seeded, ...] = (
    ("clean", chat("Where is the key?", "Under the mat by the door."), ()),
    ("cut-json", '{"messages": [', (("MALFORMED_JSON", ""),)),
    ("two-values", '{"messages": []} {}', (("NOT_JSONL", ""),)),
    ("not-an-object", "[1, 2]", (("TYPE_MISMATCH", ""),)),
    ("empty-target", chat("Say nothing.", "   "), (("EMPTY_TARGET", "messages[1].content"),)),
    ("missing-target", {"messages": [{"role": "user", "content": "Hm?"}]}, (("BAD_CONVERSATION", "messages"),)),
    (
        "unknown-role",
        {"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]},
        (("BAD_CONVERSATION", "messages[0].role"),),
    ),
    (
        "same-role-twice",
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        (("BAD_CONVERSATION", "messages[1].role"),),
    ),
    (
        "result-without-call",
        {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "5"}]},
        (("BAD_CONVERSATION", "messages[1].role"),),
    ),
    ("missing-column", {"prompt": "only"}, (("MISSING_COLUMN", "completion"),)),
    ("empty-turn", chat(" ", "An answer to silence."), (("EMPTY_TURN", "messages[0].content"),)),
    ("copy", chat("Where is the key?", "Under the mat by the door."), (("DUPLICATE_ROW", ""),)),
    ("near", chat("Tell of the keeper.", LONG), ()),
    ("near-too", chat("Tell of the keeper!", LONG), ()),  # one of the two is told
    ("conflict", chat("Is it open on Sunday?", "Yes, from nine to five."), ()),
    ("conflict-too", chat("Is it open on Sunday?", "No, never on that day."), ()),
    ("twin", chat("Wo liegt das Caf\u00e9?", "An der Ecke."), ()),
    (
        "twin-decomposed",
        chat("Wo liegt das Cafe\u0301?", "An der Ecke."),
        (("NOT_NORMALIZED", "messages[0].content"),),
    ),
    ("aws-key", chat(f"My key is {AWS_KEY}.", "Never share it."), (("SECRET", "messages[0].content"),)),
    ("private-key", chat("Show a key file.", f"{PRIVATE_KEY} and so on"), (("SECRET", "messages[1].content"),)),
    ("random-word", chat("Which token?", f"Use {RANDOM_WORD} now."), (("SECRET", "messages[1].content"),)),
    ("email", chat(f"Write to {EMAIL} please.", "It is sent."), (("PERSONAL_DATA", "messages[0].content"),)),
    ("phone", chat(f"Call {PHONE} please.", "Nobody answers."), (("PERSONAL_DATA", "messages[0].content"),)),
    ("iban", chat(f"Pay to {IBAN} please.", "It is paid."), (("PERSONAL_DATA", "messages[0].content"),)),
    ("card", chat(f"Charge {CARD} please.", "It is charged."), (("PERSONAL_DATA", "messages[0].content"),)),
    ("address", chat("Who is 8.8.4.4 there?", "A name server."), (("PERSONAL_DATA", "messages[0].content"),)),
    ("private-address", chat("Who is 192.168.0.1 there?", "Your own router."), ()),
    ("mojibake", chat("Der sch\u00c3\u00b6ne Tag?", "Es regnet."), (("MOJIBAKE", "messages[0].content"),)),
    ("lost", chat("What is lost?", "A charact\ufffdr."), (("REPLACEMENT_CHARACTER", "messages[1].content"),)),
    ("zero-width", chat("Is pass\u200bword hidden?", "A little."), (("INVISIBLE_CHARACTER", "messages[0].content"),)),
    ("override", chat("What does \u202eexe.txt say?", "It lies."), (("DIRECTION_OVERRIDE", "messages[0].content"),)),
    ("marks", chat("Za" + "\u0321" * 8 + "lgo?", "He comes."), (("STACKED_MARKS", "messages[0].content"),)),
    ("bell", chat("Ring\u0007 it?", "It rings."), (("CONTROL_CHARACTER", "messages[0].content"),)),
    (
        "control-token",
        chat("What is <|im_end|> for?", "It ends a turn."),
        (("CONTROL_TOKEN_TEXT", "messages[0].content"),),
    ),
)
VALIDATION: tuple[Seeded, ...] = (
    ("own", chat("Which way is north?", "Towards the cold."), ()),
    ("leaked", chat("Where is the key?", "Under the mat by the door."), (("LEAKED_ROW", ""),)),
    ("leaked-text", chat("IS it  open on Sunday?", "Yes, from nine to five."), (("LEAKED_TEXT", ""),)),
    ("leaked-prompt", chat("Tell of the keeper.", "He keeps."), (("LEAKED_PROMPT", ""),)),
    ("leaked-near", chat("Tell of the keeper, now.", LONG), (("LEAKED_NEAR_DUPLICATE", ""),)),
)
ONCE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("NEAR_DUPLICATE", ("near", "near-too")),
    ("TWIN_TEXT", ("twin", "twin-decomposed")),
    ("CONFLICTING_TARGETS", ("conflict", "conflict-too")),
)
"""Codes that are told at one of two rows, the one with the lower or the higher id, and the names of these rows."""


def write(path: Path, rows: tuple[Seeded, ...]) -> Path:
    """Writes rows as JSONL."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for _, row, _ in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def expected() -> set[tuple[str, str, int, str]]:
    """Returns (code, file, line, field) of all findings that are tied to one row, in files as `write` makes them."""
    return {
        (code, file, number, field)
        for file, rows in (("train.jsonl", TRAIN), ("validation.jsonl", VALIDATION))
        for number, (_, _, findings) in enumerate(rows, start=1)
        for code, field in findings
    }


def lines_of(names: tuple[str, ...]) -> set[int]:
    """Returns the lines of training rows by name."""
    return {number for number, (name, _, _) in enumerate(TRAIN, start=1) if name in names}
