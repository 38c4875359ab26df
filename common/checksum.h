/*
 * checksum: the Internet checksum, RFC 1071. It knows bytes: no headers, no sockets.
 */
#ifndef COMMON_CHECKSUM_H
#define COMMON_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Adds len bytes to a running one's complement sum (start with 0). An odd length is padded with a
 * zero byte, so only the last piece of what is summed may be odd (RFC 1071 section 4.1).
 */
uint32_t checksum_add(uint32_t sum, const void *bytes, size_t len);

/*
 * The checksum of what was added: the complement, as the number whose high byte goes on the wire
 * first. Over data that hold their own right checksum it is 0.
 */
uint16_t checksum_finish(uint32_t sum);

#endif
