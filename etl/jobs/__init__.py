"""The use cases. They own the transactions and the order of the steps."""
