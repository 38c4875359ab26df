/*
 * Backlog: a server that listens and accepts nobody, until it is told to: SIGUSR1 makes it accept
 * one connection. It has no twin, because UDP and raw sockets have no listen(): nothing stands in
 * line there but what was sent.
 *
 * Each time it says how many connections wait to be accepted, and how long the kernel lets that
 * queue grow: --backlog, or net.core.somaxconn if that is less.
 */
#include "common/addr.h"
#include "common/options.h"
#include "common/report.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <unistd.h>

/* What the kernel knows of a listening socket stands in two fields that mean other things there. */
static void say_queue(const struct options *o, int fd, const struct addr *accepted)
{
	struct queue_report queue = {.asked = o->backlog};
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	char text[ADDR_TEXT_BYTES];

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		err(1, "TCP_INFO");
	queue.waiting = info.tcpi_unacked;
	queue.backlog = info.tcpi_sacked;
	if (accepted) {
		queue.peer = addr_host_text(accepted, text);
		queue.port = addr_port(accepted);
	}
	report_queue(o, &queue);
}

int main(int argc, char **argv)
{
	struct options o = {.backlog = SOMAXCONN};
	char text[ADDR_TEXT_BYTES];
	struct addr own, peer;
	int fd, conn, signal_number, on = 1;
	sigset_t signals;

	report_open(argc, argv);
	options_parse(&o, argc, argv, "BJ" OPTIONS_PORT OPTIONS_BACKLOG,
		"listens, and accepts one connection for each SIGUSR1");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(o.family), o.port, o.family);
	/* Blocked, they wait for sigwait() below, and none of them is missed. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	/* Step 1: make a socket. Its accept() is not to block when nobody waits. */
	fd = socket(own.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		err(1, "SO_REUSEADDR");

	/* Step 2: take an address. A SYN that comes now is answered with a reset. */
	if (bind(fd, addr_sa(&own), own.len))
		err(1, "bind to %s", addr_text(&own, text));

	/* Step 3: set up the two queues. From here on the kernel completes handshakes for us. */
	if (listen(fd, (int)o.backlog))
		err(1, "listen");
	if (getsockname(fd, addr_sa(&own), &own.len))
		err(1, "getsockname");
	report_ready(&o, addr_host_text(&own, text), addr_port(&own), IPPROTO_TCP);
	say_queue(&o, fd, NULL);

	/* Step 4: take one out of the queue when told to, and keep it open. Nobody reads from
	 * it. */
	while (!sigwait(&signals, &signal_number) && signal_number == SIGUSR1) {
		peer.len = sizeof(peer.storage);
		conn = accept(fd, addr_sa(&peer), &peer.len);
		if (conn < 0 && errno != EAGAIN)
			err(1, "accept");
		say_queue(&o, fd, conn < 0 ? NULL : &peer);
	}

	/* Step 5: close. Whoever still waits in the queue is reset. */
	close(fd);
	return 0;
}
