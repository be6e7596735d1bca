"""Serving: the gateway, namespaces for models, and the models."""
