/*
 * The orders that the wire takes on stdin, one a line, and its answers on stdout: one line of JSON
 * each, written whole. It knows the cable, and neither signals nor processes.
 */
#ifndef COMMON_WIRE_ORDERS_H
#define COMMON_WIRE_ORDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/cable.h"

enum {
	ORDER_BYTES = FATE_TEXT_BYTES,
	ANSWER_BYTES = 4 * FATE_TEXT_BYTES,
};

struct orders {
	struct cable *cable;
	/*
	 * Sleeps until stdout takes PIPE_BUF bytes; false when the wire ends instead, so that
	 * whoever does not read cannot hold that up.
	 */
	bool (*wait_writable)(void *context);
	void *context;
	bool over;   /* `quit`, or the end of stdin, or of those who read the answers */
	bool failed; /* nobody reads the answers */
	bool draining;
	unsigned drain_rounds; /* yet to come */
	uint64_t drain_id;     /* packets from here on are not waited for; 0: not yet known */
	bool too_long;
	size_t pending; /* bytes of line not yet looked at */
	size_t used;	/* bytes of answer */
	char line[ORDER_BYTES];
	char answer[ANSWER_BYTES];
};

/* The first line: the hosts' holders, the seed and the link. */
void orders_announce(struct orders *orders);

/*
 * Reads what there is on stdin and obeys the whole lines of it. During a drain they are kept, and
 * obeyed when it is over; the end of stdin counts at once, and makes a whole line of the last one.
 */
void orders_read(struct orders *orders);

/* With no room for more, only the end of stdin can be seen. */
bool orders_full(const struct orders *orders);

/*
 * To be asked in each round of a drain: answers one that is over, and obeys the orders behind it,
 * one of which may be a drain. `still` tells that nothing moved in this round. Returns whether it
 * was over.
 */
bool orders_drained(struct orders *orders, bool still);

/* Plain digits only. */
bool orders_number(const char *text, uint64_t *number);

#endif
