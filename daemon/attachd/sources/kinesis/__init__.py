"""Kinesis: a thin consumer. Arithmetic in ``window``, ``assignment``, ``aggregation`` and ``timing``; I/O in the rest.

    source      one stream: hands records out, settles
    share       our share of its shards: takes leases, hands them over
    shard       one shard: reads it, keeps its lease, writes its checkpoint
    stream      the Kinesis API: shards, polling, enhanced fan-out; ``calls`` and ``replies`` translate
    dynamodb, sqlite, memory    where leases are kept
    quarantine  where bodies go that can never succeed

Source: Amazon Kinesis Data Streams developer guide and API reference; the lease protocol is the Kinesis Client
Library's (docs/lease-lifecycle.md in awslabs/amazon-kinesis-client).
"""
