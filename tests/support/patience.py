"""How long a test may take: the one bound of everything that it waits for.

What is slow on a busy machine is no fault; what never comes is told when the test's time is over.
"""

TEST_LIMIT_S = 540.0
"""Seconds: the longest test takes a ninth of it on idle processors, and half of it where eight others share them.
`time_limit` keeps it."""
WAIT_LIMIT_S = TEST_LIMIT_S - 40.0
"""Seconds: less than a test may take, so that what did not come is named."""
