#include "common/checksum.h"

uint32_t checksum_add(uint32_t sum, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (; len >= 2; p += 2, len -= 2) {
		sum += (uint32_t)p[0] << 8 | p[1];
		/*
		 * Fold at once: the carry goes back in, and the sum cannot overflow whatever the
		 * length.
		 */
		sum = (sum & 0xffff) + (sum >> 16);
	}
	if (len)
		sum += (uint32_t)p[0] << 8;
	return (sum & 0xffff) + (sum >> 16);
}

uint16_t checksum_finish(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}
