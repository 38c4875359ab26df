/*
 * The raw receiver: accounts for every message: loss, duplicates, order, one-way delay. All flows
 * come in at one socket, each packet by itself, and nothing says when the last one was sent.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/stop.h"
#include "raw/kernel.h"
#include "raw/packet.h"

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
	uint8_t buf[PACKET_HEADER_BYTES + MESSAGE_MAX_BYTES];
	const uint8_t *payload;
	size_t len;
	char text[ADDR_TEXT_BYTES];
	struct addr own;
	int fd, status;

	report_open(argc, argv);
	options_parse(
		&o, argc, argv, OPTIONS_RECEIVER, "accounts for every message of a raw sender");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(AF_INET), 0, AF_INET);
	book = book_open(&o);
	timeout = stop_timeout(o.wait_ns);
	stop = stop_on_signals();

	/* Step 1: make a socket. */
	fd = socket(AF_INET, SOCK_RAW, PACKET_PROTOCOL);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO");
	if (o.rcvbuf && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &o.rcvbuf, sizeof(o.rcvbuf)))
		err(1, "SO_RCVBUF %u", o.rcvbuf);

	/* Step 2: take an address. With or without one, packets have been queued for us since
	 * step 1. */
	if (bind(fd, addr_sa(&own), own.len))
		err(1, "bind to %s", addr_text(&own, text));
	if (getsockname(fd, addr_sa(&own), &own.len))
		err(1, "getsockname");
	report_ready(&o, addr_host_text(&own, text), -1, PACKET_PROTOCOL);

	/* Step 3: take in the messages. Each read is one packet, its IP header in front; what is
	 * queued when we are stopped still counts. */
	while (!why) {
		ssize_t n = recv(fd, buf, sizeof(buf), *stop ? MSG_DONTWAIT : 0);

		if (n >= 0) {
			payload = packet_payload(buf, (size_t)n, &len);
			book_enter(&book, payload, len, clock_now_ns());
		} else if (errno != EAGAIN && errno != EINTR) {
			err(1, "recv");
		}
		why = book_ended(&book, *stop, n < 0 && errno == EAGAIN);
	}

	/* Step 4: see what the kernel knows, and close. */
	raw_kernel(fd, &book.all.facts);
	close(fd);
	status = report_receiver(&o, why, &book.all, book.flows, o.flows);
	book_close(&book);
	return status;
}
