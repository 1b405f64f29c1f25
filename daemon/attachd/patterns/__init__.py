"""The EventBridge event pattern language.

A pattern that works in an EventBridge rule works here, and decides alike; one that EventBridge refuses is refused here
in its words. Pure: text and events in, decisions out. What may not enter: I/O, clocks, settings, anything of Connect's
or of attachd's, anything outside the standard library.

    text --document, expressions, parse--> branches --conditions--> Pattern (compile), PatternSet (index, lookups)
    event --event--> values by path --> Pattern or PatternSet, and arrays where the event has arrays of objects
    event --descent--> the same decision for one Pattern, sooner, where neither has anything unusual

The reference is event-ruler, the engine inside EventBridge (https://github.com/aws/event-ruler), and
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html. Where it differs on purpose:

- an IPv4 network never contains an IPv6 address, nor the reverse;
- ignoring case works for all of Unicode, and every text equals itself;
- text after the JSON is refused, in patterns and in events;
- of two branches of $or that ask for the same value, one with exists: false beside it, order decides nothing;
- an empty list inside anything-but is refused, and so is a malformed $or;
- of a key given twice in an event, the last counts;
- the service's limit on the complexity of wildcards is not needed, and not imposed; ``service`` tells who is beyond it.
"""

from attachd.patterns.compile import Mismatch, Pattern, compile_pattern
from attachd.patterns.document import PatternError
from attachd.patterns.event import EventError
from attachd.patterns.index import PatternSet

__all__ = ["EventError", "Mismatch", "Pattern", "PatternError", "PatternSet", "compile_pattern"]
