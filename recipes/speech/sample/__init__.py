"""The demo's speech: calls in another accent over a telephone line, and general sentences to remember by."""
