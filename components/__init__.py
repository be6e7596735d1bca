"""Reusable component resources. They know nothing of stacks, of pydantic or of Pulumi's config."""
