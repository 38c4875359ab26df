/*
 * book: enters what arrived at a receiver or a client as what it is: a first copy, a duplicate,
 * late, somebody else's, damaged, not a message at all. It keeps a tally for each flow; it never
 * sees sockets or where bytes come from.
 */
#ifndef COMMON_BOOK_H
#define COMMON_BOOK_H

#include "common/message.h"
#include "common/report.h"

struct book {
	struct options *o;	   /* o->run is set by the first message when it was not told */
	struct flow_report *flows; /* o->flows of them */
	struct flow_report all;	   /* what belongs to no flow of ours */
	FILE *log;
	uint32_t clock_id;  /* ours: only times of the same clock may be subtracted */
	int64_t last_ns;    /* when the last message of ours came; 0: none yet */
	int64_t stopped_ns; /* when we noticed that we were stopped; 0: not yet */
};

/* Makes the tallies of o->flows flows and the file of --log. */
struct book book_open(struct options *o);

/*
 * Enters n bytes that arrived together at now_ns. Returns the flow (from 0) that they belong to, or
 * -1 if to none.
 */
int book_enter(struct book *book, const uint8_t *buf, size_t n, int64_t now_ns);

/* All messages of all flows are in. Never so when their count was not told. */
bool book_complete(const struct book *book);

/*
 * Why a receiver may end; NULL: it may not. `idle`: nothing more waits to be read. Then it ends by
 * "signal" when it was stopped, by "count" when all are in, by "wait" when the waiting time has
 * passed since the last arrival. What is queued when it is stopped still counts, but not for ever:
 * a flood cannot keep it alive for more than a second.
 */
const char *book_ended(struct book *book, bool stopped, bool idle);

/* What a client asked and waits for. */
struct asked {
	const struct options *o;
	struct flow_report *r;
	FILE *log;
	struct message m; /* the request */
};

/*
 * Counts the n bytes that reached a client at now_ns, and shows and logs them if they are a reply.
 * Returns whether they are the reply to asked->m.
 */
bool book_reply(const struct asked *asked, const uint8_t *buf, size_t n, int64_t now_ns);

#endif
