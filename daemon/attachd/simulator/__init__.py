"""The simulator: a process on a port which an AWS SDK takes for Amazon Connect and its Participant Service.

One room, one concern. `dials` what may be turned; `errors` what a rule raises; `bucket` the quota; `shapes`
botocore's model compiled into checks; `wire` HTTP to operation and back; `world` the state; `connect` and
`participant` the operations; `api` one call from bytes to bytes; `events` the contact events; `publish` their
way out; `truth` what really happened; `server` the port; `command` the command line.

Nothing of attachd may enter, and nothing of attachd but its command line may import this: the simulator is the
witness against which attachd is tried, so it must not share a single mistake with it.
"""

from attachd.simulator.dials import Dials, EventBus, Queue
from attachd.simulator.server import Simulator, simulator

__all__ = ["Dials", "EventBus", "Queue", "Simulator", "simulator"]
