"""A simulated vLLM server: its command line, its OpenAI API, its metrics, and a prefix cache with real block arithmetic.

It computes nothing: text is made up, and time passes as it would. Whatever vLLM
refuses (unknown flags, models and fields out of range, prompts that are too
long) is refused here in vLLM's shape.
"""
