/*
 * message: the one message that every program sends, a 48-byte header and filler behind it.
 * Big-endian.
 *
 *   0  magic      4     16  version  1     32  due_ns   8
 *   4  length     4     17  kind     1     40  sent_ns  8
 *   8  clock id   4     18  zero     2     48  filler
 *  12  flow       4     20  CRC-32C  4
 *                       24  seq      8
 *
 * The length is in the message because a stream has no other way to tell where one ends. It never
 * sees fds or the time.
 */
#ifndef COMMON_MESSAGE_H
#define COMMON_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#define MESSAGE_MAGIC	     UINT32_C(0x534c4142) /* "SLAB" */
#define MESSAGE_VERSION	     1
#define MESSAGE_HEADER_BYTES 48
#define MESSAGE_MAX_BYTES    65507 /* the most that one UDP datagram carries over IPv4 */

enum message_kind { MESSAGE_DATA = 1, MESSAGE_REQUEST = 2, MESSAGE_REPLY = 3 };

struct message {
	uint32_t length; /* of the whole, header and filler, in bytes */
	uint32_t clock_id;
	uint32_t flow; /* run in the high 16 bits, index in the low: two runs never mix */
	uint8_t kind;
	uint64_t seq;
	int64_t due_ns;	 /* when the schedule wanted it sent */
	int64_t sent_ns; /* when it was written to the socket: a late sender shows */
};

enum message_verdict {
	MESSAGE_OK,
	MESSAGE_CORRUPT, /* ours by its first bytes, but the CRC or the length is wrong */
	MESSAGE_ALIEN,	 /* not ours */
};

/*
 * Writes the whole message, m->length bytes (MESSAGE_HEADER_BYTES to MESSAGE_MAX_BYTES), with its
 * filler and CRC.
 */
void message_encode(uint8_t *buf, const struct message *m);

/*
 * Reads the len bytes that arrived as one message. *m is filled in only when the verdict is
 * MESSAGE_OK.
 */
enum message_verdict message_decode(const uint8_t *buf, size_t len, struct message *m);

/*
 * How long the message is that begins with these MESSAGE_HEADER_BYTES bytes: what a reader of a
 * stream must know before it can read the rest. 0 if no message of ours begins so.
 */
size_t message_length(const uint8_t *header);

/*
 * A number for a run that was given none, 1 to 65535, from the time: any will do that the run
 * before it did not have.
 */
static inline uint16_t message_new_run(int64_t now_ns)
{
	return (uint16_t)(1 + now_ns / 1000 % UINT16_MAX);
}

static inline uint16_t message_run(const struct message *m)
{
	return (uint16_t)(m->flow >> 16);
}

static inline uint16_t message_index(const struct message *m)
{
	return (uint16_t)m->flow;
}

#endif
