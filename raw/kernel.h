/*
 * kernel: what the kernel knows of a raw socket and no program can see: the packets that it dropped
 * at the socket, for want of room.
 */
#ifndef RAW_KERNEL_H
#define RAW_KERNEL_H

#include "common/report.h"

/*
 * Adds to f: drops (packets dropped at this socket since it was made) and rcvbuf_bytes (the buffer
 * really had).
 */
void raw_kernel(int fd, struct facts *f);

#endif
