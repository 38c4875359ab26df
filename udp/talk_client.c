/*
 * The smallest UDP client: says each line typed to the server and prints the answer.
 * udp-talk_client HOST PORT
 */
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { LINE = 1024 };

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *server;
	struct timeval patience = {.tv_sec = 1};
	char wanted[7 + LINE] = "server-", *line = wanted + 7;
	char answer[sizeof(wanted)], *end;
	int fd, fault;
	ssize_t n;

	if (argc != 3)
		errx(2, "two words are needed: HOST PORT");
	if (strtoul(argv[2], &end, 10) - 1 > 65534 || *end != '\0')
		errx(2, "port '%s': allowed is 1 to 65535", argv[2]);
	fault = getaddrinfo(argv[1], argv[2], &hints, &server);
	if (fault)
		errx(2, "host '%s': %s", argv[1], gai_strerror(fault));
	setvbuf(stdout, NULL, _IOLBF, 0);

	/* Step 1: make a socket. */
	fd = socket(AF_INET, SOCK_DGRAM, 0);
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
		while ((n = read(fd, answer, sizeof(answer))) >= 0)
			if (n == (ssize_t)strlen(wanted) && memcmp(answer, wanted, (size_t)n) == 0)
				break; /* else it is a late answer to an earlier line */
		if (n < 0 && errno != EAGAIN)
			err(1, "read");
		if (n < 0)
			warnx("no answer");
		else
			printf("%.*s", (int)n, answer);
	}

	/* Step 4: close. The server never learns of it. */
	close(fd);
	return 0;
}
