"""What the plugins of simulated clouds share: the operations, the table of kinds, differences, names of the SDK.

A cloud adds its kinds, its words for refusals, and how a reference names a resource.
"""
