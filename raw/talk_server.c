/*
 * The smallest raw server: a line comes back with "server-" in front.
 * raw-talk_server [ADDRESS]
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 1024 };

int main(int argc, char **argv)
{
	struct sockaddr_in own = {.sin_family = AF_INET}, client;
	socklen_t len = sizeof(own);
	char answer[7 + LINE] = "server-", *line = answer + 7;
	unsigned char packet[60 + LINE];
	int fd, header;
	ssize_t n;

	if (argc > 2)
		errx(2, "too many words: allowed is [ADDRESS]");
	if (inet_pton(AF_INET, argc > 1 ? argv[1] : "127.0.0.1", &own.sin_addr) != 1)
		errx(2, "address '%s': allowed is one like 10.0.0.2", argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);

	/* Step 1: make a socket. 253 is our protocol: the kernel has none of that number. */
	fd = socket(AF_INET, SOCK_RAW, 253);
	if (fd < 0)
		err(1, "socket");

	/* Step 2: take an address. There is no port: we get all packets of our protocol to it. */
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)))
		err(1, "bind");
	if (getsockname(fd, (struct sockaddr *)&own, &len))
		err(1, "getsockname");
	printf("listening on %s\n", inet_ntoa(own.sin_addr));

	/* Step 3: serve. Each packet stands alone and tells whose it is. */
	for (;;) {
		len = sizeof(client);
		n = recvfrom(fd, packet, sizeof(packet), 0, (struct sockaddr *)&client, &len);
		if (n < 0)
			err(1, "recvfrom");
		header = (packet[0] & 15) * 4; /* the IP header stands in front, RFC 791 */
		n = n - header < LINE ? n - header : LINE;
		memcpy(line, packet + header, (size_t)n);
		printf("%.*s", (int)n, line);
		/* Else two servers would answer each other for ever. */
		if (n >= 7 && memcmp(line, "server-", 7) == 0)
			continue;
		if (sendto(fd, answer, 7 + (size_t)n, 0, (struct sockaddr *)&client, len) < 0)
			warn("sendto");
	}
}
