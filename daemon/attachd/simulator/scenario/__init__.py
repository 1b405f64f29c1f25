"""A scenario: what is played, as a TOML file. `reading` makes dials of it, or says all that is wrong with it at once; `lines` where.

What a dial, a step or a fault may be is theirs to say: this room knows only under which table each stands.
"""
