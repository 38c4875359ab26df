/*
 * schedule: when message n is due, and how late we are. It never sees sockets.
 *
 * The schedule is absolute: message n is due at start + n * interval whatever became of the ones
 * before it. A sender that waits "interval after the last one" slows down with its path, and hides
 * just the delays that it should measure (coordinated omission).
 */
#ifndef COMMON_SCHEDULE_H
#define COMMON_SCHEDULE_H

#include "common/samples.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct schedule {
	int64_t start_ns, interval_ns;
};

/* When message n, from 0, is due, on the clock; for an interval of 0 that is the start. */
int64_t schedule_due_ns(const struct schedule *s, uint64_t n);

/*
 * Waits until message n is due. Sets *due_ns to that, and *sent_ns to what the clock reads now that
 * it may be sent. With an interval of 0 there are no times to keep: each is due as soon as it is
 * asked for. Returns false when *stop is set.
 */
bool schedule_wait(const struct schedule *s, uint64_t n, const atomic_bool *stop, int64_t *due_ns,
	int64_t *sent_ns);

/*
 * Notes how late a message that was due at due_ns was sent, never below 0. Without an interval
 * nothing can be late, and nothing is noted.
 */
void schedule_late(const struct schedule *s, struct samples *late, int64_t due_ns, int64_t sent_ns);

#endif
