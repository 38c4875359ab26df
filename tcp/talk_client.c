/*
 * The smallest TCP client: says each line typed to the server and prints the answer.
 * tcp-talk_client HOST PORT
 */
#include <err.h>
#include <netdb.h>
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
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *server;
	char line[LINE], answer[7 + LINE], *end;
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
	signal(SIGPIPE, SIG_IGN); /* else a write to a server that is gone ends us without a word */

	/* Step 1: make a socket. */
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");

	/* Step 2: reach the server. This waits until it has answered. */
	if (connect(fd, server->ai_addr, server->ai_addrlen))
		err(1, "connect to %s", argv[1]);
	freeaddrinfo(server);

	/* Step 3: talk, until a line is Q. What is written may be cut or joined on its way. */
	while (fgets(line, LINE - 1, stdin) && strcmp(line, "Q\n") != 0) {
		strcpy(line + strcspn(line, "\n"), "\n"); /* the last line may lack its end */
		n = (ssize_t)strlen(line);
		if (write(fd, line, (size_t)n) != n)
			err(1, "write");
		if (strncmp(line, "server-", 7) == 0)
			continue; /* this is never answered */
		n = read_line(fd, answer, sizeof(answer));
		if (n < 0)
			err(1, "read");
		if (n == 0)
			errx(1, "a read of 0: the server has closed");
		printf("%.*s", (int)n, answer);
	}

	/* Step 4: close. The server reads the end of the stream. */
	close(fd);
	return 0;
}
