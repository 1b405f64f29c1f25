"""``attachd demo``: the whole line on one machine, with nothing faked between its ends.

    simulator ──► EventBridge ──► SQS ──► attachd ──► two bots
      ▲   ▲                                 │            │
      │   └──────── CreateParticipant ──────┘            │
      └───────────── the chat, by its own APIs ──────────┘

EventBridge and SQS are moto's, in this process; the simulator with its customers, the bots and attachd are processes of their
own, and attachd reads a real configuration file. Only processes are started here and the simulator's truth is
read: nothing of the daemon is imported.
"""

from attachd.demo.play import play

__all__ = ["play"]
