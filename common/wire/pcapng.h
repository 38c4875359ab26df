/*
 * The wire's capture (pcapng, draft-ietf-opsawg-pcapng): two interfaces, the client's end and the
 * server's, with nanoseconds. A packet shows at the end where it enters and, if it gets through, at
 * the end where it leaves, both with the same epb_packetid. What became of it, if that cannot be
 * seen, stands in its comment. It never sees a device or a clock.
 */
#ifndef COMMON_WIRE_PCAPNG_H
#define COMMON_WIRE_PCAPNG_H

#include <stddef.h>
#include <stdint.h>

enum { PCAPNG_BUFFER_BYTES = 262144 };

enum pcapng_end { PCAPNG_CLIENT, PCAPNG_SERVER };

enum pcapng_direction {
	PCAPNG_INTO_HOST = 1, /* epb_flags: inbound */
	PCAPNG_OUT_OF_HOST = 2,
};

/* fd -1 is no capture: every call is then allowed and does nothing. */
struct pcapng {
	int fd;
	int error; /* errno of the first write that failed: what follows is not written */
	int64_t realtime_offset_ns;
	size_t used;
	char buffer[PCAPNG_BUFFER_BYTES];
};

/*
 * Writes the blocks at the start. realtime_offset_ns is what to add to a time for the wall clock's;
 * the capture closes fd.
 */
void pcapng_open(struct pcapng *pcapng, int fd, int64_t realtime_offset_ns, const char *comment);

/* One packet at one end; `comment` may be NULL or "". */
void pcapng_packet(struct pcapng *pcapng, enum pcapng_end end, enum pcapng_direction direction,
	int64_t time_ns, uint64_t id, const uint8_t *bytes, size_t length, const char *comment);

/* Returns 0, or -1 with errno: now, or of an earlier write. */
int pcapng_flush(struct pcapng *pcapng);
int pcapng_close(struct pcapng *pcapng);

#endif
