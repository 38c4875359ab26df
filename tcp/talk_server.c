/*
 * The smallest TCP server: a line comes back with "server-" in front.
 * tcp-talk_server [PORT [ADDRESS]]
 */
#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 1024 };

/* A stream has no lines: reads on until one is whole. Returns its length, 0 at the end, or -1. */
static ssize_t read_line(int fd, char *line, ssize_t size)
{
	ssize_t got = 0, n;

	do {
		n = read(fd, line + got, 1);
		if (n <= 0)
			return got > 0 ? got : n;
	} while (line[got++] != '\n' && got < size);
	return got;
}

int main(int argc, char **argv)
{
	struct sockaddr_in own = {.sin_family = AF_INET};
	socklen_t len = sizeof(own);
	char answer[7 + LINE] = "server-", *line = answer + 7;
	char *end, *port = argc > 1 ? argv[1] : "0";
	unsigned long number = strtoul(port, &end, 10);
	int fd, conn;
	ssize_t n;

	if (argc > 3)
		errx(2, "too many words: allowed is [PORT [ADDRESS]]");
	if (end == port || *end != '\0' || number > 65535)
		errx(2, "port '%s': allowed is 0 to 65535", port);
	own.sin_port = htons((in_port_t)number);
	if (inet_pton(AF_INET, argc > 2 ? argv[2] : "127.0.0.1", &own.sin_addr) != 1)
		errx(2, "address '%s': allowed is one like 10.0.0.2", argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN); /* else a write to a client that is gone ends us */

	/* Step 1: make a socket. */
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");

	/* Step 2: take an address. From listen() on, clients can connect to it. */
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)))
		err(1, "bind to port %s", port);
	if (listen(fd, SOMAXCONN))
		err(1, "listen");
	if (getsockname(fd, (struct sockaddr *)&own, &len))
		err(1, "getsockname");
	printf("listening on %s port %d\n", inet_ntoa(own.sin_addr), ntohs(own.sin_port));

	/* Step 3: serve. accept() makes a second socket, for this client alone. */
	for (;;) {
		conn = accept(fd, NULL, NULL);
		if (conn < 0)
			err(1, "accept");
		while ((n = read_line(conn, line, LINE)) > 0) {
			printf("%.*s", (int)n, line);
			/* Else two servers would answer each other for ever. */
			if (n >= 7 && memcmp(line, "server-", 7) == 0)
				continue;
			if (write(conn, answer, 7 + (size_t)n) != 7 + n)
				warn("write");
		}
		if (n < 0)
			warn("read");
		else
			printf("(a read of 0: the client has closed)\n");
		close(conn);
	}
}
