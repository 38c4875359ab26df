#include "udp/kernel.h"

#include <err.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

void udp_kernel(int fd, struct facts *f)
{
	uint32_t meminfo[SK_MEMINFO_VARS] = {0};
	socklen_t len = sizeof(meminfo);

	/*
	 * SO_RXQ_OVFL tells the same only with the next datagram: a tail that is dropped has none.
	 */
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, &len))
		err(1, "SO_MEMINFO");
	facts_add(f, "drops", meminfo[SK_MEMINFO_DROPS]);
	facts_add(f, "rcvbuf_bytes", meminfo[SK_MEMINFO_RCVBUF]);
}
