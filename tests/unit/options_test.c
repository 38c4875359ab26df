/* options: values with units, whole command lines, and each way of getting one wrong. */
#include "common/options.h"
#include "tests/unit/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void durations(void)
{
	static const struct {
		const char *text;
		int64_t ns; /* -1: not a duration */
	} cases[] = {{"10ms", 10000000}, {"1.5s", 1500000000}, {"200us", 200000}, {"30ns", 30},
		{"2min", 120000000000}, {"1h", 3600000000000}, {"3", 3000000000}, {"0", 0},
		{".5s", 500000000}, {"", -1}, {"ms", -1}, {"-1s", -1}, {"1x", -1}, {"1 s", -1},
		{"nan", -1}, {"inf", -1}, {"0x10", -1}, {"1e3s", 1000000000000}, {"25h", -1},
		{"1.2.3s", -1}, {"99999999999999999999s", -1}, {" 1s", -1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t ns = -7;
		bool ok = options_duration(cases[i].text, 0, INT64_C(86400000000000), &ns);

		if (ok != (cases[i].ns >= 0) || (ok && ns != cases[i].ns))
			fprintf(stderr, "duration '%s'\n", cases[i].text);
		CHECK_EQ(ok, cases[i].ns >= 0);
		CHECK(!ok || ns == cases[i].ns);
	}
}

static void sizes_and_numbers(void)
{
	uint64_t n;

	CHECK(options_size("48", 48, 65507, &n) && n == 48);
	CHECK(options_size("2k", 48, 65507, &n) && n == 2048);
	CHECK(options_size("1M", 1, 1 << 30, &n) && n == 1 << 20);
	CHECK(!options_size("64k", 48, 65507, &n));
	CHECK(!options_size("47", 48, 65507, &n));
	CHECK(!options_size("", 0, 10, &n));
	CHECK(!options_size("k", 0, 10, &n));
	CHECK(!options_size("1kk", 0, UINT64_MAX, &n));
	CHECK(!options_size("-1", 0, UINT64_MAX, &n));
	CHECK(!options_size("18446744073709551615k", 0, UINT64_MAX, &n));
	CHECK(options_number("65535", 1, 65535, &n) && n == 65535);
	CHECK(!options_number("65536", 1, 65535, &n));
	CHECK(!options_number("0", 1, 65535, &n));
	CHECK(!options_number("1x", 1, 65535, &n));
	CHECK(!options_number("+1", 1, 65535, &n));
	CHECK(!options_number(" 1", 1, 65535, &n));
	CHECK(!options_number("18446744073709551616", 0, UINT64_MAX, &n));
}

/*
 * Parses in a child, because a usage error exits. Returns the exit status; what it says goes
 * nowhere.
 */
static int parse_status(const char *accepts, char **argv)
{
	struct options o = {.flows = 1};
	int argc = 0, status;
	pid_t child;

	while (argv[argc])
		argc++;
	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
			_exit(99);
		options_parse(&o, argc, argv, accepts, "");
		_exit(42);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -1;
	return WEXITSTATUS(status);
}

#define CLIENT		     OPTIONS_CLIENT OPTIONS_PORT
#define STATUS(accepts, ...) parse_status(accepts, (char *[]){"program", __VA_ARGS__, NULL})

static void command_lines(void)
{
	char *argv[] = {"program", "-c", "5", "--interval=10ms", "-s64", "-W", "2", "-p", "7000",
		"-P", "3", "-qJ", "-6", "--log", "x.csv", "--run", "9", "-B", "::1", "host", NULL};
	struct options o = {.flows = 1};

	options_parse(&o, (int)(sizeof(argv) / sizeof(argv[0])) - 1, argv, CLIENT, "");
	CHECK_EQ(o.count, 5);
	CHECK_EQ(o.interval_ns, 10000000);
	CHECK_EQ(o.size, 64);
	CHECK_EQ(o.wait_ns, 2000000000);
	CHECK_EQ(o.port, 7000);
	CHECK_EQ(o.flows, 3);
	CHECK(o.quiet && o.json);
	CHECK_EQ(o.family, AF_INET6);
	CHECK_EQ(o.run, 9);
	CHECK(strcmp(o.log, "x.csv") == 0 && strcmp(o.bind, "::1") == 0);
	CHECK(strcmp(o.host, "host") == 0);
}

static void usage_errors(void)
{
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h"), 42);
	CHECK_EQ(STATUS(CLIENT, "--help"), 0);
	CHECK_EQ(STATUS(CLIENT, "--version"), 0);
	CHECK_EQ(STATUS(CLIENT, "-p", "1"), 2);	     /* no host */
	CHECK_EQ(STATUS(CLIENT, "h"), 2);	     /* no port */
	CHECK_EQ(STATUS(OPTIONS_CLIENT, "h"), 42);   /* raw has none */
	CHECK_EQ(STATUS(CLIENT, "-p", "0", "h"), 2); /* a client cannot want just any */
	CHECK_EQ(STATUS(OPTIONS_SERVER OPTIONS_PORT, "-p", "0"), 42);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "i"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "-z", "h"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-c"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-s", "47"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-s", "65508"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-P", "0"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-P", "1025"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "-4", "-6"), 2);
	CHECK_EQ(STATUS(CLIENT, "-p", "1", "h", "--run", "0"), 2);
	CHECK_EQ(STATUS(OPTIONS_CLIENT, "-p", "1", "h"), 2);
	CHECK_EQ(STATUS(OPTIONS_RECEIVER, "--rcvbuf", "0"), 2);
	CHECK_EQ(STATUS(OPTIONS_RECEIVER, "--rcvbuf", "64k"), 42);
	CHECK_EQ(STATUS(OPTIONS_RECEIVER, "h"), 2);
}

int main(void)
{
	durations();
	sizes_and_numbers();
	usage_errors();
	command_lines();
	return check_failures != 0;
}
