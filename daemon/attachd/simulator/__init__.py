"""The simulator: a process on a port which an AWS SDK takes for Amazon Connect and its Participant Service.

`state` is what exists and how it moves; `operations` the APIs' rules; `front` the door in, `outlets` the ways out; `traffic`
the customers who come by themselves; `report` what a run came to, `ledger` how that is worked out, `view` how people see it;
`dials` what may be turned, `flow` what a contact flow is made of, `faults` what goes wrong, `delivery` where events go and
what befalls them; `scenario` all that as a file; `errors` what a rule raises, `instance` what an ARN says, `instants` how
times are written; `command` the command line.

Nothing of attachd may enter, and nothing of attachd but its command line may import this: the simulator is the
witness against which attachd is tried, so it must not share a single mistake with it.
"""

from attachd.simulator.delivery import Delivery, EventBus, KinesisStream, Queue
from attachd.simulator.dials import Dials
from attachd.simulator.flow import Disconnect, EnterQueue, Hold, WaitForBot
from attachd.simulator.front.clock import ManualClock
from attachd.simulator.front.server import Simulator, simulator
from attachd.simulator.traffic.plan import Traffic, read_traffic

__all__ = [
    "Delivery",
    "Dials",
    "Disconnect",
    "EnterQueue",
    "EventBus",
    "Hold",
    "KinesisStream",
    "ManualClock",
    "Queue",
    "Simulator",
    "Traffic",
    "WaitForBot",
    "read_traffic",
    "simulator",
]
