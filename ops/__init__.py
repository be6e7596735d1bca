"""Day-two operations on a stack: `python -m ops --help` lists them."""
