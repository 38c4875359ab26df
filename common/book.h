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
	bool last_was_ours; /* the last that came, whatever it was */
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
 * Why a receiver may end; NULL: it may not. To be asked after each read; `idle`: nothing more waits
 * to be read. It ends by "signal" when it was stopped, by "count" when all are in and nothing of
 * ours has come for a while (a last copy may be on its way), by "wait" when the waiting time has
 * passed since the last message of ours. Others' traffic does not keep it alive. What is queued
 * when it is stopped still counts, for a second at the most.
 */
const char *book_ended(struct book *book, bool stopped, bool idle);

/* Closes the log; what could not be written is an error. Frees the tallies. */
void book_close(struct book *book);

/* What a client asked and waits for. */
struct asked {
	const struct options *o;
	struct flow_report *r;
	FILE *log;
	struct message m; /* the request */
};

/*
 * Counts the n bytes that reached a client at now_ns, and shows and logs them if they are a reply.
 * Returns whether they are the reply to asked->m, in time or late. A reply to what was never asked
 * is alien: a forged one has no say in what is counted.
 */
bool book_reply(const struct asked *asked, const uint8_t *buf, size_t n, int64_t now_ns);

/*
 * The wait for the reply to asked->m is over without it: it is lost, or, when the program was
 * stopped before its time, outstanding.
 */
void book_unanswered(const struct asked *asked, bool stopped);

#endif
