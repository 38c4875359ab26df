#include "common/options.h"
#include "common/message.h"

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define SECOND_NS      INT64_C(1000000000)
#define LONGEST_NS     (24 * 3600 * SECOND_NS)
#define MOST_FLOWS     1024
#define MOST_MESSAGES  (UINT64_C(1) << 27) /* as many as a tally takes */
#define LARGEST_RCVBUF (UINT32_C(1) << 30)

/* One row per option: its letter here, how getopt knows it, what --help says of it. */
static const struct spec {
	char letter;
	const char *name; /* long name */
	const char *value;
	const char *help;
} specs[] = {
	{'B', "bind", "ADDR", "our own address; a server's is 127.0.0.1 if not said"},
	{'p', "port", "PORT", "the server's port, 1 to 65535; a server takes 0 for any free one"},
	{'c', "count", "N", "messages of each flow; 0: until stopped, or not told"},
	{'i', "interval", "TIME", "from one message to the next; 0: as fast as they go"},
	{'s', "size", "BYTES", "bytes of a message, header and all, 48 to 65507"},
	{'W', "wait", "TIME", "how long to wait before a message counts as lost"},
	{'P', "flows", "N", "flows side by side, 1 to 1024"},
	{'r', "run", "N", "number of this run, 1 to 65535: others' messages are foreign"},
	{'b', "rcvbuf", "BYTES", "receive buffer to ask the kernel for"},
	{'k', "backlog", "N", "connections that may wait to be accepted, 0 to 65535"},
	{'d', "nodelay", NULL, "set TCP_NODELAY: Nagle's algorithm off"},
	{'l', "log", "FILE", "write one CSV row per message to FILE"},
	{'q', "quiet", NULL, "no line for each reply, the summary alone"},
	{'J', "json", NULL, "one JSON object a line instead of text"},
	{'4', "ipv4", NULL, "IPv4 only"},
	{'6', "ipv6", NULL, "IPv6 only"},
};
#define N_SPECS (sizeof(specs) / sizeof(specs[0]))

/* These have no short form: their letters are ours alone. */
static bool long_only(char letter)
{
	return strchr("rbkdl", letter) != NULL;
}

bool options_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	char *end;

	/* strtoull would take "-1" and " 1". */
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end && *value >= min && *value <= max;
}

bool options_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes)
{
	char *end;
	unsigned int shift = 0;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (*end == 'k' || *end == 'K')
		shift = 10;
	else if (*end == 'm' || *end == 'M')
		shift = 20;
	else if (*end == 'g' || *end == 'G')
		shift = 30;
	if (shift)
		end++;
	if (errno || *end || *bytes > UINT64_MAX >> shift)
		return false;
	*bytes <<= shift;
	return *bytes >= min && *bytes <= max;
}

bool options_duration(const char *text, int64_t min_ns, int64_t max_ns, int64_t *ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"", 1e9}, {"min", 60e9},
		{"h", 3600e9}};
	char *end;
	double value;

	/* strtod would take "nan", "inf" and "0x10". */
	if (strspn(text, "0123456789.") == 0 || text[strspn(text, "0123456789.")] == 'x')
		return false;
	value = strtod(text, &end);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		value *= units[i].ns;
		if (!(value >= (double)min_ns && value <= (double)max_ns))
			return false;
		*ns = (int64_t)llround(value);
		return true;
	}
	return false;
}

static void help(const char *accepts, const char *about)
{
	printf("%s: %s\n\nusage: %s [option ...]%s\n\n", program_invocation_short_name, about,
		program_invocation_short_name, strchr(accepts, 'H') ? " HOST" : "");
	for (size_t i = 0; i < N_SPECS; i++) {
		const struct spec *s = &specs[i];
		char names[40];

		if (!strchr(accepts, s->letter))
			continue;
		if (long_only(s->letter))
			snprintf(names, sizeof(names), "    --%s %s", s->name,
				s->value ? s->value : "");
		else
			snprintf(names, sizeof(names), "-%c, --%s %s", s->letter, s->name,
				s->value ? s->value : "");
		printf("  %-24s %s\n", names, s->help);
	}
	printf("  %-24s %s\n  %-24s %s\n\n", "-h, --help", "this text", "    --version",
		"the version");
	printf("Times take ns, us, ms, s, min, h; sizes take k, M, G.\n"
	       "Exit: 0 all well, 1 failed, 2 usage, 3 ran but messages are missing.\n");
}

/* The one line for a bad value, and exit 2. */
static _Noreturn void bad(const struct spec *s, const char *value, const char *allowed)
{
	if (long_only(s->letter))
		errx(2, "--%s '%s': allowed is %s", s->name, value, allowed);
	errx(2, "-%c '%s' (--%s): allowed is %s", s->letter, value, s->name, allowed);
}

static void take(struct options *o, const struct spec *s, const char *value, bool serves)
{
	uint64_t n = 0;

	switch (s->letter) {
	case 'B':
		o->bind = value;
		break;
	case 'p':
		if (!options_number(value, serves ? 0 : 1, 65535, &n))
			bad(s, value, serves ? "0 to 65535" : "1 to 65535");
		o->port = (uint16_t)n;
		break;
	case 'c':
		if (!options_number(value, 0, MOST_MESSAGES, &o->count))
			bad(s, value, "0 to 134217728");
		break;
	case 'i':
		if (!options_duration(value, 0, LONGEST_NS, &o->interval_ns))
			bad(s, value, "0 to 24h, with ns, us, ms, s, min, h");
		break;
	case 's':
		if (!options_size(value, MESSAGE_HEADER_BYTES, MESSAGE_MAX_BYTES, &n))
			bad(s, value, "48 to 65507 bytes");
		o->size = (uint32_t)n;
		break;
	case 'W':
		if (!options_duration(value, 0, LONGEST_NS, &o->wait_ns))
			bad(s, value, "0 to 24h, with ns, us, ms, s, min, h");
		break;
	case 'P':
		if (!options_number(value, 1, MOST_FLOWS, &n))
			bad(s, value, "1 to 1024");
		o->flows = (uint16_t)n;
		break;
	case 'r':
		if (!options_number(value, 1, 65535, &n))
			bad(s, value, "1 to 65535");
		o->run = (uint16_t)n;
		break;
	case 'b':
		if (!options_size(value, 1, LARGEST_RCVBUF, &n))
			bad(s, value, "1 byte to 1024M");
		o->rcvbuf = (uint32_t)n;
		break;
	case 'k':
		if (!options_number(value, 0, 65535, &n))
			bad(s, value, "0 to 65535");
		o->backlog = (uint32_t)n;
		break;
	case 'd':
		o->nodelay = true;
		break;
	case 'l':
		o->log = value;
		break;
	case 'q':
		o->quiet = true;
		break;
	case 'J':
		o->json = true;
		break;
	case '4':
	case '6':
		if (o->family != AF_UNSPEC && o->family != (s->letter == '4' ? AF_INET : AF_INET6))
			errx(2, "-4 and -6: allowed is one of them");
		o->family = s->letter == '4' ? AF_INET : AF_INET6;
		break;
	default:
		break;
	}
}

/* What getopt_long is given, made from the rows above; and one more for --help and --version. */
struct getopt_tables {
	struct option longs[N_SPECS + 3];
	char shorts[2 * N_SPECS + 4];
};

static void make_tables(struct getopt_tables *t, const char *accepts)
{
	size_t n = 0;
	char *p = t->shorts;

	*p++ = ':';
	*p++ = 'h';
	for (size_t i = 0; i < N_SPECS; i++) {
		if (!strchr(accepts, specs[i].letter))
			continue;
		t->longs[n++] = (struct option){specs[i].name,
			specs[i].value ? required_argument : no_argument, NULL, specs[i].letter};
		if (long_only(specs[i].letter))
			continue;
		*p++ = specs[i].letter;
		if (specs[i].value)
			*p++ = ':';
	}
	t->longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
	t->longs[n++] = (struct option){"version", no_argument, NULL, 'V'};
	t->longs[n] = (struct option){NULL, 0, NULL, 0};
	*p = '\0';
}

/*
 * A flow needs a descriptor, and so does each client of a server. The soft limit is 1024 on many
 * systems for the sake of programs that use select(), which these do not.
 */
static void allow_many_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

void options_parse(struct options *o, int argc, char **argv, const char *accepts, const char *about)
{
	bool takes_host = strchr(accepts, 'H') != NULL;
	struct getopt_tables tables;
	int letter;

	make_tables(&tables, accepts);
	opterr = 0;
	for (;;) {
		int at = optind;

		letter = getopt_long(argc, argv, tables.shorts, tables.longs, NULL);
		if (letter == -1)
			break;
		if (letter == 'h') {
			help(accepts, about);
			exit(0);
		} else if (letter == 'V') {
			printf("%s (socklab) %s\n", program_invocation_short_name, SOCKLAB_VERSION);
			exit(0);
		} else if (letter == ':') {
			errx(2, "%s: a value is missing; --help says what is allowed",
				argv[optind - 1]);
		} else if (letter == '?') {
			errx(2, "%s: not an option of this program; --help lists them",
				argv[at < argc ? at : argc - 1]);
		}
		for (size_t i = 0; i < N_SPECS; i++)
			if (specs[i].letter == letter)
				take(o, &specs[i], optarg, !takes_host);
	}
	if (takes_host && optind < argc)
		o->host = argv[optind++];
	if (takes_host && !o->host)
		errx(2, "HOST: missing; allowed is a name or an address");
	if (optind < argc)
		errx(2, "'%s': one argument too many; --help says what is allowed", argv[optind]);
	if (takes_host && strchr(accepts, 'p') && o->port == 0)
		errx(2, "-p (--port): missing; allowed is the server's port, 1 to 65535");
	allow_many_descriptors();
}
