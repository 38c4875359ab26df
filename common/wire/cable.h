/*
 * The cable between the two hosts: each direction has its fates (fate.h), the packets on their way
 * (queue.h) and its counters. What a host sends is taken, judged, kept until it is due, handed
 * over, logged and captured. It knows TAPs, and never sleeps: when to look is its caller's affair.
 */
#ifndef COMMON_WIRE_CABLE_H
#define COMMON_WIRE_CABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/fate.h"
#include "common/wire/frame.h"
#include "common/wire/host.h"
#include "common/wire/log.h"
#include "common/wire/pcapng.h"
#include "common/wire/queue.h"

/* Of one class in one direction, since the run began. Packets. */
struct counters {
	uint64_t entered;
	uint64_t result[FATE_RESULTS];
	uint64_t failed; /* the host did not take it, or there was no memory for it */
	uint64_t copies;
	uint64_t corrupted;
	uint64_t reordered;
};

/* One direction: from the host that sends to the one that receives. */
struct direction {
	enum fate_direction name;
	enum host_id from;
	enum host_id to;
	struct fate fate;
	struct queue queue;
	struct queue_order order;
	struct counters counters[FRAME_CLASSES]; /* of the current run */
	bool empty;				 /* the sender's TAP had nothing more */
	bool unplugged;				 /* the sender's TAP is gone */
	/* Frames that the sender's TAP may still hold of those that were there at a drain. */
	unsigned backlog;
};

struct cable {
	struct hosts hosts;
	struct direction direction[FATE_DIRECTIONS];
	struct log log;
	struct pcapng pcapng;
	uint64_t seed;
	uint64_t next_id;
	int64_t late_max_ns; /* of the current run */
	uint32_t run;
};

/*
 * Both directions as `spec` has them, and the first run, with `seed`. Hosts, log and capture are
 * the caller's to open, before or after.
 */
void cable_init(struct cable *cable, const struct fate_spec spec[FATE_DIRECTIONS], uint64_t seed);

/* A new run: indices, counters and the fates' draws begin anew. What is on its way arrives. */
void cable_run(struct cable *cable, uint64_t seed);

/* What a direction does from now on; what is on its way keeps its fate. */
void cable_set(struct cable *cable, enum fate_direction name, const struct fate_spec *spec);

/* When the next packet is due (clock_now_ns()); INT64_MAX when none is on its way. */
int64_t cable_next_due(const struct cable *cable);

/*
 * Delivers what is due, in the order of the due times over both directions, a batch at most.
 * Returns how many.
 */
int cable_deliver(struct cable *cable);

/*
 * Takes what a host has sent, a batch at most, and stops for what comes due meanwhile. Returns how
 * many.
 */
int cable_take(struct cable *cable, struct direction *direction);

/*
 * Takes all that was sent up to now, so that an order counts for what is sent from then on. Under a
 * flood there is no end to it; but what was there when it began is no more than a TAP holds.
 */
void cable_catch_up(struct cable *cable);

/* The id of the first packet that came in of those on their way; UINT64_MAX: none is. */
uint64_t cable_oldest(const struct cable *cable);

/* Log and capture, as far as they are. Returns 0, or -1 with errno. */
int cable_flush(struct cable *cable);

#endif
