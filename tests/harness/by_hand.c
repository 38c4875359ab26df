/*
 * Socket calls by hand: each line on stdin is one call, made as it stands, and answered by one line
 * with what it returned. So a lab, or a student, can make calls one at a time and look at the
 * kernel in between. `help` lists them.
 *
 *   socket SOCK_STREAM                  -> 3
 *   connect 3 10.0.0.2 7000             -> 0
 *   send 3 hello                        -> 5
 *   recv 3 100                          -> 12 "server-hello" from 10.0.0.2:7000
 *   recv 3 100 MSG_DONTWAIT             -> -1 EAGAIN
 *
 * It knows no messages. Bytes that are no plain letters are shown as \xNN.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 8, RAW_PROTOCOL = 253, MOST_BYTES = 1 << 20 };

struct number {
	const char *name;
	int value;
};

static const struct number types[] = {{"SOCK_STREAM", SOCK_STREAM}, {"SOCK_DGRAM", SOCK_DGRAM},
	{"SOCK_RAW", SOCK_RAW}, {NULL, 0}};
static const struct number flag_names[] = {{"MSG_DONTWAIT", MSG_DONTWAIT}, {"MSG_PEEK", MSG_PEEK},
	{"MSG_TRUNC", MSG_TRUNC}, {"MSG_WAITALL", MSG_WAITALL}, {NULL, 0}};
static const struct number options[] = {{"SO_REUSEADDR", SO_REUSEADDR},
	{"SO_REUSEPORT", SO_REUSEPORT}, {"SO_RCVBUF", SO_RCVBUF}, {"SO_RCVTIMEO", SO_RCVTIMEO},
	{"SO_LINGER", SO_LINGER}, {"SO_SNDTIMEO", SO_SNDTIMEO}, {"TCP_NODELAY", TCP_NODELAY},
	{NULL, 0}};

static const char help[] =
	"socket TYPE                     SOCK_STREAM, SOCK_DGRAM or SOCK_RAW (protocol 253)\n"
	"bind FD ADDRESS PORT            port 0: any that is free; of no meaning for SOCK_RAW\n"
	"listen FD BACKLOG\n"
	"accept FD\n"
	"connect FD ADDRESS PORT\n"
	"getsockname FD\n"
	"getpeername FD\n"
	"setsockopt FD OPTION VALUE      SO_REUSEADDR, SO_REUSEPORT, SO_RCVBUF, TCP_NODELAY;\n"
	"                                SO_RCVTIMEO, SO_SNDTIMEO in ms, SO_LINGER in s\n"
	"send FD [TEXT]                  without a text: no bytes\n"
	"sendto FD ADDRESS PORT [TEXT]\n"
	"fill FD BYTES                   sends that many letters, abc...z over and over\n"
	"recv FD BYTES [FLAG...]         MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITALL\n"
	"run FD PROGRAM [ARGUMENT...]    a program with the socket as its stdin and its stdout\n"
	"shutdown FD                     says that we send no more\n"
	"close FD\n"
	"quit\n";

/* The number of a name, at *value; false when it is none. */
static bool lookup(const struct number *names, const char *name, int *value)
{
	for (; names->name; names++) {
		if (name && strcmp(names->name, name) == 0) {
			*value = names->value;
			return true;
		}
	}
	return false;
}

/* A whole number from 0 to `most`, at *value; false when it is none. */
static bool whole(const char *text, long most, int *value)
{
	char *end = NULL;
	long number;

	if (!text)
		return false;
	number = strtol(text, &end, 10);
	if (end == text || *end != '\0' || number < 0 || number > most)
		return false;
	*value = (int)number;
	return true;
}

static bool address(const char *host, const char *port, struct sockaddr_in *addr)
{
	int number;

	*addr = (struct sockaddr_in){.sin_family = AF_INET};
	if (!host || inet_pton(AF_INET, host, &addr->sin_addr) != 1 ||
		!whole(port, USHRT_MAX, &number))
		return false;
	addr->sin_port = htons((in_port_t)number);
	return true;
}

/* strerrorname_np() does it for all of them, but not in every libc. */
static const char *error_name(int number)
{
	static const struct number names[] = {{"EADDRINUSE", EADDRINUSE},
		{"EADDRNOTAVAIL", EADDRNOTAVAIL}, {"EAGAIN", EAGAIN}, {"EBADF", EBADF},
		{"ECONNREFUSED", ECONNREFUSED}, {"ECONNRESET", ECONNRESET},
		{"EDESTADDRREQ", EDESTADDRREQ}, {"EINPROGRESS", EINPROGRESS}, {"EINVAL", EINVAL},
		{"EISCONN", EISCONN}, {"EMSGSIZE", EMSGSIZE}, {"ENETUNREACH", ENETUNREACH},
		{"ENOPROTOOPT", ENOPROTOOPT}, {"ENOTCONN", ENOTCONN}, {"ENOTSOCK", ENOTSOCK},
		{"EOPNOTSUPP", EOPNOTSUPP}, {"EPERM", EPERM}, {"EPIPE", EPIPE},
		{"ETIMEDOUT", ETIMEDOUT}, {NULL, 0}};

	for (const struct number *name = names; name->name; name++)
		if (name->value == number)
			return name->name;
	return strerror(number);
}

/* The end of an answer: `N`, or `-1 ENAME`. */
static void returned(long value)
{
	if (value < 0)
		printf("-> -1 %s", error_name(errno));
	else
		printf("-> %ld", value);
}

static void show_address(const char *word, const struct sockaddr_in *addr, socklen_t len)
{
	char text[INET_ADDRSTRLEN];

	if (len >= sizeof(*addr) && addr->sin_family == AF_INET)
		printf(" %s %s:%d", word, inet_ntop(AF_INET, &addr->sin_addr, text, sizeof(text)),
			ntohs(addr->sin_port));
}

static void show_bytes(const unsigned char *buf, size_t n)
{
	printf(" \"");
	for (size_t i = 0; i < n; i++) {
		if (buf[i] >= ' ' && buf[i] < 127 && buf[i] != '"' && buf[i] != '\\')
			putchar(buf[i]);
		else
			printf("\\x%02x", buf[i]);
	}
	putchar('"');
}

static bool do_socket(char **words, const char *rest)
{
	int type;

	(void)rest;
	if (!lookup(types, words[1], &type))
		return false;
	returned(socket(AF_INET, type, type == SOCK_RAW ? RAW_PROTOCOL : 0));
	return true;
}

static bool do_bind(char **words, const char *rest)
{
	struct sockaddr_in addr = {0};
	int fd;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !address(words[2], words[3], &addr))
		return false;
	returned(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return true;
}

static bool do_listen(char **words, const char *rest)
{
	int fd, backlog;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !whole(words[2], INT_MAX, &backlog))
		return false;
	returned(listen(fd, backlog));
	return true;
}

static bool do_accept(char **words, const char *rest)
{
	struct sockaddr_in peer = {0};
	socklen_t len = sizeof(peer);
	int fd, conn;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd))
		return false;
	conn = accept(fd, (struct sockaddr *)&peer, &len);
	returned(conn);
	if (conn >= 0)
		show_address("from", &peer, len);
	return true;
}

static bool do_connect(char **words, const char *rest)
{
	struct sockaddr_in addr = {0};
	int fd;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !address(words[2], words[3], &addr))
		return false;
	returned(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return true;
}

static bool do_name(char **words, const char *rest)
{
	struct sockaddr_in addr = {0};
	socklen_t len = sizeof(addr);
	int fd, done;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd))
		return false;
	if (strcmp(words[0], "getsockname") == 0)
		done = getsockname(fd, (struct sockaddr *)&addr, &len);
	else
		done = getpeername(fd, (struct sockaddr *)&addr, &len);
	returned(done);
	if (done == 0)
		show_address("is", &addr, len);
	return true;
}

static bool do_setsockopt(char **words, const char *rest)
{
	struct timeval time;
	struct linger linger;
	int fd, option, value, level;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !lookup(options, words[2], &option) ||
		!whole(words[3], INT_MAX, &value))
		return false;
	if (strstr(words[2], "TIMEO")) {
		time = (struct timeval){value / 1000, value % 1000 * 1000};
		returned(setsockopt(fd, SOL_SOCKET, option, &time, sizeof(time)));
		return true;
	}
	if (strcmp(words[2], "SO_LINGER") == 0) {
		linger = (struct linger){.l_onoff = 1, .l_linger = value};
		returned(setsockopt(fd, SOL_SOCKET, option, &linger, sizeof(linger)));
		return true;
	}
	level = strncmp(words[2], "TCP", 3) == 0 ? IPPROTO_TCP : SOL_SOCKET;
	returned(setsockopt(fd, level, option, &value, sizeof(value)));
	return true;
}

static bool do_send(char **words, const char *rest)
{
	struct sockaddr_in addr = {0};
	int fd;

	if (!whole(words[1], INT_MAX, &fd))
		return false;
	if (strcmp(words[0], "send") == 0) {
		returned(send(fd, rest, strlen(rest), MSG_NOSIGNAL));
		return true;
	}
	if (!address(words[2], words[3], &addr))
		return false;
	returned(sendto(
		fd, rest, strlen(rest), MSG_NOSIGNAL, (struct sockaddr *)&addr, sizeof(addr)));
	return true;
}

static bool do_fill(char **words, const char *rest)
{
	unsigned char *buf;
	int fd, n;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !whole(words[2], MOST_BYTES, &n))
		return false;
	buf = malloc((size_t)n + 1);
	if (!buf)
		err(1, "%d bytes", n);
	for (int i = 0; i < n; i++)
		buf[i] = (unsigned char)('a' + i % 26);
	returned(send(fd, buf, (size_t)n, MSG_NOSIGNAL));
	free(buf);
	return true;
}

static bool do_recv(char **words, const char *rest)
{
	struct sockaddr_in peer = {0};
	struct iovec piece = {0};
	struct msghdr message = {
		.msg_name = &peer, .msg_namelen = sizeof(peer), .msg_iov = &piece, .msg_iovlen = 1};
	int fd, size, flag, flags = 0;
	ssize_t n;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !whole(words[2], MOST_BYTES, &size))
		return false;
	for (char **word = words + 3; *word; word++) {
		if (!lookup(flag_names, *word, &flag))
			return false;
		flags |= flag;
	}
	piece.iov_len = (size_t)size;
	piece.iov_base = malloc(piece.iov_len + 1);
	if (!piece.iov_base)
		err(1, "%d bytes", size);
	n = recvmsg(fd, &message, flags);
	returned(n);
	if (n >= 0) {
		/* With MSG_TRUNC n is how long the datagram was, more than the buffer holds. */
		show_bytes(piece.iov_base, (size_t)(n < size ? n : size));
		show_address("from", &peer, message.msg_namelen);
		if (message.msg_flags & MSG_TRUNC)
			printf(" MSG_TRUNC");
	}
	free(piece.iov_base);
	return true;
}

static bool do_run(char **words, const char *rest)
{
	pid_t pid;
	int fd, status;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd) || !words[2])
		return false;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL))
			err(126, "prctl");
		if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
			err(126, "dup2");
		execvp(words[2], words + 2);
		err(127, "%s", words[2]);
	}
	if (waitpid(pid, &status, 0) != pid)
		err(1, "waitpid");
	returned(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return true;
}

static bool do_end(char **words, const char *rest)
{
	int fd;

	(void)rest;
	if (!whole(words[1], INT_MAX, &fd))
		return false;
	returned(strcmp(words[0], "close") == 0 ? close(fd) : shutdown(fd, SHUT_WR));
	return true;
}

static bool do_help(char **words, const char *rest)
{
	(void)words;
	(void)rest;
	printf("%s-> 0", help);
	return true;
}

static const struct {
	const char *name;
	int words; /* that stand in front of the text, which is the rest of the line */
	bool (*make)(char **words, const char *rest);
} calls[] = {{"socket", WORDS, do_socket}, {"bind", WORDS, do_bind}, {"listen", WORDS, do_listen},
	{"accept", WORDS, do_accept}, {"connect", WORDS, do_connect},
	{"getsockname", WORDS, do_name}, {"getpeername", WORDS, do_name},
	{"setsockopt", WORDS, do_setsockopt}, {"send", 2, do_send}, {"sendto", 4, do_send},
	{"fill", WORDS, do_fill}, {"recv", WORDS, do_recv}, {"run", WORDS, do_run},
	{"shutdown", WORDS, do_end}, {"close", WORDS, do_end}, {"help", WORDS, do_help}};

/* One line: its words, at most as many as the call takes, and what stands behind them. */
static bool make_call(char *line)
{
	char *words[WORDS + 1] = {0};
	size_t call = 0;

	line[strcspn(line, "\n")] = '\0';
	line += strspn(line, " ");
	words[0] = line;
	line += strcspn(line, " ");
	if (*line)
		*line++ = '\0';
	while (call < sizeof(calls) / sizeof(calls[0]) && strcmp(calls[call].name, words[0]) != 0)
		call++;
	if (call == sizeof(calls) / sizeof(calls[0]))
		return false;
	for (int n = 1; n < calls[call].words && *line; n++) {
		line += strspn(line, " ");
		if (!*line)
			break;
		words[n] = line;
		line += strcspn(line, " ");
		if (*line)
			*line++ = '\0';
	}
	return calls[call].make(words, line);
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t size = 0;

	if (argc != 1)
		errx(2, "'%s': there is nothing to say here; calls are read from stdin", argv[1]);
	setvbuf(stdout, NULL, _IOFBF, BUFSIZ);
	while (getline(&line, &size, stdin) > 0) {
		if (strspn(line, " \n") == strlen(line))
			continue;
		if (strcmp(line, "quit\n") == 0)
			break;
		if (!make_call(line))
			printf("-> -1 not a call as it must be: `help` lists them");
		putchar('\n');
		fflush(stdout);
	}
	free(line);
	return 0;
}
