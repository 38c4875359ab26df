/* addr: from host and port to a socket address, and back to text. */
#include "common/addr.h"
#include "tests/unit/check.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void to_text_and_back(void)
{
	static const struct {
		const char *host;
		uint16_t port;
		int family;
		const char *text, *host_text;
	} cases[] = {{"10.0.0.2", 4000, AF_UNSPEC, "10.0.0.2:4000", "10.0.0.2"},
		{"fd00::2", 4000, AF_UNSPEC, "[fd00::2]:4000", "fd00::2"},
		{"10.0.0.2", 0, AF_INET, "10.0.0.2", "10.0.0.2"},
		{"::1", 0, AF_INET6, "::1", "::1"}};
	char text[ADDR_TEXT_BYTES];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct addr a = addr_resolve(cases[i].host, cases[i].port, cases[i].family);

		CHECK(strcmp(addr_text(&a, text), cases[i].text) == 0);
		CHECK(strcmp(addr_host_text(&a, text), cases[i].host_text) == 0);
		CHECK_EQ(addr_port(&a), cases[i].port);
	}
	CHECK(strcmp(addr_loopback(AF_INET6), "::1") == 0);
	CHECK(strcmp(addr_loopback(AF_UNSPEC), "127.0.0.1") == 0);
}

/* An address of the other family is no address: a usage error. */
static void the_wrong_family_is_refused(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		close(STDERR_FILENO);
		addr_resolve("::1", 1, AF_INET);
		_exit(0);
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(WEXITSTATUS(status), 2);
}

int main(void)
{
	to_text_and_back();
	the_wrong_family_is_refused();
	return check_failures != 0;
}
