"""The reference cases, topic by topic. `cases.txt` lists them all, with the tests of each, wherever those are."""
