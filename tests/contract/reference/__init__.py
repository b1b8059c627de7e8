"""The reference cases, topic by topic; ids of the tests are those of the cases."""
