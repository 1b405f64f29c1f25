"""The ways out: what the simulator sends by itself, and the only rooms which speak to AWS.

`publish` contact events, to one of the `targets`; `topics` what is said in streamed chats, to SNS; both by an `outlet`.
"""
