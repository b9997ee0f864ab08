"""The transactions of one partition of `__transaction_state`."""
