/*
 * The two hosts, and how to get into them. A host is a network, mount and UTS namespace that a
 * process of ours holds open: PID 1 of the wire's own PID namespace holds `server`, PID 2 holds
 * `client`. PID 1 dies as soon as the wire is gone, however it went, and the kernel then ends
 * whatever is left in the namespace; the devices, mounts and names go with the last process. It
 * never sees a frame, a fate, or a command line.
 */
#ifndef COMMON_WIRE_HOST_H
#define COMMON_WIRE_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum host_id { HOST_CLIENT, HOST_SERVER, HOSTS };

/* What a machine must allow, in the order in which it is tried. */
enum host_need {
	HOST_KERNEL,	 /* pidfd_open: Linux 5.3 */
	HOST_TUN,	 /* /dev/net/tun, open to us */
	HOST_USERNS,	 /* a user namespace, where we are not privileged without */
	HOST_NAMESPACES, /* PID, network, mount and UTS namespaces */
	HOST_PROC,	 /* a fresh /proc */
	HOST_TAP,	 /* a TAP device */
	HOST_NETWORK,	 /* addresses, neighbours, settings */
	HOST_NEEDS
};

struct host_failure {
	enum host_need need;
	int error;	/* errno, or 0 */
	char what[160]; /* what was tried */
};

struct hosts {
	int tap[HOSTS];	    /* non-blocking; one frame for each read() and write() */
	int netlink[HOSTS]; /* a route socket in the host's network */
	int pidfd[HOSTS];   /* readable when the holder is gone */
	pid_t pid[HOSTS];   /* the holders, as the caller sees them */
};

enum {
	HOST_TEXT_BYTES = 512,
	HOST_TAP_FRAMES = 100000, /* what a TAP holds before it drops */
};

/* "client", "server" */
const char *host_name(enum host_id host);

/*
 * Makes both hosts, with a link that is up. With `discovery` they ask for each other's hardware
 * addresses (ARP, neighbour discovery); without, they know them, and nothing leaves a host but what
 * a program sent. The calling process moves into a user namespace of its own unless it is
 * privileged already, and what it forks from now on is born into the hosts' PID namespace.
 * `devices` false stops after the namespaces and /proc: for host_check(). Returns 0, or -1 with
 * failure filled and everything undone but the caller's own user namespace.
 */
int host_start(struct hosts *hosts, bool discovery, bool devices, struct host_failure *failure);

/* Ends every process in both hosts; reaps all children of the caller, for 2 s at most. */
void host_stop(struct hosts *hosts);

/* What the host's TAP dropped because the wire was late to read. Returns 0, or -1 with errno. */
int host_tx_dropped(const struct hosts *hosts, enum host_id host, uint64_t *dropped);

/*
 * Moves the caller, which has one thread, into the host that process `holder` is in; `other_pids`
 * tells that it was not yet in the hosts' PID namespace, and that only children of the caller will
 * be. `pidfd` is the holder's, so that a process that came to have its PID is not entered for it; a
 * holder is known by host_is_holder(). Capabilities are kept across exec, and so is the directory,
 * by its name; where there is none of that name, it is / and a warning says so. Returns 0, or -1
 * with errno and what failed in `what`.
 */
int host_enter(pid_t holder, int pidfd, bool *other_pids, const char **what);

/* Is this process named as the holder of `host` is? */
bool host_is_holder(pid_t pid, enum host_id host);

/* Is the process in the network that the caller is in? */
bool host_is_here(pid_t pid);

/* Why it failed and the one command that helps, a line each without its newline. */
void host_explain(const struct host_failure *failure, char reason[HOST_TEXT_BYTES],
	char remedy[HOST_TEXT_BYTES]);

/* Tries each need, and prints a line for each. Returns true when all are met. */
bool host_check(FILE *out);

#endif
