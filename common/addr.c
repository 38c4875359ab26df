#include "common/addr.h"

#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

struct addr addr_resolve(const char *host, uint16_t port, int family)
{
	struct addrinfo hints = {.ai_family = family}, *found;
	struct addr a = {.len = 0};
	char service[8];
	int failed;

	snprintf(service, sizeof(service), "%u", port);
	failed = getaddrinfo(host, service, &hints, &found);
	if (failed)
		errx(2, "host '%s': %s; allowed is a name or an %saddress", host,
			gai_strerror(failed),
			family == AF_INET    ? "IPv4 "
			: family == AF_INET6 ? "IPv6 "
					     : "");
	memcpy(&a.storage, found->ai_addr, found->ai_addrlen);
	a.len = found->ai_addrlen;
	freeaddrinfo(found);
	return a;
}

const char *addr_host_text(const struct addr *a, char text[ADDR_TEXT_BYTES])
{
	if (getnameinfo((const struct sockaddr *)&a->storage, a->len, text, ADDR_TEXT_BYTES, NULL,
		    0, NI_NUMERICHOST))
		snprintf(text, ADDR_TEXT_BYTES, "?");
	return text;
}

uint16_t addr_port(const struct addr *a)
{
	if (a->storage.ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)&a->storage)->sin6_port);
	return ntohs(((const struct sockaddr_in *)&a->storage)->sin_port);
}

const char *addr_text(const struct addr *a, char text[ADDR_TEXT_BYTES])
{
	char host[ADDR_TEXT_BYTES];
	uint16_t port = addr_port(a);
	bool bracket = a->storage.ss_family == AF_INET6 && port;

	addr_host_text(a, host);
	snprintf(text, ADDR_TEXT_BYTES, bracket ? "[%.54s]" : "%.54s", host);
	if (port)
		snprintf(text + strlen(text), ADDR_TEXT_BYTES - strlen(text), ":%u", port);
	return text;
}

const char *addr_loopback(int family)
{
	return family == AF_INET6 ? "::1" : "127.0.0.1";
}
