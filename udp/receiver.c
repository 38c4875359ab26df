/*
 * The UDP receiver: accounts for every message: loss, duplicates, order, one-way delay. All flows
 * come in at one socket, each datagram by itself, and nothing says when the last one was sent.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/stop.h"
#include "udp/kernel.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct options o = {.wait_ns = 5 * CLOCK_NS_PER_SECOND, .flows = 1};
	struct book book;
	const atomic_bool *stop;
	const char *why = NULL;
	struct timeval timeout;
	uint8_t buf[MESSAGE_MAX_BYTES];
	char text[ADDR_TEXT_BYTES];
	struct addr own;
	int fd, status;

	report_open(argc, argv);
	options_parse(&o, argc, argv, OPTIONS_RECEIVER OPTIONS_PORT,
		"accounts for every message of a UDP sender");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(o.family), o.port, o.family);
	book = book_open(&o);
	timeout = stop_timeout(o.wait_ns);
	stop = stop_on_signals();

	/* Step 1: make a socket. */
	fd = socket(own.storage.ss_family, SOCK_DGRAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO");
	if (o.rcvbuf && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &o.rcvbuf, sizeof(o.rcvbuf)))
		err(1, "SO_RCVBUF %u", o.rcvbuf);

	/* Step 2: take an address. From here on datagrams are queued for us, from anybody. */
	if (bind(fd, addr_sa(&own), own.len))
		err(1, "bind to %s", addr_text(&own, text));
	if (getsockname(fd, addr_sa(&own), &own.len))
		err(1, "getsockname");
	report_ready(&o, addr_host_text(&own, text), addr_port(&own), IPPROTO_UDP);

	/* Step 3: take in the messages. Each read is one datagram; what is queued when we are
	 * stopped still counts. */
	while (!why) {
		ssize_t n = recv(fd, buf, sizeof(buf), *stop ? MSG_DONTWAIT : 0);

		if (n >= 0)
			book_enter(&book, buf, (size_t)n, clock_now_ns());
		else if (errno != EAGAIN && errno != EINTR)
			err(1, "recv");
		why = book_ended(&book, *stop, n < 0 && errno == EAGAIN);
	}

	/* Step 4: see what the kernel knows, and close. */
	udp_kernel(fd, &book.all.facts);
	close(fd);
	status = report_receiver(&o, why, &book.all, book.flows, o.flows);
	book_close(&book);
	return status;
}
