/*
 * calls.so: records the socket calls of a program that knows nothing of it. With LD_PRELOAD naming
 * this library and SOCKLAB_CALLS naming a file, each call on an internet socket becomes one line of
 * that file (CSV, no header; columns below), when it has returned. Without SOCKLAB_CALLS it only
 * hands the calls on.
 *
 *   call,pid,tid,fd,called_ns,returned_ns,result,error,address,detail
 *
 * Times are CLOCK_MONOTONIC. `error` is errno, or 0. `address` is the one that the
 * call names or learns: of bind, connect, accept, sendto, recvfrom. `detail` is what else was
 * asked: bytes, backlog, how, option=value; of connect, the address of our own that came of it.
 *
 * It holds no descriptor, for the numbers that a program gets must be its own: the file is opened
 * for each line. But for looking up the next library's function once, it takes no lock and no
 * memory, and its own calls go to the kernel directly, so that it may be used in signal handlers, in
 * threads and between fork and exec, and never meets itself. A call that ends the program, or is cut
 * short by its end, leaves no line.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/*
 * What stands in front of the C library's functions. Under names of their own, because glibc
 * declares some with unions for addresses, and has others (*_chk), which programs call where sizes
 * are checked, that it declares nowhere.
 */
#define IN_FRONT_OF(name) __asm__(#name)
int record_socket(int domain, int type, int protocol) IN_FRONT_OF(socket);
int record_bind(int fd, const struct sockaddr *address, socklen_t len) IN_FRONT_OF(bind);
int record_listen(int fd, int backlog) IN_FRONT_OF(listen);
int record_connect(int fd, const struct sockaddr *address, socklen_t len) IN_FRONT_OF(connect);
int record_accept(int fd, struct sockaddr *address, socklen_t *len) IN_FRONT_OF(accept);
int record_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
	IN_FRONT_OF(accept4);
int record_shutdown(int fd, int how) IN_FRONT_OF(shutdown);
int record_close(int fd) IN_FRONT_OF(close);
int record_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
	IN_FRONT_OF(setsockopt);
ssize_t record_write(int fd, const void *buf, size_t n) IN_FRONT_OF(write);
ssize_t record_writev(int fd, const struct iovec *parts, int n) IN_FRONT_OF(writev);
ssize_t record_send(int fd, const void *buf, size_t n, int flags) IN_FRONT_OF(send);
ssize_t record_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *address,
	socklen_t len) IN_FRONT_OF(sendto);
ssize_t record_sendmsg(int fd, const struct msghdr *m, int flags) IN_FRONT_OF(sendmsg);
ssize_t record_read(int fd, void *buf, size_t n) IN_FRONT_OF(read);
ssize_t record_read_chk(int fd, void *buf, size_t n, size_t room) IN_FRONT_OF(__read_chk);
ssize_t record_readv(int fd, const struct iovec *parts, int n) IN_FRONT_OF(readv);
ssize_t record_recv(int fd, void *buf, size_t n, int flags) IN_FRONT_OF(recv);
ssize_t record_recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
	IN_FRONT_OF(__recv_chk);
ssize_t record_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *address,
	socklen_t *len) IN_FRONT_OF(recvfrom);
ssize_t record_recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
	struct sockaddr *address, socklen_t *len) IN_FRONT_OF(__recvfrom_chk);
ssize_t record_recvmsg(int fd, struct msghdr *m, int flags) IN_FRONT_OF(recvmsg);

static const char *path; /* NULL: nothing is recorded */

__attribute__((constructor)) static void begin(void)
{
	path = getenv("SOCKLAB_CALLS");
	if (path && !*path)
		path = NULL;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#define ADDRESS_BYTES (INET6_ADDRSTRLEN + 10)

/* A call on its way: what is known of it before it is made. */
struct call {
	const char *name;
	int fd;
	bool recorded;
	int64_t called_ns;
	char address[ADDRESS_BYTES];
	char detail[ADDRESS_BYTES + 8];
};

/* Whether fd is a socket of the internet: others (files, pipes, UNIX sockets) are not told. */
static bool is_internet(int fd)
{
	int domain = 0, error = errno;
	socklen_t len = sizeof(domain);
	bool is = !syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
		  (domain == AF_INET || domain == AF_INET6);

	errno = error;
	return is;
}

static void begin_call(struct call *c, const char *name, int fd)
{
	c->name = name;
	c->fd = fd;
	c->address[0] = c->detail[0] = '\0';
	c->recorded = path && is_internet(fd);
	c->called_ns = c->recorded ? now_ns() : 0;
}

/* Writes address:port; the family says how long it is, if the kernel did not cut it off. */
static void address_text(char to[ADDRESS_BYTES], const struct sockaddr *sa, socklen_t len)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		snprintf(to, ADDRESS_BYTES, "%s:%u", text, ntohs(in.sin_port));
	} else if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
		snprintf(to, ADDRESS_BYTES, "[%s]:%u", text, ntohs(in6.sin6_port));
	}
}

static void put_address(struct call *c, const struct sockaddr *sa, socklen_t len)
{
	if (c->recorded && sa)
		address_text(c->address, sa, len);
}

__attribute__((format(printf, 2, 3))) static void put_detail(
	struct call *c, const char *format, ...)
{
	va_list values;

	if (!c->recorded)
		return;
	va_start(values, format);
	vsnprintf(c->detail, sizeof(c->detail), format, values);
	va_end(values);
}

/* Writes the line; errno is afterwards what the call left in it. */
static void end_call(struct call *c, int64_t result)
{
	int64_t returned_ns;
	int error = errno, file, len;
	char line[320];

	if (!c->recorded)
		return;
	returned_ns = now_ns();
	len = snprintf(line, sizeof(line),
		"%s,%ld,%ld,%d,%" PRId64 ",%" PRId64 ",%" PRId64 ",%d,%s,%s\n", c->name,
		syscall(SYS_getpid), syscall(SYS_gettid), c->fd, c->called_ns, returned_ns, result,
		result < 0 ? error : 0, c->address, c->detail);
	file = (int)syscall(
		SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (file >= 0) {
		/* What cannot be written is not recorded: it is no reason to stop the program. */
		(void)!syscall(SYS_write, file, line, (size_t)len);
		syscall(SYS_close, file);
	}
	errno = error;
}

/*
 * The next library's function of that name: the C library's, or a sanitizer's in front of it. The
 * address is the same for all threads, so it does no harm when two look it up at once.
 */
#define REAL(name, symbol)                              \
	static __typeof__(record_##name) *real;         \
	if (!real) {                                    \
		void *found = dlsym(RTLD_NEXT, symbol); \
                                                        \
		memcpy(&real, &found, sizeof(real));    \
	}

int record_socket(int domain, int type, int protocol)
{
	REAL(socket, "socket")
	struct call c = {.name = "socket", .called_ns = now_ns()};
	int fd = real(domain, type, protocol);

	c.fd = fd;
	c.recorded = path && (domain == AF_INET || domain == AF_INET6);
	type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
	put_detail(&c, "%s %s %d", domain == AF_INET ? "AF_INET" : "AF_INET6",
		type == SOCK_STREAM  ? "SOCK_STREAM"
		: type == SOCK_DGRAM ? "SOCK_DGRAM"
		: type == SOCK_RAW   ? "SOCK_RAW"
				     : "other",
		protocol);
	end_call(&c, fd);
	return fd;
}

int record_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	REAL(bind, "bind")
	struct call c;
	int result;

	begin_call(&c, "bind", fd);
	put_address(&c, address, len);
	result = real(fd, address, len);
	end_call(&c, result);
	return result;
}

int record_listen(int fd, int backlog)
{
	REAL(listen, "listen")
	struct call c;
	int result;

	begin_call(&c, "listen", fd);
	put_detail(&c, "backlog %d", backlog);
	result = real(fd, backlog);
	end_call(&c, result);
	return result;
}

/* Which address of our own the kernel chose; it is asked before the call's end is noted. */
static void put_own_address(struct call *c)
{
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);
	char text[ADDRESS_BYTES] = "";
	int error = errno;

	if (c->recorded && !syscall(SYS_getsockname, c->fd, &own, &len)) {
		address_text(text, (struct sockaddr *)&own, len);
		put_detail(c, "from %s", text);
	}
	errno = error;
}

int record_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	REAL(connect, "connect")
	struct call c;
	int result;

	begin_call(&c, "connect", fd);
	put_address(&c, address, len);
	result = real(fd, address, len);
	put_own_address(&c);
	end_call(&c, result);
	return result;
}

/* Asks for the client's address even when the program does not: the line tells whose it is. */
int record_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
	REAL(accept4, "accept4")
	struct sockaddr_storage own;
	socklen_t own_len = sizeof(own);
	struct call c;
	int result;

	begin_call(&c, "accept", fd);
	if (!c.recorded)
		return real(fd, address, len, flags);
	if (address && len) {
		socklen_t room = *len;

		result = real(fd, address, len, flags);
		if (result >= 0)
			put_address(&c, address, *len < room ? *len : room);
	} else {
		result = real(fd, (struct sockaddr *)&own, &own_len, flags);
		if (result >= 0)
			put_address(&c, (struct sockaddr *)&own, own_len);
	}
	end_call(&c, result);
	return result;
}

int record_accept(int fd, struct sockaddr *address, socklen_t *len)
{
	return record_accept4(fd, address, len, 0);
}

int record_shutdown(int fd, int how)
{
	REAL(shutdown, "shutdown")
	struct call c;
	int result;

	begin_call(&c, "shutdown", fd);
	put_detail(&c, "%s", how == SHUT_RD ? "SHUT_RD" : how == SHUT_WR ? "SHUT_WR" : "SHUT_RDWR");
	result = real(fd, how);
	end_call(&c, result);
	return result;
}

int record_close(int fd)
{
	REAL(close, "close")
	struct call c;
	int result;

	begin_call(&c, "close", fd);
	result = real(fd);
	end_call(&c, result);
	return result;
}

static const struct {
	int level, option;
	const char *name;
} options[] = {{SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR"},
	{SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT"}, {SOL_SOCKET, SO_LINGER, "SO_LINGER"},
	{SOL_SOCKET, SO_RCVTIMEO, "SO_RCVTIMEO"}, {SOL_SOCKET, SO_SNDTIMEO, "SO_SNDTIMEO"},
	{SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"}, {SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"},
	{SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE"}, {SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST"},
	{IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY"}, {IPPROTO_TCP, TCP_QUICKACK, "TCP_QUICKACK"},
	{IPPROTO_TCP, TCP_CORK, "TCP_CORK"}, {IPPROTO_TCP, TCP_MAXSEG, "TCP_MAXSEG"},
	{IPPROTO_IP, IP_TTL, "IP_TTL"}, {IPPROTO_IP, IP_HDRINCL, "IP_HDRINCL"},
	{IPPROTO_IP, IP_RECVERR, "IP_RECVERR"}, {IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY"}};

int record_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	REAL(setsockopt, "setsockopt")
	char name[32];
	int first = 0, second = 0, result;
	struct timeval timeout;
	struct call c;

	begin_call(&c, "setsockopt", fd);
	if (c.recorded) {
		snprintf(name, sizeof(name), "%d:%d", level, option);
		for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
			if (options[i].level == level && options[i].option == option)
				snprintf(name, sizeof(name), "%s", options[i].name);
		if (value && len >= sizeof(first))
			memcpy(&first, value, sizeof(first));
		if (value && len >= 2 * sizeof(first))
			memcpy(&second, (const char *)value + sizeof(first), sizeof(second));
		if (level == SOL_SOCKET && (option == SO_RCVTIMEO || option == SO_SNDTIMEO) &&
			value && len >= sizeof(timeout)) {
			memcpy(&timeout, value, sizeof(timeout));
			put_detail(&c, "%s=%ld.%06ld s", name, (long)timeout.tv_sec,
				(long)timeout.tv_usec);
		} else if (level == SOL_SOCKET && option == SO_LINGER)
			put_detail(&c, "%s=%d %d", name, first, second);
		else
			put_detail(&c, "%s=%d", name, first);
	}
	result = real(fd, level, option, value, len);
	end_call(&c, result);
	return result;
}

ssize_t record_write(int fd, const void *buf, size_t n)
{
	REAL(write, "write")
	struct call c;
	ssize_t result;

	begin_call(&c, "write", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n);
	end_call(&c, result);
	return result;
}

ssize_t record_writev(int fd, const struct iovec *parts, int n)
{
	REAL(writev, "writev")
	struct call c;
	ssize_t result;

	begin_call(&c, "writev", fd);
	put_detail(&c, "%d parts", n);
	result = real(fd, parts, n);
	end_call(&c, result);
	return result;
}

ssize_t record_send(int fd, const void *buf, size_t n, int flags)
{
	REAL(send, "send")
	struct call c;
	ssize_t result;

	begin_call(&c, "send", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, flags);
	end_call(&c, result);
	return result;
}

ssize_t record_sendto(
	int fd, const void *buf, size_t n, int flags, const struct sockaddr *address, socklen_t len)
{
	REAL(sendto, "sendto")
	struct call c;
	ssize_t result;

	begin_call(&c, "sendto", fd);
	put_address(&c, address, len);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, flags, address, len);
	end_call(&c, result);
	return result;
}

ssize_t record_sendmsg(int fd, const struct msghdr *m, int flags)
{
	REAL(sendmsg, "sendmsg")
	struct call c;
	ssize_t result;

	begin_call(&c, "sendmsg", fd);
	if (c.recorded && m)
		put_address(&c, m->msg_name, m->msg_namelen);
	result = real(fd, m, flags);
	end_call(&c, result);
	return result;
}

ssize_t record_read(int fd, void *buf, size_t n)
{
	REAL(read, "read")
	struct call c;
	ssize_t result;

	begin_call(&c, "read", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n);
	end_call(&c, result);
	return result;
}

ssize_t record_read_chk(int fd, void *buf, size_t n, size_t room)
{
	REAL(read_chk, "__read_chk")
	struct call c;
	ssize_t result;

	begin_call(&c, "read", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, room);
	end_call(&c, result);
	return result;
}

ssize_t record_readv(int fd, const struct iovec *parts, int n)
{
	REAL(readv, "readv")
	struct call c;
	ssize_t result;

	begin_call(&c, "readv", fd);
	put_detail(&c, "%d parts", n);
	result = real(fd, parts, n);
	end_call(&c, result);
	return result;
}

ssize_t record_recv(int fd, void *buf, size_t n, int flags)
{
	REAL(recv, "recv")
	struct call c;
	ssize_t result;

	begin_call(&c, "recv", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, flags);
	end_call(&c, result);
	return result;
}

ssize_t record_recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
	REAL(recv_chk, "__recv_chk")
	struct call c;
	ssize_t result;

	begin_call(&c, "recv", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, room, flags);
	end_call(&c, result);
	return result;
}

/* Where the bytes came from is told when the program asked for it. */
static void end_recvfrom(
	struct call *c, ssize_t result, const struct sockaddr *address, const socklen_t *len)
{
	if (c->recorded && result >= 0 && address && len)
		put_address(c, address, *len);
	end_call(c, result);
}

ssize_t record_recvfrom(
	int fd, void *buf, size_t n, int flags, struct sockaddr *address, socklen_t *len)
{
	REAL(recvfrom, "recvfrom")
	struct call c;
	ssize_t result;

	begin_call(&c, "recvfrom", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, flags, address, len);
	end_recvfrom(&c, result, address, len);
	return result;
}

ssize_t record_recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
	struct sockaddr *address, socklen_t *len)
{
	REAL(recvfrom_chk, "__recvfrom_chk")
	struct call c;
	ssize_t result;

	begin_call(&c, "recvfrom", fd);
	put_detail(&c, "%zu bytes", n);
	result = real(fd, buf, n, room, flags, address, len);
	end_recvfrom(&c, result, address, len);
	return result;
}

ssize_t record_recvmsg(int fd, struct msghdr *m, int flags)
{
	REAL(recvmsg, "recvmsg")
	struct call c;
	ssize_t result;

	begin_call(&c, "recvmsg", fd);
	result = real(fd, m, flags);
	if (c.recorded && result >= 0 && m)
		put_address(&c, m->msg_name, m->msg_namelen);
	end_call(&c, result);
	return result;
}
