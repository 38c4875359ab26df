/*
 * What becomes of a packet. One direction's spec, in tc-netem's words, is parsed here; after that
 * each packet's fate is a pure function of (seed, direction, kind of impairment, class, index in
 * class):
 *
 *   draw = d(d(d(d(seed, direction), kind), class), index)
 *   d(key, n) = mix(key + (n + 1) * 0x9e3779b97f4a7c15)
 *
 * mod 2^64, where mix is SplitMix64's finaliser, so d(key, 0), d(key, 1), ... is SplitMix64 seeded
 * with key (Steele, Lea and Flood 2014). A probability compares the upper 53 bits as a number in
 * [0, 1). Nothing is drawn "next", so no setting and no other packet shifts a draw. Only two things
 * have a memory, gemodel's state and reorder's gap, and each moves once for each index of its
 * class. The rest is integers, and exact or once-rounded doubles: no libm and no fused multiply-add
 * can make two machines differ.
 *
 * It never sees a device, a clock, a byte of a frame, or the queue: `rate` and `limit` are parsed
 * here and applied there.
 */
#ifndef COMMON_WIRE_FATE_H
#define COMMON_WIRE_FATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/wire/frame.h"

enum fate_direction {
	FATE_UP, /* client to server */
	FATE_DOWN,
	FATE_DIRECTIONS
};

/* The kinds of impairment that draw. Their numbers are part of the key. */
enum fate_kind {
	FATE_KIND_LOSS,
	FATE_KIND_GEMODEL_MOVE,
	FATE_KIND_GEMODEL_LOSS,
	FATE_KIND_DUPLICATE,
	FATE_KIND_CORRUPT,
	FATE_KIND_CORRUPT_BIT,
	FATE_KIND_REORDER,
	FATE_KIND_JITTER,
	FATE_KINDS
};

enum fate_result {
	FATE_DELIVERED,
	FATE_LOST,
	FATE_QUEUE, /* the queue was full: set by who pushes, never by fate_decide() */
	FATE_DROPPED,
	FATE_BLOCKED,
	FATE_RESULTS
};

enum fate_loss {
	FATE_LOSS_NONE,
	FATE_LOSS_RANDOM,
	FATE_LOSS_GEMODEL,
};

enum fate_action {
	FATE_ALLOW,
	FATE_BLOCK,
	FATE_REJECT,
};

enum {
	FATE_RULES = 64,	  /* block, reject and allow, in one spec */
	FATE_RANGES = 1024,	  /* N or N-M, in one spec */
	FATE_ERROR_BYTES = 256,	  /* room for any error line */
	FATE_TEXT_BYTES = 65536,  /* room for any spec written back */
	FATE_EXPLAIN_BYTES = 256, /* room for any explanation */
};

/*
 * One rule of the firewall. The first that matches decides; where there is an `allow`, what no rule
 * matches is blocked.
 */
struct fate_rule {
	uint8_t action; /* enum fate_action */
	uint8_t class;	/* FRAME_TCP, FRAME_UDP, FRAME_ICMP or FRAME_RAW */
	bool has_port;
	uint16_t port; /* the server's: the destination going up, the source going down */
};

/* The first to the last packet of a class, from 1. */
struct fate_range {
	uint64_t first;
	uint64_t last;
};

/*
 * One direction's spec. All zero is a clean cable. Probabilities are 0 to 1. Unlike netem's, each
 * draw is for itself: no correlations. A copy comes out with its original: it uses no rate and
 * takes no place in the limit. A reject is answered at once, at the entrance of the link, without
 * its delay.
 */
struct fate_spec {
	int64_t delay_ns;
	int64_t jitter_ns;
	uint64_t rate_bits; /* a second; 0: none */
	uint64_t limit;	    /* packets held; 0: none */
	uint64_t gap;	    /* with reorder: at least 1 */
	double loss_p;	    /* random: the loss; gemodel: good to bad */
	double gemodel_r;   /* bad to good */
	double gemodel_1_h; /* loss in bad */
	double gemodel_1_k; /* loss in good */
	double duplicate;
	double corrupt;
	double reorder;
	enum fate_loss loss;
	bool normal; /* the jitter's distribution; else uniform */
	uint16_t rules;
	struct fate_rule rule[FATE_RULES];
	/*
	 * Ranges of drop class c: range_begin[c] up to range_begin[c + 1], in order, without
	 * overlap.
	 */
	uint16_t range_begin[FRAME_DROPS + 1];
	struct fate_range range[FATE_RANGES];
};

/* The fates of one direction in one run. */
struct fate {
	uint64_t seed;
	enum fate_direction direction;
	struct fate_spec spec;
	uint64_t index[FRAME_CLASSES];		 /* of the next packet */
	uint64_t counted[FRAME_DROPS];		 /* packets so far */
	bool bad[FRAME_CLASSES];		 /* gemodel's state before the next packet */
	uint64_t since_ahead[FRAME_CLASSES];	 /* reorder: packets since one was sent ahead */
	uint64_t key[FATE_KINDS][FRAME_CLASSES]; /* d(d(d(seed, direction), kind), class) */
};

enum fate_cause {
	FATE_CAUSE_NONE,
	FATE_CAUSE_RANDOM,
	FATE_CAUSE_GOOD, /* gemodel, by the state that it was in */
	FATE_CAUSE_BAD,
	FATE_CAUSE_DROP,
	FATE_CAUSE_RULE,
	FATE_CAUSE_NOT_ALLOWED,
};

/* What becomes of one packet, and why. */
struct fate_decision {
	uint64_t index;	  /* in its class, from 0 */
	int64_t delay_ns; /* jitter and all; 0 when sent ahead */
	/*
	 * With corrupted: in bits from where the frame's body begins, the highest of each byte
	 * first.
	 */
	uint32_t corrupt_bit;
	uint8_t result; /* enum fate_result */
	uint8_t copies; /* besides the original: 0 or 1 */
	bool corrupted;
	bool ahead;	       /* it overtakes those that wait (`reorder`) */
	bool rejected;	       /* blocked, and frame_answer() goes back to the sender */
	uint8_t cause;	       /* enum fate_cause */
	uint8_t drop;	       /* enum frame_drop, of FATE_CAUSE_DROP */
	struct fate_rule rule; /* of FATE_CAUSE_RULE */
	double draw;	       /* of a loss: it was below this probability */
	double probability;
	uint64_t number; /* of FATE_CAUSE_DROP: the how manyth of its class, from 1 */
	uint64_t limit;	 /* the queue's, for FATE_QUEUE */
};

/*
 * Parses one direction's spec, e.g. "delay 20ms 5ms loss 5%"; "" is a clean cable. Returns 0, or -1
 * with one line in `error` (no newline) that names the word, the value and what is allowed.
 */
int fate_parse(const char *text, struct fate_spec *spec, char error[FATE_ERROR_BYTES]);

/*
 * Writes a spec in words that fate_parse() takes for the same spec; `text` has room for
 * FATE_TEXT_BYTES. Returns text.
 */
const char *fate_format(const struct fate_spec *spec, char *text);

/* Begins the first run over a clean cable. */
void fate_init(struct fate *fate, uint64_t seed, enum fate_direction direction);

/* Begins a new run: indices, counts and chains as at the start; the spec stays. */
void fate_reset(struct fate *fate, uint64_t seed);

/*
 * Changes the spec in mid-run. Indices and counts go on; so does a chain that both specs have, any
 * other begins anew.
 */
void fate_set(struct fate *fate, const struct fate_spec *spec);

/*
 * The fate of the next packet of its class. Precedence: blocked, dropped, lost; then duplicate,
 * corrupt, delay and reorder. A packet that dies has copies 0, corrupted and ahead false, delay 0.
 */
void fate_decide(struct fate *fate, const struct frame_info *info, struct fate_decision *decision);

/*
 * Says why, for a capture's comment: "lost: draw 0.012 < 0.05", "dropped: data 3", "blocked:
 * tcp:80", "duplicated; sent ahead", "corrupted: bit 17 behind the IP header", "queue: limit 10";
 * "" when there is nothing to say. Returns text.
 */
const char *fate_explain(const struct fate_decision *decision, char text[FATE_EXPLAIN_BYTES]);

/* "up", "down" */
const char *fate_direction_name(enum fate_direction direction);

/* "delivered", "lost", "queue", "dropped", "blocked" */
const char *fate_result_name(enum fate_result result);

/*
 * Writes, as CSV, the first n fates of each class in both directions, without a packet: what depends
 * on ports, flags, a fragment's protocol or time (a firewall's ports, `drop syn`, `block udp` of a
 * fragment, rate, limit) is not in it. Each has something to corrupt, as all IP packets with a body
 * have. Returns 0, or -1 with errno.
 */
int fate_dry_run(
	FILE *out, const struct fate_spec spec[FATE_DIRECTIONS], uint64_t seed, uint64_t n);

#endif
