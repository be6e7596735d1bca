"""What is claimed about performance, and the commands that show it."""
