/*
 * The smallest raw client: says each line typed to the server and prints the answer.
 * raw-talk_client HOST
 */
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { LINE = 1024 };

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_RAW}, *server;
	struct timeval patience = {.tv_sec = 1};
	char wanted[7 + LINE] = "server-", *line = wanted + 7;
	unsigned char packet[60 + sizeof(wanted)], *answer = packet;
	int fd, fault;
	ssize_t n;

	if (argc != 2)
		errx(2, "one word is needed: HOST");
	fault = getaddrinfo(argv[1], NULL, &hints, &server);
	if (fault)
		errx(2, "host '%s': %s", argv[1], gai_strerror(fault));
	setvbuf(stdout, NULL, _IOLBF, 0);

	/* Step 1: make a socket. 253 is our protocol: the kernel has none of that number. */
	fd = socket(AF_INET, SOCK_RAW, 253);
	if (fd < 0)
		err(1, "socket");
	/* Else we wait for ever for an answer that was lost. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "SO_RCVTIMEO");

	/* Step 2: reach the server. Nothing is sent: its address is noted. */
	if (connect(fd, server->ai_addr, server->ai_addrlen))
		err(1, "connect to %s", argv[1]);
	freeaddrinfo(server);

	/* Step 3: talk, until a line is Q. What is written arrives as it is, or not at all. */
	while (fgets(line, LINE - 1, stdin) && strcmp(line, "Q\n") != 0) {
		strcpy(line + strcspn(line, "\n"), "\n"); /* the last line may lack its end */
		n = (ssize_t)strlen(line);
		if (write(fd, line, (size_t)n) != n)
			err(1, "write");
		if (strncmp(line, "server-", 7) == 0)
			continue; /* this is never answered */
		while ((n = read(fd, packet, sizeof(packet))) >= 0) {
			answer = packet + (packet[0] & 15) * 4; /* behind the IP header, RFC 791 */
			n -= answer - packet;
			if (n == (ssize_t)strlen(wanted) && memcmp(answer, wanted, (size_t)n) == 0)
				break; /* else it is anybody's, and we were given a copy */
		}
		if (n < 0 && errno != EAGAIN)
			err(1, "read");
		if (n < 0)
			warnx("no answer");
		else
			printf("%.*s", (int)n, (char *)answer);
	}

	/* Step 4: close. The server never learns of it. */
	close(fd);
	return 0;
}
