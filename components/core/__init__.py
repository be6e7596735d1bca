"""What every layer shares: the component base, names, labels, manifests and tables of facts. Creates nothing."""
