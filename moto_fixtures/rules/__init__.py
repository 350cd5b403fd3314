"""The rules of EC2 that moto leaves out, by subject; each names the AWS document that it follows.

A rule before the call takes the call and the region, and gives the call back, changed or not, or raises ApiRefusal.
The rules read the region and change nothing in it.  What must be remembered between calls lies in small classes.

    requests      the form of a call, read by the description that botocore has of it
    names         how ids, filters and names of groups must look
    permissions   who may do what; dry runs
    rates         token buckets for calls and for resources
    launch        parameters of RunInstances
    interfaces    network interfaces and the addresses of subnets
    capacity      how much of a type there is in a zone, and quotas
    spot          spot instances and their requests
    tokens        client tokens
    groups        security groups
    states        what can be done to an instance in which state
    tagging       limits of tags
    visibility    eventual consistency
    book          which rules a call passes, in which order
"""
