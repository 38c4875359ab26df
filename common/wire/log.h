/*
 * The wire's log: one CSV row for each packet, written when its fate is complete. It is buffered,
 * and formats by hand: at 200 000 packets a second there are 5 us for each. It never sees a device,
 * and makes up nothing: a field that a packet does not have is empty.
 */
#ifndef COMMON_WIRE_LOG_H
#define COMMON_WIRE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/queue.h"

enum { LOG_BUFFER_BYTES = 65536 };

/* fd -1 is no log: every call is then allowed and does nothing. */
struct log {
	int fd;
	int error; /* errno of the first write that failed: what follows is not written */
	size_t used;
	char buffer[LOG_BUFFER_BYTES];
};

/* Writes the header line; the log closes fd. */
void log_open(struct log *log, int fd);

/*
 * One packet whose fate is complete. out_ns is when it left, or -1; `fate` is the word for what
 * became of it; `copies` went out besides the original.
 */
void log_packet(struct log *log, enum fate_direction direction, const struct queue_record *record,
	const char *fate, int64_t out_ns, unsigned copies, bool reordered);

/* Returns 0, or -1 with errno: now, or of an earlier write. */
int log_flush(struct log *log);
int log_close(struct log *log);

#endif
