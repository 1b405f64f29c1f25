"""The simulator: a process on a port which an AWS SDK takes for Amazon Connect and its Participant Service.

One room, one concern. `dials` what may be turned; `errors` what a rule raises; `bucket` and `quotas` how often an API
may be called; `shapes` botocore's model compiled into checks; `wire` HTTP to operation and back; `nouns` what exists;
`life` a contact's stages and allowed moves; `flow` what a contact flow is made of; `world` the state; `walk` the way
through flows, queues and transfers; `connect`, with `chats`, `attributes`, `streaming`, `search` and `addressed`, and
`participant`, with `transcript`, the operations; `control` what a test does in an agent's name; `api` one call from
bytes to bytes; `events` the contact events; `publish` their way out; `truth` what really happened; `server` the port;
`command` the command line.

Nothing of attachd may enter, and nothing of attachd but its command line may import this: the simulator is the
witness against which attachd is tried, so it must not share a single mistake with it.
"""

from attachd.simulator.dials import Dials, EventBus, Queue
from attachd.simulator.flow import Disconnect, EnterQueue, Hold, WaitForBot
from attachd.simulator.server import Simulator, simulator

__all__ = [
    "Dials",
    "Disconnect",
    "EnterQueue",
    "EventBus",
    "Hold",
    "Queue",
    "Simulator",
    "WaitForBot",
    "simulator",
]
