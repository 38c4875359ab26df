/*
 * The smallest UDP server: a line comes back with "server-" in front.
 * udp-talk_server [PORT [ADDRESS]]
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 1024 };

int main(int argc, char **argv)
{
	struct sockaddr_in own = {.sin_family = AF_INET}, client;
	socklen_t len = sizeof(own);
	char answer[7 + LINE] = "server-", *line = answer + 7;
	char *end, *port = argc > 1 ? argv[1] : "0";
	unsigned long number = strtoul(port, &end, 10);
	int fd;
	ssize_t n;

	if (argc > 3)
		errx(2, "too many words: allowed is [PORT [ADDRESS]]");
	if (end == port || *end != '\0' || number > 65535)
		errx(2, "port '%s': allowed is 0 to 65535", port);
	own.sin_port = htons((in_port_t)number);
	if (inet_pton(AF_INET, argc > 2 ? argv[2] : "127.0.0.1", &own.sin_addr) != 1)
		errx(2, "address '%s': allowed is one like 10.0.0.2", argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);

	/* Step 1: make a socket. */
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		err(1, "socket");

	/* Step 2: take an address. From bind() on, datagrams to it are queued for us. */
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)))
		err(1, "bind to port %s", port);
	if (getsockname(fd, (struct sockaddr *)&own, &len))
		err(1, "getsockname");
	printf("listening on %s port %d\n", inet_ntoa(own.sin_addr), ntohs(own.sin_port));

	/* Step 3: serve. Each datagram stands alone and tells whose it is. */
	for (;;) {
		len = sizeof(client);
		n = recvfrom(fd, line, LINE, 0, (struct sockaddr *)&client, &len);
		if (n < 0)
			err(1, "recvfrom");
		printf("%.*s", (int)n, line);
		/* Else two servers would answer each other for ever. */
		if (n >= 7 && memcmp(line, "server-", 7) == 0)
			continue;
		if (sendto(fd, answer, 7 + (size_t)n, 0, (struct sockaddr *)&client, len) < 0)
			warn("sendto");
	}
}
