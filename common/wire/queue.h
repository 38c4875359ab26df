/*
 * The packets on their way in one direction: each has a time at which it is due at the far end. A
 * packet is first serialised at `rate`, once those before it are, and then delayed. What was pushed
 * first leaves first, whatever the delays (jitter keeps order), but for packets that are sent
 * ahead: those skip the delay and overtake. So two plain lists, in due order by nature, are enough,
 * and each call is O(1). Packets live in chunks that are freed as they drain: memory grows with
 * what is in flight and with nothing else.
 *
 * It never sees a device or a clock: the time is told. It knows bytes, and makes nothing of them.
 */
#ifndef COMMON_WIRE_QUEUE_H
#define COMMON_WIRE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/fate.h"
#include "common/wire/frame.h"

/* What will be logged of a packet, kept with it while it is on its way. */
struct queue_record {
	uint64_t id;
	int64_t in_ns;
	uint32_t run;
	uint32_t length; /* of the frame */
	struct frame_info info;
	struct fate_decision fate;
};

struct queue_chunk;

struct queue_entry {
	struct queue_entry *next;  /* the queue's own */
	struct queue_chunk *chunk; /* the queue's own */
	uint64_t order;		   /* the queue's own: pushed as the how manyth */
	int64_t due_ns;
	struct queue_record record; /* record.length bytes follow */
	uint8_t bytes[];
};

struct queue_list {
	struct queue_entry *head;
	struct queue_entry *tail;
};

/* All zero is an empty queue without rate or limit. */
struct queue {
	struct queue_list in_order;
	struct queue_list ahead;
	/*
	 * New packets go here: [0] those that keep order, [1] those sent ahead. Apart, since one
	 * that waits would keep a whole chunk of others' alive.
	 */
	struct queue_chunk *filling[2];
	struct queue_chunk *spare; /* at most one, empty */
	uint64_t rate_bits;
	uint64_t limit;
	uint64_t count; /* packets held */
	uint64_t pushed;
	uint64_t remainder;  /* of the last division by the rate: nothing is lost in the long run */
	int64_t free_ns;     /* when the transmitter is free */
	int64_t last_due_ns; /* of the last packet that keeps order */
	size_t memory_bytes;
};

/*
 * Sets rate (bits a second; 0: none) and limit (packets held, waiting or on their way; 0: none),
 * for what comes next.
 */
void queue_set(struct queue *queue, uint64_t rate_bits, uint64_t limit);

/*
 * Takes record->length bytes that entered at now_ns, with record->fate's delay_ns and ahead. A copy
 * is no packet of its own here: who pops sends the frame 1 + record->fate.copies times. now_ns
 * never goes back between calls. Returns 1 when taken, 0 when the queue is full (the caller makes
 * it FATE_QUEUE), -1 with errno when there is no memory.
 */
int queue_push(struct queue *queue, int64_t now_ns, const uint8_t *bytes,
	const struct queue_record *record);

/* When the next packet is due; INT64_MAX when there is none. */
int64_t queue_next_due(const struct queue *queue);

/*
 * Takes out the next packet that is due at now_ns, or returns NULL. The caller may read and change
 * it, and gives it back with queue_release().
 */
struct queue_entry *queue_pop(struct queue *queue, int64_t now_ns);
void queue_release(struct queue *queue, struct queue_entry *entry);

/* Frees everything; the queue is then empty, with its rate and limit. */
void queue_clear(struct queue *queue);

/*
 * RFC 4737 3.3 at one direction's output, a class at a time, with the index in the class as the
 * sequence number.
 */
struct queue_order {
	uint32_t run;
	uint64_t next_exp[FRAME_CLASSES];
};

/*
 * To be asked once for each packet as it leaves (not for copies). True when it is reordered: a
 * later one of its class left before. A run begins anew; what is left of an older run and comes
 * behind a newer run's is reordered.
 */
bool queue_order_reordered(struct queue_order *order, const struct queue_record *record);

#endif
