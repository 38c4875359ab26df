/*
 * kernel: what the kernel knows of a TCP connection and no program can see: how often it had to
 * send again, what round trip it believes in, how large its windows are.
 */
#ifndef TCP_KERNEL_H
#define TCP_KERNEL_H

#include "common/report.h"

/* Adds TCP_INFO (man 7 tcp) to f, times in ns, sizes in bytes or segments as their names say. */
void tcp_kernel(int fd, struct facts *f);

#endif
