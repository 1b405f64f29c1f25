"""The front door: from bytes to an operation and back.

`shapes` botocore's model compiled into checks; `wire` HTTP to operation and back; `caller` who signed, `subject` what a request
is about; `api` one call; `enact` what a fault does to one; `reply` an answer's way, good or bad; `control` what a test does in
an agent's name; `clock` the time; `rehearsal` whether customers could come; `truth` what really happened; `sockets` the chat's
websocket; `server` the port.
"""
