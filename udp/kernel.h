/*
 * kernel: what the kernel knows of a UDP socket and no program can see: the datagrams that it
 * dropped at the socket, for want of room, or a wrong checksum.
 */
#ifndef UDP_KERNEL_H
#define UDP_KERNEL_H

#include "common/report.h"

/*
 * Adds to f: drops (datagrams dropped at this socket since it was made) and rcvbuf_bytes (the
 * buffer really had).
 */
void udp_kernel(int fd, struct facts *f);

#endif
