#include "raw/packet.h"

const uint8_t *packet_payload(const uint8_t *packet, size_t n, size_t *len)
{
	size_t header;

	*len = 0;
	if (n < 20 || packet[0] >> 4 != 4)
		return packet;
	/* The header's length is counted in words of 4 bytes: options may follow the first 20. */
	header = (size_t)(packet[0] & 15) * 4;
	if (header < 20 || header > n)
		return packet;
	*len = n - header;
	return packet + header;
}
