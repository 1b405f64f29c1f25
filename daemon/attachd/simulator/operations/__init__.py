"""The operations: a checked request and the time in, a response out, or an ApiError. Rules only, each with its source.

`connect`, with `chats`, `voice`, `attributes`, `streaming`, `search` and `addressed`, are Amazon Connect's; `participant`, with
`connections` and `transcript`, the Participant Service's.
"""
