/*
 * report: every line that a program writes to stdout, as text for people or as one JSON object a
 * line, and the CSV of --log. It knows numbers and their names: no sockets.
 */
#ifndef COMMON_REPORT_H
#define COMMON_REPORT_H

#include "common/options.h"
#include "common/samples.h"
#include "common/tally.h"

#include <stdio.h>

/*
 * What the kernel knows of one socket: named figures, read in one call before the report
 * (tcp/kernel.c and the others).
 */
#define FACTS_MAX 20
struct facts {
	const char *group; /* the JSON object that they stand in; NULL: none of their own */
	size_t n;
	struct fact {
		const char *name; /* with its unit */
		int64_t value;
		char text[16]; /* instead of a value, when not empty */
	} fact[FACTS_MAX];
};

void facts_add(struct facts *f, const char *name, int64_t value);

/* What one flow did, whichever side it was on; a side fills in what it knows. */
struct flow_report {
	uint64_t scheduled, sent, refused, bytes;	/* client, sender */
	uint64_t received, duplicates, late;		/* client */
	uint64_t foreign, corrupt, alien;		/* client */
	uint64_t requests, replies, connections, reset; /* server; receiver: the last two */
	int64_t connect_ns;				/* how long connect() took */
	uint64_t unreachable; /* client: reads that returned an ICMP error */
	uint64_t outstanding; /* client: asked, and stopped before the waiting time was over */
	uint64_t closed;      /* receiver: of its connections, those that have ended */
	bool failed;	      /* it never got to its socket's other end */
	bool gone;	      /* its connection ended before it was done */
	struct samples rtt, sent_late; /* rtt: RFC 2681, of what came in time */
	struct tally *tally;	       /* receiver */
	struct facts facts;
};

/*
 * Call first of all: with -J on the command line, an error that ends the program is printed as a
 * JSON line as well, and that must hold for the errors of the command line itself.
 */
void report_open(int argc, char **argv);

/*
 * A server or receiver is there: at this address, and this port (-1: the protocol has none, so its
 * number is told).
 */
void report_ready(const struct options *o, const char *address, int port, int protocol);

/* What a listening socket's kernel knows of the connections that wait to be accepted. */
struct queue_report {
	uint32_t asked;	   /* for so many listen() was told to keep room */
	uint32_t backlog;  /* for so many the kernel keeps it */
	uint32_t waiting;  /* so many are there now */
	const char *peer;  /* who has just been accepted; NULL: nobody */
	unsigned int port; /* the peer's */
};
void report_queue(const struct options *o, const struct queue_report *queue);

/* One reply came; text looks like ping's. */
void report_reply(
	const struct options *o, uint16_t flow, uint64_t seq, uint32_t bytes, int64_t rtt_ns);

/*
 * The summaries. `flows` are the n flows, `all` holds what is counted for the program and not by
 * flow. `ended` says why it ended: count, wait, signal, closed. Each returns the exit status: 0, or
 * 3 when messages are missing.
 */
int report_client(const struct options *o, const char *ended, struct flow_report *flows, size_t n);
int report_server(const struct options *o, const char *ended, const struct flow_report *all);
int report_sender(const struct options *o, const char *ended, struct flow_report *flows, size_t n);
int report_receiver(const struct options *o, const char *ended, const struct flow_report *all,
	struct flow_report *flows, size_t n);

/*
 * The CSV of --log. log_open returns NULL when no file was asked for, and then the others do
 * nothing; a file that cannot be made is a usage error. Rows may come from several threads. A time
 * below 0 is an empty field.
 */
FILE *log_open(const struct options *o, const char *columns);
void log_sent(FILE *log, uint16_t flow, uint64_t seq, int64_t due_ns, int64_t sent_ns,
	uint32_t bytes, const char *verdict);
void log_received(FILE *log, uint16_t flow, uint64_t seq, int64_t due_ns, int64_t sent_ns,
	int64_t received_ns, uint32_t bytes, const char *verdict);
#define LOG_SENT_COLUMNS     "flow,seq,due_ns,sent_ns,bytes,verdict"
#define LOG_RECEIVED_COLUMNS "flow,seq,due_ns,sent_ns,received_ns,bytes,verdict"

/* Full disk or closed pipe: what was not written is an error and not silence. */
void log_close(FILE *log, const char *name);

#endif
