"""The journal in one DynamoDB table.

journal     what is known of contacts, and the replicas' beats: conditional writes, one item each
table       the table: checked, made, asked; whatever goes wrong becomes a reason and a sentence
items       how entries and beats stand in it
"""
