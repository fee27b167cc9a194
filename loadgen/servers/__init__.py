"""Who answers and how to reach them: everything said to a server outside the measured path."""
