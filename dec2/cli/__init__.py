"""The command `dec2`: one small file for each command, and for what they share.

complaints      an error becomes a line and an exit code
options         the options of clusters as options of commands
finding         which cluster is meant
showing         clusters as tables and as JSON
up destroy listing status ssh run config
main            all of them under one name
"""
