"""What exists in the simulated instances and how it moves. Pure: time is an argument, ids come from a seed, nothing is sent.

`nouns` what exists; `life` a contact's stages and allowed moves; `world` the
state and its moves; `walk` the way through flows, queues and transfers; `idle` the timers of those
who say nothing; `events` how a contact event is written, with a chat's `metrics`, and what `mishaps` befall it;
`bucket` and `quotas` how often an API may be called; `dice` where ids come from; `fates` whom a fault strikes.
"""
