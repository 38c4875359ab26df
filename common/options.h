/*
 * options: one command line for all programs, with ping's letters where ping has one. It never sees
 * sockets, and all that it prints is --help, --version and the one line that says what is wrong.
 */
#ifndef COMMON_OPTIONS_H
#define COMMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define SOCKLAB_VERSION "1.0"

struct options {
	const char *host;    /* whom to reach; NULL for a program that waits to be reached */
	const char *bind;    /* -B: our own address; NULL if not said */
	uint64_t count;	     /* -c: messages of each flow; 0: not said, or without end */
	int64_t interval_ns; /* -i: from one message to the next; 0: as fast as they go */
	uint32_t size;	     /* -s: bytes of a message, header and all */
	int64_t wait_ns;     /* -W: how long to wait before a message counts as lost */
	uint16_t port;	     /* -p: the server's port; 0: whatever is free */
	uint16_t flows;	     /* -P: flows side by side */
	uint16_t run;	     /* --run: the high half of each flow's number; 0: not said */
	uint32_t rcvbuf; /* --rcvbuf: bytes of receive buffer to ask for; 0: as the kernel has it */
	int family;	 /* -4, -6: AF_INET, AF_INET6; else AF_UNSPEC */
	uint32_t backlog; /* --backlog: connections that may wait to be accepted */
	bool nodelay;	  /* --nodelay */
	bool quiet;	  /* -q: no line for each reply */
	bool json;	  /* -J */
	const char *log;  /* --log: one CSV row per message goes to this file; NULL: none */
};

/*
 * What a role takes, in the letters of its options; `H` is the host, long options have a letter of
 * their own here.
 */
#define OPTIONS_CLIENT	 "HBcisWPqJlr"
#define OPTIONS_SERVER	 "BqJb"
#define OPTIONS_SENDER	 "HBcisWPqJlr"
#define OPTIONS_RECEIVER "BcWPqJlrb"
#define OPTIONS_PORT	 "p46" /* what a protocol with ports and two families takes besides */
#define OPTIONS_NODELAY	 "d"
#define OPTIONS_BACKLOG	 "k"

/*
 * Reads the command line into *o, which holds the defaults. `accepts` is a string of the letters
 * above; what is not in it is a usage error. A usage error is one line that names the option, the
 * value and what is allowed, and exit 2; --help and --version print and exit 0. `about` is the
 * program in one sentence, for --help.
 */
void options_parse(
	struct options *o, int argc, char **argv, const char *accepts, const char *about);

/*
 * Values with units, for programs with options of their own. Each returns false when text is no
 * such value or does not lie in min to max.
 *   duration: 10ms, 1.5s, 200us, 30ns, 2min; a bare number is seconds, as with ping. In ns.
 *   size: 48, 64k, 1M (1024 each). In bytes.
 */
bool options_duration(const char *text, int64_t min_ns, int64_t max_ns, int64_t *ns);
bool options_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes);
bool options_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);

#endif
