"""Stand-ins for controllers that cannot be had on one machine.

Each acts only while a pod of the program it stands for is Ready, does what that
program would do for the objects of our stacks, and nothing more.
"""
