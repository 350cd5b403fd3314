"""EC2 as a provider: what exists is what the tags say, and every launch has a derived client token.

caller      the address that may come in; the cache of this machine
api         the calls, and the one door to boto3
requests    PURE: what a launch asks for, and its client token
sight       what exists, as the tags say
preflight   what is checked before anything is made
launching   groups and instances: made once, however often they are asked for
access      who logs in where, with which keys; host keys
nodes       what happens on the nodes over SSH
provider    all of it as a `Provider`
"""
