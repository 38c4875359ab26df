/*
 * addr: from host and port to a socket address and back to text. It knows no kinds of socket: no
 * bind, no connect.
 */
#ifndef COMMON_ADDR_H
#define COMMON_ADDR_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct addr {
	struct sockaddr_storage storage;
	socklen_t len;
};

/* The loopback address of a family as text; 127.0.0.1 for AF_UNSPEC. */
const char *addr_loopback(int family);

#define ADDR_TEXT_BYTES 64 /* room for any "[address%scope]:port" */

/*
 * Looks host up (a name or a numeric address) in the family AF_INET, AF_INET6 or AF_UNSPEC and sets
 * the port, which is 0 where there are none. A host that is not to be found is a usage error: one
 * line, exit 2.
 */
struct addr addr_resolve(const char *host, uint16_t port, int family);

/* "10.0.0.2:4000", "[fd00::2]:4000", and without a port (0) the address alone. Returns text. */
const char *addr_text(const struct addr *a, char text[ADDR_TEXT_BYTES]);

/* The address alone, without the port. Returns text. */
const char *addr_host_text(const struct addr *a, char text[ADDR_TEXT_BYTES]);

uint16_t addr_port(const struct addr *a);

/* For functions that take and fill in a struct sockaddr. */
static inline struct sockaddr *addr_sa(struct addr *a)
{
	return (struct sockaddr *)&a->storage;
}

#endif
