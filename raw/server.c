/*
 * The raw server: echoes. One socket serves every client, and there is nothing that it knows of
 * them but the address on each packet. Whoever else listens to this protocol gets a copy of all of
 * them.
 */
#include "common/addr.h"
#include "common/message.h"
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

/*
 * Answers what arrived, if it is a request: with its own bytes, marked as a reply, and never more
 * of them.
 */
static void answer(int fd, const uint8_t *buf, size_t n, struct addr *client, struct flow_report *r)
{
	uint8_t reply[MESSAGE_MAX_BYTES];
	struct message m;
	enum message_verdict verdict = message_decode(buf, n, &m);

	if (verdict == MESSAGE_CORRUPT) {
		r->corrupt++;
		return;
	}
	if (verdict == MESSAGE_ALIEN) {
		r->alien++;
		return;
	}
	if (m.kind != MESSAGE_REQUEST) {
		/*
		 * Above all no reply to a reply: two echo servers would send it to and fro for
		 * ever.
		 */
		r->foreign++;
		return;
	}
	r->requests++;
	m.kind = MESSAGE_REPLY;
	message_encode(reply, &m);
	if (sendto(fd, reply, m.length, 0, addr_sa(client), client->len) < 0)
		r->refused++;
	else
		r->replies++;
}

int main(int argc, char **argv)
{
	struct options o = {.flows = 1};
	const atomic_bool *stop;
	struct timeval timeout = stop_timeout(STOP_TIMEOUT_NS);
	struct flow_report r = {0};
	uint8_t buf[PACKET_HEADER_BYTES + MESSAGE_MAX_BYTES];
	const uint8_t *payload;
	size_t len;
	char text[ADDR_TEXT_BYTES];
	struct addr own;
	int fd;

	report_open(argc, argv);
	options_parse(&o, argc, argv, OPTIONS_SERVER, "echoes what raw clients ask");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(AF_INET), 0, AF_INET);
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

	/* Step 3: serve. Each packet stands alone, its IP header in front, so the next client
	 * may be another. */
	while (!*stop) {
		struct addr client = {.len = sizeof(client.storage)};
		ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, addr_sa(&client), &client.len);

		if (n >= 0) {
			payload = packet_payload(buf, (size_t)n, &len);
			answer(fd, payload, len, &client, &r);
		} else if (errno != EAGAIN && errno != EINTR) {
			err(1, "recvfrom");
		}
	}

	/* Step 4: see what the kernel knows, and close. */
	raw_kernel(fd, &r.facts);
	close(fd);
	return report_server(&o, "signal", &r);
}
