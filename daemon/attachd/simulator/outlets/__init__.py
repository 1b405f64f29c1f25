"""The ways out: what the simulator sends by itself.

`publish` contact events, to EventBridge and SQS; `topics` what is said in streamed chats, to SNS.
"""
