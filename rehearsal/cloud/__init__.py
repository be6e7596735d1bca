"""The simulated cloud of a rehearsal: one project's resources, what it offers, and what it runs short of.

Nothing here has a network client for a cloud; everything is a file below the rehearsal's own directory.
"""
