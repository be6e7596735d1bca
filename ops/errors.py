"""What a command says when it cannot do its work."""


class OpsError(Exception):
    """A message for people: what is wrong, what follows from it, and how to put it right."""
