"""From a stack's configuration to its resources: the only reader of config, the only caller of components."""
