/*
 * packet: what headers of one's own make you write. A raw socket hands over each packet with its IP
 * header in front, and a copy to everybody who listens. It knows layouts, and no fds.
 */
#ifndef RAW_PACKET_H
#define RAW_PACKET_H

#include <stddef.h>
#include <stdint.h>

#define PACKET_PROTOCOL	    253 /* for experiments, RFC 3692 section 2.1 */
#define PACKET_HEADER_BYTES 60	/* an IPv4 header at its longest, RFC 791 section 3.1 */

/*
 * Finds what stands behind the IPv4 header of the n bytes that a raw socket read. Returns it and
 * its length in *len, which is 0 if the header is not one.
 */
const uint8_t *packet_payload(const uint8_t *packet, size_t n, size_t *len);

#endif
