"""Who gets devices next, who gives them up, and why: pure functions over one moment. Read `plan.py` first."""
