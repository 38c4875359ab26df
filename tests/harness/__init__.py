"""The harness: runs programs on the wire's two hosts, reads their results, draws them.

tree      where things are: the root, the programs, the labs
schema    holds every JSON line to tests/schema.json
hosts     one wire with its two hosts, and the programs on them
counters  what a host's kernel counted, before and after
records   the CSV files of the wire and of the programs
dialogue  a program that is talked to; socket calls by hand
sockets   the sockets of a host, as its kernel lists them
transcript what a guide has the student type, tried on a terminal
recording a run with packets, states and calls on the record; ladder: all three as one drawing
oneway    a sender and a receiver, and everything known of that run
waterfall does every message have a fate, and every fate a count?
svg       marks on paper; charts: what the labs draw with them
screen    what a student reads in the terminal; page: the same in a browser
lab       one lab: its knobs, its table, its report
plugin    pytest's side of it; run_lab: `make run-lab`'s
"""
