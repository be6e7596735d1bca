"""What runs beneath the models: custom resource definitions and operators, each pinned and owned once."""
