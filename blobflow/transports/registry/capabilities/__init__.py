"""What a registry can and cannot do: known by its name, or learned from its answers."""
