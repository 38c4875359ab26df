/* What becomes of a packet. See fate.h. */
#include "common/wire/fate.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

enum {
	FATE_DIGITS = 15,     /* a number of 15 digits is exact in a double */
	FATE_SHOWN = 40,      /* bytes of a bad value that an error shows */
	FATE_NUMBER_TEXT = 32 /* room for any number written back */
};

#define FATE_TIME_MAX_NS (INT64_C(3600) * 1000000000)
#define FATE_RATE_MAX	 UINT64_C(1000000000000)
#define FATE_RATE_MIN	 UINT64_C(8)
#define FATE_COUNT_MAX	 UINT64_C(1000000000)
#define FATE_ORDINAL_MAX UINT64_C(1000000000000000)
#define FATE_TIME_WANTED "a time with its unit (ns, us, ms or s), up to 3600s"
#define FATE_RATE_WANTED \
	"a rate with its unit (bit, kbit, mbit, gbit; bytes: bps, kbps, ...), 8bit to 1tbit"
#define FATE_SHARE_WANTED "a percentage, 0% to 100%"
#define FATE_COUNT_WANTED "a whole number, 1 to 1000000000"
#define FATE_DROP_WANTED                                                                        \
	"CLASS:N[,N-M...], N from 1, CLASS one of syn, synack, ack, data, fin, rst, tcp, udp, " \
	"icmp, raw"
#define FATE_RULE_WANTED "tcp, udp, icmp or raw, or a port of the server's: tcp:PORT or udp:PORT"
#define FATE_WORDS \
	"delay, loss, duplicate, corrupt, reorder, rate, limit, drop, block, reject, allow"

/* ---- the generator ---- */

#define FATE_GAMMA UINT64_C(0x9e3779b97f4a7c15)

/* SplitMix64's finaliser. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Number n of the sequence that begins at key. */
static uint64_t draw_bits(uint64_t key, uint64_t n)
{
	return mix(key + (n + 1) * FATE_GAMMA);
}

/* The upper 53 bits as a number in [0, 1): exact, so the same on every machine. */
static double to_unit(uint64_t bits)
{
	return (double)(bits >> 11) * 0x1p-53;
}

/* bits / 2^64 * n, rounded down: a whole number from 0 to n - 1. */
static uint64_t scale_bits(uint64_t bits, uint64_t n)
{
	uint64_t low = (bits & 0xffffffff) * (n & 0xffffffff);
	uint64_t middle = (bits >> 32) * (n & 0xffffffff) + (low >> 32);
	uint64_t other = (bits & 0xffffffff) * (n >> 32) + (middle & 0xffffffff);

	return (bits >> 32) * (n >> 32) + (middle >> 32) + (other >> 32);
}

/* Delay and jitter of one packet, from its bits; never below 0. */
static int64_t draw_delay(const struct fate_spec *spec, uint64_t bits)
{
	int64_t delay_ns = spec->delay_ns;

	if (spec->jitter_ns == 0)
		return delay_ns;
	if (spec->normal) {
		/*
		 * The sum of 12 uniform numbers, less 6, has mean 0 and variance 1 and is as good
		 * as normal up to 3 sigma (and never above 6): integers all the way, 12 numbers of
		 * 16 bits out of 3 draws.
		 */
		int64_t twice = INT64_C(-12) * 65535;

		for (uint64_t i = 0; i < 3; i++) {
			uint64_t word = draw_bits(bits, i);

			for (int j = 0; j < 4; j++, word >>= 16)
				twice += 2 * (int64_t)(word & 0xffff);
		}
		delay_ns += spec->jitter_ns * twice / 131072;
	} else {
		delay_ns += (int64_t)scale_bits(bits, 2 * (uint64_t)spec->jitter_ns + 1) -
			    spec->jitter_ns;
	}
	return delay_ns > 0 ? delay_ns : 0;
}

/* ---- the spec ---- */

struct token {
	const char *text;
	size_t length;
};

struct parser {
	const char *at;
	struct token token; /* length 0 at the end */
	char *error;
};

static void next_token(struct parser *parser)
{
	static const char space[] = " \t\r\n\v\f";

	parser->at += strspn(parser->at, space);
	parser->token.text = parser->at;
	parser->token.length = strcspn(parser->at, space);
	parser->at += parser->token.length;
}

static bool token_is(const struct token *token, const char *word)
{
	return token->length == strlen(word) && memcmp(token->text, word, token->length) == 0;
}

static bool token_is_number(const struct token *token)
{
	return token->length > 0 && strchr("0123456789.+-", token->text[0]) != NULL;
}

/* One line: the word, its value (cut short, and made printable), what is allowed. Returns -1. */
static int parse_error(
	struct parser *parser, const char *word, const struct token *value, const char *wanted)
{
	char shown[FATE_SHOWN + 4] = "";
	size_t n = value->length < FATE_SHOWN ? value->length : FATE_SHOWN;

	for (size_t i = 0; i < n; i++)
		shown[i] = value->text[i] >= ' ' && value->text[i] <= '~' ? value->text[i] : '?';
	if (n < value->length)
		memcpy(shown + n, "...", 4);
	if (value->length == 0)
		snprintf(parser->error, FATE_ERROR_BYTES, "%s: a value is missing: wanted %s", word,
			wanted);
	else
		snprintf(
			parser->error, FATE_ERROR_BYTES, "%s: '%s' is not %s", word, shown, wanted);
	return -1;
}

static int parse_fault(struct parser *parser, const char *word, const char *fault)
{
	snprintf(parser->error, FATE_ERROR_BYTES, "%s: %s", word, fault);
	return -1;
}

/* A decimal number: digits / 10^decimals. No sign, no exponent. */
struct number {
	uint64_t digits;
	unsigned int decimals;
};

/*
 * Reads a number at the start of the token, and cuts it off. False when there is none, or it has
 * too many digits.
 */
static bool take_number(struct token *token, struct number *number)
{
	unsigned int significant = 0, seen = 0;
	bool point = false;

	memset(number, 0, sizeof(*number));
	for (; token->length > 0; token->text++, token->length--) {
		char c = token->text[0];

		if (c == '.' && !point) {
			point = true;
			continue;
		}
		if (c < '0' || c > '9')
			break;
		seen++;
		number->digits = number->digits * 10 + (uint64_t)(c - '0');
		number->decimals += point;
		significant += number->digits > 0;
		if (significant > FATE_DIGITS || number->decimals > FATE_DIGITS)
			return false;
	}
	return seen > 0;
}

struct unit {
	const char *name;
	uint64_t size;
};

/*
 * number * size to the nearest whole, up to `most`. False when it is more, or too finely given to
 * be computed exactly.
 */
static bool scale_number(const struct number *number, uint64_t size, uint64_t most, uint64_t *value)
{
	uint64_t power = 1, whole, rest;

	for (unsigned int i = 0; i < number->decimals; i++)
		power *= 10;
	whole = number->digits / power;
	rest = number->digits % power;
	if (whole > most / size || rest > (UINT64_MAX - power) / size)
		return false;
	*value = whole * size + (rest * size + power / 2) / power;
	return *value <= most;
}

static bool take_unit(
	struct token token, const struct unit *units, size_t n, uint64_t most, uint64_t *value)
{
	struct number number;

	if (!take_number(&token, &number))
		return false;
	for (size_t i = 0; i < n; i++)
		if (token.length == strlen(units[i].name) &&
			strncasecmp(token.text, units[i].name, token.length) == 0)
			return scale_number(&number, units[i].size, most, value);
	return false;
}

static bool take_time(const struct token *token, int64_t *time_ns)
{
	static const struct unit units[] = {{"ns", 1}, {"nsec", 1}, {"nsecs", 1}, {"us", 1000},
		{"usec", 1000}, {"usecs", 1000}, {"ms", 1000000}, {"msec", 1000000},
		{"msecs", 1000000}, {"s", 1000000000}, {"sec", 1000000000}, {"secs", 1000000000}};
	uint64_t value;

	if (!take_unit(*token, units, sizeof(units) / sizeof(units[0]), FATE_TIME_MAX_NS, &value))
		return false;
	*time_ns = (int64_t)value;
	return true;
}

static bool take_rate(const struct token *token, uint64_t *bits)
{
	/* The longer names, with an i, are powers of 1024, as tc has them. */
	static const struct unit units[] = {{"bit", 1}, {"kbit", 1000}, {"mbit", 1000000},
		{"gbit", 1000000000}, {"tbit", UINT64_C(1000000000000)}, {"kibit", 1 << 10},
		{"mibit", 1 << 20}, {"gibit", 1 << 30}, {"bps", 8}, {"kbps", 8000},
		{"mbps", 8000000}, {"gbps", UINT64_C(8000000000)}, {"kibps", 8 << 10},
		{"mibps", 8 << 20}, {"gibps", UINT64_C(8) << 30}};

	return take_unit(*token, units, sizeof(units) / sizeof(units[0]), FATE_RATE_MAX, bits) &&
	       *bits >= FATE_RATE_MIN;
}

/*
 * A percentage, with or without its sign as in tc, as a probability: the double nearest to what was
 * written.
 */
static bool take_share(struct token token, double *share)
{
	struct number number;
	double power = 100;

	if (!take_number(&token, &number) || !(token.length == 0 || token_is(&token, "%")))
		return false;
	/* 10^17 at most, and 15 digits: both exact in a double, so one division rounds once. */
	for (unsigned int i = 0; i < number.decimals; i++)
		power *= 10;
	*share = (double)number.digits / power;
	return *share <= 1;
}

static bool take_count(struct token token, uint64_t most, uint64_t *count)
{
	struct number number;

	if (!take_number(&token, &number) || token.length > 0 || number.decimals > 0)
		return false;
	*count = number.digits;
	return *count >= 1 && *count <= most;
}

static int parse_delay(struct parser *parser, struct fate_spec *spec)
{
	if (!take_time(&parser->token, &spec->delay_ns))
		return parse_error(parser, "delay", &parser->token, FATE_TIME_WANTED);
	next_token(parser);
	if (!token_is_number(&parser->token))
		return 0;
	if (!take_time(&parser->token, &spec->jitter_ns))
		return parse_error(parser, "delay: jitter", &parser->token, FATE_TIME_WANTED);
	next_token(parser);
	if (!token_is(&parser->token, "distribution"))
		return 0;
	next_token(parser);
	if (!token_is(&parser->token, "uniform") && !token_is(&parser->token, "normal"))
		return parse_error(parser, "distribution", &parser->token, "uniform or normal");
	spec->normal = token_is(&parser->token, "normal") && spec->jitter_ns > 0;
	next_token(parser);
	return 0;
}

static int parse_loss(struct parser *parser, struct fate_spec *spec)
{
	double *const more[] = {&spec->gemodel_r, &spec->gemodel_1_h, &spec->gemodel_1_k};

	if (token_is(&parser->token, "random"))
		next_token(parser);
	else if (token_is(&parser->token, "gemodel"))
		spec->loss = FATE_LOSS_GEMODEL;
	if (spec->loss != FATE_LOSS_GEMODEL) {
		if (!take_share(parser->token, &spec->loss_p))
			return parse_error(parser, "loss", &parser->token,
				FATE_SHARE_WANTED ", or gemodel P% [R% [1-H% [1-K%]]]");
		spec->loss = spec->loss_p > 0 ? FATE_LOSS_RANDOM : FATE_LOSS_NONE;
		next_token(parser);
		return 0;
	}
	next_token(parser);
	if (!take_share(parser->token, &spec->loss_p))
		return parse_error(parser, "loss gemodel", &parser->token, FATE_SHARE_WANTED);
	next_token(parser);
	/* As in tc: with p alone it is Bernoulli's, with p and r Gilbert's simple model. */
	spec->gemodel_r = 1 - spec->loss_p;
	spec->gemodel_1_h = 1;
	spec->gemodel_1_k = 0;
	for (size_t i = 0; i < 3 && token_is_number(&parser->token); i++, next_token(parser))
		if (!take_share(parser->token, more[i]))
			return parse_error(
				parser, "loss gemodel", &parser->token, FATE_SHARE_WANTED);
	return 0;
}

static int parse_share(struct parser *parser, const char *word, double *share)
{
	if (!take_share(parser->token, share))
		return parse_error(parser, word, &parser->token, FATE_SHARE_WANTED);
	next_token(parser);
	return 0;
}

static int parse_duplicate(struct parser *parser, struct fate_spec *spec)
{
	return parse_share(parser, "duplicate", &spec->duplicate);
}

static int parse_corrupt(struct parser *parser, struct fate_spec *spec)
{
	return parse_share(parser, "corrupt", &spec->corrupt);
}

static int parse_reorder(struct parser *parser, struct fate_spec *spec)
{
	if (parse_share(parser, "reorder", &spec->reorder) < 0)
		return -1;
	spec->gap = 1;
	if (!token_is(&parser->token, "gap"))
		return 0;
	next_token(parser);
	if (!take_count(parser->token, FATE_COUNT_MAX, &spec->gap))
		return parse_error(parser, "reorder: gap", &parser->token, FATE_COUNT_WANTED);
	next_token(parser);
	return 0;
}

static int parse_rate(struct parser *parser, struct fate_spec *spec)
{
	if (!take_rate(&parser->token, &spec->rate_bits))
		return parse_error(parser, "rate", &parser->token, FATE_RATE_WANTED);
	next_token(parser);
	return 0;
}

static int parse_limit(struct parser *parser, struct fate_spec *spec)
{
	if (!take_count(parser->token, FATE_COUNT_MAX, &spec->limit))
		return parse_error(
			parser, "limit", &parser->token, FATE_COUNT_WANTED " of packets");
	next_token(parser);
	return 0;
}

/* Cuts off what stands before the first `end`, or all. Returns whether there was an `end`. */
static bool cut(struct token *token, char end, struct token *before)
{
	const char *at = memchr(token->text, end, token->length);

	*before = *token;
	if (!at) {
		token->text += token->length;
		token->length = 0;
		return false;
	}
	before->length = (size_t)(at - token->text);
	token->text = at + 1;
	token->length -= before->length + 1;
	return true;
}

/* Puts a range in its place among those of its drop class. False when there is no room. */
static bool add_range(struct fate_spec *spec, unsigned int drop, struct fate_range range)
{
	unsigned int at, used = spec->range_begin[FRAME_DROPS], end = spec->range_begin[drop + 1];
	unsigned int gone = 0;

	/* Those that it touches become one with it. */
	for (at = spec->range_begin[drop]; at < end && spec->range[at].last + 1 < range.first; at++)
		;
	for (; at + gone < end && spec->range[at + gone].first <= range.last + 1; gone++) {
		const struct fate_range *met = &spec->range[at + gone];

		if (met->first < range.first)
			range.first = met->first;
		if (met->last > range.last)
			range.last = met->last;
	}
	if (gone == 0 && used == FATE_RANGES)
		return false;
	memmove(&spec->range[at + 1], &spec->range[at + gone],
		(used - at - gone) * sizeof(spec->range[0]));
	spec->range[at] = range;
	for (unsigned int i = drop + 1; i <= FRAME_DROPS; i++)
		spec->range_begin[i] = (uint16_t)(spec->range_begin[i] + 1 - gone);
	return true;
}

static int parse_drop(struct parser *parser, struct fate_spec *spec)
{
	const struct token whole = parser->token;
	struct token rest = whole, name, item, first;
	unsigned int drop = 0;
	bool more;

	if (!cut(&rest, ':', &name))
		return parse_error(parser, "drop", &whole, FATE_DROP_WANTED);
	while (drop < FRAME_DROPS && !token_is(&name, frame_drop_name(drop)))
		drop++;
	if (drop == FRAME_DROPS)
		return parse_error(parser, "drop", &whole, FATE_DROP_WANTED);
	do {
		struct fate_range range;

		more = cut(&rest, ',', &item);
		if (cut(&item, '-', &first)) {
			if (!take_count(first, FATE_ORDINAL_MAX, &range.first) ||
				!take_count(item, FATE_ORDINAL_MAX, &range.last) ||
				range.first > range.last)
				return parse_error(parser, "drop", &whole, FATE_DROP_WANTED);
		} else {
			if (!take_count(first, FATE_ORDINAL_MAX, &range.first))
				return parse_error(parser, "drop", &whole, FATE_DROP_WANTED);
			range.last = range.first;
		}
		if (!add_range(spec, drop, range))
			return parse_fault(parser, "drop", "more than 1024 numbers and ranges");
	} while (more);
	next_token(parser);
	return 0;
}

static int parse_rule(
	struct parser *parser, struct fate_spec *spec, const char *word, enum fate_action action)
{
	const struct token whole = parser->token;
	struct token rest = whole, name;
	struct fate_rule rule = {.action = (uint8_t)action};
	uint64_t port = 0;

	rule.has_port = cut(&rest, ':', &name);
	while (rule.class <= FRAME_RAW && !token_is(&name, frame_class_name(rule.class)))
		rule.class ++;
	if (rule.class > FRAME_RAW || (rule.has_port && rule.class > FRAME_UDP) ||
		(rule.has_port && !take_count(rest, 65535, &port)))
		return parse_error(parser, word, &whole, FATE_RULE_WANTED);
	rule.port = (uint16_t)port;
	if (spec->rules == FATE_RULES)
		return parse_fault(parser, word, "more than 64 rules");
	spec->rule[spec->rules++] = rule;
	next_token(parser);
	return 0;
}

static int parse_block(struct parser *parser, struct fate_spec *spec)
{
	return parse_rule(parser, spec, "block", FATE_BLOCK);
}

static int parse_reject(struct parser *parser, struct fate_spec *spec)
{
	return parse_rule(parser, spec, "reject", FATE_REJECT);
}

static int parse_allow(struct parser *parser, struct fate_spec *spec)
{
	return parse_rule(parser, spec, "allow", FATE_ALLOW);
}

static const struct word {
	const char *name;
	bool often; /* may be said more than once */
	int (*parse)(struct parser *parser, struct fate_spec *spec);
} words[] = {
	{"delay", false, parse_delay},
	{"loss", false, parse_loss},
	{"duplicate", false, parse_duplicate},
	{"corrupt", false, parse_corrupt},
	{"reorder", false, parse_reorder},
	{"rate", false, parse_rate},
	{"limit", false, parse_limit},
	{"drop", true, parse_drop},
	{"block", true, parse_block},
	{"reject", true, parse_reject},
	{"allow", true, parse_allow},
};

int fate_parse(const char *text, struct fate_spec *spec, char error[FATE_ERROR_BYTES])
{
	const size_t n = sizeof(words) / sizeof(words[0]);
	struct parser parser = {.at = text, .error = error};
	unsigned int said = 0;

	memset(spec, 0, sizeof(*spec));
	error[0] = '\0';
	next_token(&parser);
	while (parser.token.length > 0) {
		size_t i = 0;

		while (i < n && !token_is(&parser.token, words[i].name))
			i++;
		if (i == n && token_is_number(&parser.token))
			return parse_error(&parser, "link", &parser.token,
				"a word, nor a value of the word before it (netem's correlations "
				"are "
				"not offered)");
		if (i == n)
			return parse_error(&parser, "link", &parser.token, "one of " FATE_WORDS);
		if (said & 1u << i && !words[i].often)
			return parse_fault(&parser, words[i].name, "said twice, once is allowed");
		said |= 1u << i;
		next_token(&parser);
		if (words[i].parse(&parser, spec) < 0)
			return -1;
	}
	if (spec->gap > 0 && spec->delay_ns == 0)
		return parse_fault(&parser, "reorder",
			"there is no delay to overtake: it is allowed with delay T, T above 0");
	return 0;
}

/* ---- the spec, written back ---- */

struct writer {
	char *text;
	size_t length;
};

__attribute__((format(printf, 2, 3))) static void put(
	struct writer *writer, const char *format, ...)
{
	size_t room = FATE_TEXT_BYTES - writer->length;
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(writer->text + writer->length, room, format, arguments);
	va_end(arguments);
	if (n > 0)
		writer->length += (size_t)n < room ? (size_t)n : room - 1;
}

/* A word, with a space before it unless it is the first. */
static void put_word(struct writer *writer, const char *word)
{
	put(writer, "%s%s", writer->length > 0 ? " " : "", word);
}

static void put_unit(struct writer *writer, uint64_t value, const struct unit *units)
{
	while (value % units->size != 0 || (value == 0 && units->size != 1))
		units++;
	put(writer, " %" PRIu64 "%s", value / units->size, units->name);
}

static void put_time(struct writer *writer, int64_t time_ns)
{
	static const struct unit units[] = {
		{"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}};

	put_unit(writer, (uint64_t)time_ns, units);
}

/* The shortest decimal that parses back to the same double. */
static void put_share(struct writer *writer, double share)
{
	char text[FATE_NUMBER_TEXT];

	for (int decimals = 0; decimals <= FATE_DIGITS; decimals++) {
		struct token token = {.text = text};
		double again;
		int n = snprintf(text, sizeof(text), "%.*f", decimals, share * 100);

		token.length = (size_t)n;
		if (take_share(token, &again) && again >= share && again <= share)
			break;
	}
	put(writer, " %s%%", text);
}

static void put_ranges(struct writer *writer, const struct fate_spec *spec)
{
	for (unsigned int drop = 0; drop < FRAME_DROPS; drop++) {
		unsigned int begin = spec->range_begin[drop], end = spec->range_begin[drop + 1];

		for (unsigned int i = begin; i < end; i++) {
			if (i == begin) {
				put_word(writer, "drop ");
				put(writer, "%s:", frame_drop_name(drop));
			} else {
				put(writer, ",");
			}
			put(writer, "%" PRIu64, spec->range[i].first);
			if (spec->range[i].last > spec->range[i].first)
				put(writer, "-%" PRIu64, spec->range[i].last);
		}
	}
}

const char *fate_format(const struct fate_spec *spec, char *text)
{
	static const struct unit rates[] = {
		{"gbit", 1000000000}, {"mbit", 1000000}, {"kbit", 1000}, {"bit", 1}};
	static const char *const actions[] = {"allow", "block", "reject"};
	struct writer writer = {.text = text};

	text[0] = '\0';
	if (spec->delay_ns > 0 || spec->jitter_ns > 0) {
		put_word(&writer, "delay");
		put_time(&writer, spec->delay_ns);
		if (spec->jitter_ns > 0)
			put_time(&writer, spec->jitter_ns);
		if (spec->normal)
			put(&writer, " distribution normal");
	}
	if (spec->loss != FATE_LOSS_NONE) {
		put_word(&writer, "loss");
		if (spec->loss == FATE_LOSS_GEMODEL)
			put(&writer, " gemodel");
		put_share(&writer, spec->loss_p);
		/* The model of p alone has an r that no decimal may hit. */
		if (spec->loss == FATE_LOSS_GEMODEL &&
			!(spec->gemodel_r >= 1 - spec->loss_p &&
				spec->gemodel_r <= 1 - spec->loss_p && spec->gemodel_1_h >= 1 &&
				spec->gemodel_1_k <= 0)) {
			put_share(&writer, spec->gemodel_r);
			put_share(&writer, spec->gemodel_1_h);
			put_share(&writer, spec->gemodel_1_k);
		}
	}
	if (spec->duplicate > 0) {
		put_word(&writer, "duplicate");
		put_share(&writer, spec->duplicate);
	}
	if (spec->corrupt > 0) {
		put_word(&writer, "corrupt");
		put_share(&writer, spec->corrupt);
	}
	if (spec->gap > 0) {
		put_word(&writer, "reorder");
		put_share(&writer, spec->reorder);
		if (spec->gap > 1)
			put(&writer, " gap %" PRIu64, spec->gap);
	}
	if (spec->rate_bits > 0) {
		put_word(&writer, "rate");
		put_unit(&writer, spec->rate_bits, rates);
	}
	if (spec->limit > 0) {
		put_word(&writer, "limit");
		put(&writer, " %" PRIu64, spec->limit);
	}
	put_ranges(&writer, spec);
	for (unsigned int i = 0; i < spec->rules; i++) {
		const struct fate_rule *rule = &spec->rule[i];

		put_word(&writer, actions[rule->action]);
		put(&writer, " %s", frame_class_name(rule->class));
		if (rule->has_port)
			put(&writer, ":%u", rule->port);
	}
	return text;
}

/* ---- the fates ---- */

void fate_init(struct fate *fate, uint64_t seed, enum fate_direction direction)
{
	memset(fate, 0, sizeof(*fate));
	fate->direction = direction;
	fate_reset(fate, seed);
}

void fate_reset(struct fate *fate, uint64_t seed)
{
	uint64_t way = draw_bits(seed, fate->direction);

	fate->seed = seed;
	memset(fate->index, 0, sizeof(fate->index));
	memset(fate->counted, 0, sizeof(fate->counted));
	memset(fate->bad, 0, sizeof(fate->bad));
	memset(fate->since_ahead, 0, sizeof(fate->since_ahead));
	for (unsigned int kind = 0; kind < FATE_KINDS; kind++)
		for (unsigned int class = 0; class < FRAME_CLASSES; class ++)
			fate->key[kind][class] = draw_bits(draw_bits(way, kind), class);
}

void fate_set(struct fate *fate, const struct fate_spec *spec)
{
	if (fate->spec.loss != FATE_LOSS_GEMODEL)
		memset(fate->bad, 0, sizeof(fate->bad));
	if (fate->spec.gap == 0)
		memset(fate->since_ahead, 0, sizeof(fate->since_ahead));
	fate->spec = *spec;
}

/*
 * The first rule that speaks of this frame decides. What none speaks of passes, unless something is
 * allowed by name.
 */
static bool is_blocked(
	const struct fate *fate, const struct frame_info *info, struct fate_decision *decision)
{
	static const uint8_t protocols[] = {6, 17, 1, 253}; /* of a fragment, by rule->class */
	bool allowing = false;

	/* A firewall of hosts' packets; how the hosts find each other is not its business. */
	if (info->class == FRAME_ARP)
		return false;
	for (unsigned int i = 0; i < fate->spec.rules; i++) {
		const struct fate_rule *rule = &fate->spec.rule[i];
		uint16_t port = fate->direction == FATE_UP ? info->dport : info->sport;

		allowing = allowing || rule->action == FATE_ALLOW;
		if (info->class == FRAME_FRAG) {
			uint8_t protocol = protocols[rule->class];

			if (rule->class == FRAME_ICMP && info->ip_version == 6)
				protocol = 58;
			/*
			 * It shows no port. An allowed protocol's passes, as it is worth nothing
			 * without the first, which is looked at; a blocked port's passes for the
			 * same reason.
			 */
			if (info->protocol != protocol ||
				(rule->has_port && rule->action != FATE_ALLOW))
				continue;
		} else {
			if (info->class != rule->class)
				continue;
			if (rule->has_port && (!info->has_ports || port != rule->port))
				continue;
		}
		if (rule->action == FATE_ALLOW)
			return false;
		decision->cause = FATE_CAUSE_RULE;
		decision->rule = *rule;
		decision->rejected = rule->action == FATE_REJECT;
		return true;
	}
	decision->cause = allowing ? FATE_CAUSE_NOT_ALLOWED : FATE_CAUSE_NONE;
	return allowing;
}

/* Counts the packet in each of its drop classes; the first that has it on its list is the cause. */
static bool is_dropped(
	struct fate *fate, const struct frame_info *info, struct fate_decision *decision)
{
	const struct fate_spec *spec = &fate->spec;
	bool dropped = false;

	for (unsigned int drop = 0, set = info->drops; set != 0; drop++, set >>= 1) {
		unsigned int low = spec->range_begin[drop], high = spec->range_begin[drop + 1];
		uint64_t number;

		if (!(set & 1))
			continue;
		number = ++fate->counted[drop];
		while (low < high) {
			unsigned int middle = (low + high) / 2;

			if (spec->range[middle].last < number)
				low = middle + 1;
			else
				high = middle;
		}
		if (dropped || low == spec->range_begin[drop + 1] ||
			spec->range[low].first > number)
			continue;
		dropped = true;
		decision->drop = (uint8_t)drop;
		decision->number = number;
	}
	return dropped;
}

/*
 * As sch_netem has it: the state before this packet says how likely its loss is, and then whether
 * it moves.
 */
static bool is_lost_in_gemodel(
	struct fate *fate, unsigned int class, uint64_t index, struct fate_decision *decision)
{
	const struct fate_spec *spec = &fate->spec;
	bool was_bad = fate->bad[class];
	double move = to_unit(draw_bits(fate->key[FATE_KIND_GEMODEL_MOVE][class], index));

	if (move < (was_bad ? spec->gemodel_r : spec->loss_p))
		fate->bad[class] = !was_bad;
	decision->draw = to_unit(draw_bits(fate->key[FATE_KIND_GEMODEL_LOSS][class], index));
	decision->probability = was_bad ? spec->gemodel_1_h : spec->gemodel_1_k;
	decision->cause = was_bad ? FATE_CAUSE_BAD : FATE_CAUSE_GOOD;
	return decision->draw < decision->probability;
}

static bool is_lost(
	struct fate *fate, unsigned int class, uint64_t index, struct fate_decision *decision)
{
	if (fate->spec.loss == FATE_LOSS_GEMODEL)
		return is_lost_in_gemodel(fate, class, index, decision);
	if (fate->spec.loss != FATE_LOSS_RANDOM)
		return false;
	decision->draw = to_unit(draw_bits(fate->key[FATE_KIND_LOSS][class], index));
	decision->probability = fate->spec.loss_p;
	decision->cause = FATE_CAUSE_RANDOM;
	return decision->draw < decision->probability;
}

/*
 * As netem: once gap - 1 have kept their place, each of the next is sent ahead with that
 * probability, until one is.
 */
static bool is_sent_ahead(struct fate *fate, unsigned int class, uint64_t index)
{
	const struct fate_spec *spec = &fate->spec;

	if (spec->gap == 0)
		return false;
	if (fate->since_ahead[class] + 1 >= spec->gap &&
		to_unit(draw_bits(fate->key[FATE_KIND_REORDER][class], index)) < spec->reorder) {
		fate->since_ahead[class] = 0;
		return true;
	}
	fate->since_ahead[class]++;
	return false;
}

void fate_decide(struct fate *fate, const struct frame_info *info, struct fate_decision *decision)
{
	const struct fate_spec *spec = &fate->spec;
	unsigned int class = info->class;
	uint64_t index = fate->index[class]++;
	struct fate_decision lost = {0};
	bool is_drop, is_loss, ahead;

	memset(decision, 0, sizeof(*decision));
	decision->index = index;
	decision->limit = spec->limit;
	/* What has a memory moves for every packet, whatever else befalls it. */
	is_drop = is_dropped(fate, info, decision);
	is_loss = is_lost(fate, class, index, &lost);
	ahead = is_sent_ahead(fate, class, index);

	if (spec->rules > 0 && is_blocked(fate, info, decision)) {
		decision->result = FATE_BLOCKED;
		return;
	}
	if (is_drop) {
		decision->result = FATE_DROPPED;
		decision->cause = FATE_CAUSE_DROP;
		return;
	}
	if (is_loss) {
		decision->result = FATE_LOST;
		decision->cause = lost.cause;
		decision->draw = lost.draw;
		decision->probability = lost.probability;
		return;
	}
	decision->result = FATE_DELIVERED;
	if (spec->duplicate > 0)
		decision->copies = to_unit(draw_bits(fate->key[FATE_KIND_DUPLICATE][class],
					   index)) < spec->duplicate;
	if (spec->corrupt > 0 && info->body_length > 0 &&
		to_unit(draw_bits(fate->key[FATE_KIND_CORRUPT][class], index)) < spec->corrupt) {
		decision->corrupted = true;
		decision->corrupt_bit = (uint32_t)scale_bits(
			draw_bits(fate->key[FATE_KIND_CORRUPT_BIT][class], index),
			(uint64_t)info->body_length * 8);
	}
	decision->ahead = ahead;
	if (!ahead)
		decision->delay_ns =
			draw_delay(spec, draw_bits(fate->key[FATE_KIND_JITTER][class], index));
}

const char *fate_explain(const struct fate_decision *decision, char text[FATE_EXPLAIN_BYTES])
{
	const struct fate_rule *rule = &decision->rule;
	char corrupted[64] = "", port[8] = "";

	switch (decision->result) {
	case FATE_LOST:
		snprintf(text, FATE_EXPLAIN_BYTES, "lost: %sdraw %.6g < %.6g",
			decision->cause == FATE_CAUSE_BAD    ? "gemodel bad, "
			: decision->cause == FATE_CAUSE_GOOD ? "gemodel good, "
							     : "",
			decision->draw, decision->probability);
		return text;
	case FATE_QUEUE:
		snprintf(text, FATE_EXPLAIN_BYTES, "queue: limit %" PRIu64, decision->limit);
		return text;
	case FATE_DROPPED:
		snprintf(text, FATE_EXPLAIN_BYTES, "dropped: %s %" PRIu64,
			frame_drop_name(decision->drop), decision->number);
		return text;
	case FATE_BLOCKED:
		if (rule->has_port)
			snprintf(port, sizeof(port), ":%u", rule->port);
		if (decision->cause == FATE_CAUSE_NOT_ALLOWED)
			snprintf(text, FATE_EXPLAIN_BYTES, "blocked: not allowed");
		else
			snprintf(text, FATE_EXPLAIN_BYTES, "%s: %s%s",
				decision->rejected ? "rejected" : "blocked",
				frame_class_name(rule->class), port);
		return text;
	default:
		break;
	}
	if (decision->corrupted)
		snprintf(corrupted, sizeof(corrupted),
			"corrupted: bit %" PRIu32 " behind the IP header", decision->corrupt_bit);
	snprintf(text, FATE_EXPLAIN_BYTES, "%s%s%s%s%s", decision->ahead ? "sent ahead" : "",
		decision->ahead && decision->copies ? "; " : "",
		decision->copies ? "duplicated" : "",
		(decision->ahead || decision->copies) && decision->corrupted ? "; " : "",
		corrupted);
	return text;
}

const char *fate_direction_name(enum fate_direction direction)
{
	return direction == FATE_UP ? "up" : "down";
}

const char *fate_result_name(enum fate_result result)
{
	static const char *const names[FATE_RESULTS] = {
		"delivered", "lost", "queue", "dropped", "blocked"};

	return names[result];
}

int fate_dry_run(FILE *out, const struct fate_spec spec[FATE_DIRECTIONS], uint64_t seed, uint64_t n)
{
	static const struct frame_info infos[] = {
		{.class = FRAME_TCP, .drops = 1u << FRAME_DROP_TCP, .body_length = 1},
		{.class = FRAME_UDP, .drops = 1u << FRAME_DROP_UDP, .body_length = 1},
		{.class = FRAME_ICMP, .drops = 1u << FRAME_DROP_ICMP, .body_length = 1},
		{.class = FRAME_RAW, .drops = 1u << FRAME_DROP_RAW, .body_length = 1},
		{.class = FRAME_FRAG, .body_length = 1},
		{.class = FRAME_ARP, .body_length = 1},
		{.class = FRAME_OTHER, .body_length = 1},
	};

	_Static_assert(sizeof(infos) / sizeof(infos[0]) == FRAME_CLASSES, "a class has no fates");

	fputs("direction,class,index,fate,copies,corrupted,ahead,delay_ns\n", out);
	for (unsigned int direction = 0; direction < FATE_DIRECTIONS; direction++) {
		struct fate fate;

		fate_init(&fate, seed, direction);
		fate_set(&fate, &spec[direction]);
		for (size_t i = 0; i < sizeof(infos) / sizeof(infos[0]); i++) {
			for (uint64_t index = 0; index < n && !ferror(out); index++) {
				struct fate_decision fated;

				fate_decide(&fate, &infos[i], &fated);
				fprintf(out, "%s,%s,%" PRIu64 ",%s,%d,%d,%d,",
					fate_direction_name(direction),
					frame_class_name(infos[i].class), fated.index,
					fate_result_name(fated.result), fated.copies,
					fated.corrupted, fated.ahead);
				if (fated.result == FATE_DELIVERED)
					fprintf(out, "%" PRId64, fated.delay_ns);
				fputc('\n', out);
			}
		}
	}
	return fflush(out) != 0 || ferror(out) ? -1 : 0;
}
