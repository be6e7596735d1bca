"""`python -m ops doctor`: which link of a model's chain is broken, by what evidence, and what to do about it.

collect  reads the cluster            facts     what was read
rules    one case each: facts to a finding      chain   the links, their order, and where to stop guessing
"""
