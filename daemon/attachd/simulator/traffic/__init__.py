"""Traffic: customers who come by themselves, so that whoever tests a bot needs to play none.

`arrivals` when they come; `plan` what they are like, drawn from a seed and the number of their arrival; `customers` what
they do. Pure, like `state`: time is an argument, and a customer acts by the operations which `front` hands in.
"""
