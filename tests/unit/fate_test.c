/*
 * The fates of packets: the spec language, the generator, each impairment, and that no two of them
 * shift each other.
 */
#include "common/wire/fate.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"

enum { MANY = 100000 };

static struct fate_decision decisions[MANY], others[MANY];

static void check_text(const char *what, const char *got, const char *wanted, int line)
{
	if (strcmp(got, wanted) == 0)
		return;
	fprintf(stderr, "fate_test.c:%d: %s gave\n  %s\nnot\n  %s\n", line, what, got, wanted);
	check_failures++;
}

static struct fate_spec parse(const char *text)
{
	struct fate_spec spec;
	char error[FATE_ERROR_BYTES];

	if (fate_parse(text, &spec, error) < 0) {
		fprintf(stderr, "%s: %s\n", text, error);
		check_failures++;
	}
	return spec;
}

static struct frame_info packet(enum frame_class class)
{
	struct frame_info info = {.class = (uint8_t) class, .ip_version = 4, .body_length = 100};

	if (class == FRAME_UDP)
		info.drops = 1u << FRAME_DROP_UDP;
	return info;
}

/* The first n fates of a class. */
static void decide(const char *text, uint64_t seed, enum fate_direction direction,
	enum frame_class class, struct fate_decision *out, size_t n)
{
	const struct fate_spec spec = parse(text);
	const struct frame_info info = packet(class);
	struct fate fate;

	fate_init(&fate, seed, direction);
	fate_set(&fate, &spec);
	for (size_t i = 0; i < n; i++)
		fate_decide(&fate, &info, &out[i]);
}

static size_t count_result(const struct fate_decision *fated, size_t n, enum fate_result result)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += fated[i].result == result;
	return count;
}

static size_t differences(const struct fate_decision *a, const struct fate_decision *b, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += a[i].result != b[i].result;
	return count;
}

/* ---- the language ---- */

static void test_good_specs(void)
{
	static const struct {
		const char *text, *canonical;
	} specs[] = {
		{"", ""},
		{" \t\n", ""},
		{"delay 20ms", "delay 20ms"},
		{"delay 1500us 0.25ms", "delay 1500us 250us"},
		{"delay 1s 2msecs distribution uniform", "delay 1s 2ms"},
		{"delay 20ms 5ms distribution normal", "delay 20ms 5ms distribution normal"},
		{"delay 0ms 5ms", "delay 0ns 5ms"},
		{"delay 0ms", ""},
		{"delay 1.000000001s", "delay 1000000001ns"},
		{"delay 3600S", "delay 3600s"},
		{"loss 5%", "loss 5%"},
		{"loss 5", "loss 5%"},
		{"loss random .5%", "loss 0.5%"},
		{"loss 0%", ""},
		{"loss 100%", "loss 100%"},
		{"loss 33.333333333%", "loss 33.333333333%"},
		{"loss gemodel 1%", "loss gemodel 1%"},
		{"loss gemodel 3.3%", "loss gemodel 3.3%"},
		{"loss gemodel 1% 10%", "loss gemodel 1% 10% 100% 0%"},
		{"loss gemodel 1% 10% 70% 0.1%", "loss gemodel 1% 10% 70% 0.1%"},
		{"duplicate 1% corrupt 0.001%", "duplicate 1% corrupt 0.001%"},
		{"reorder 25% gap 5 delay 10ms", "delay 10ms reorder 25% gap 5"},
		{"reorder 25% delay 10ms", "delay 10ms reorder 25%"},
		{"rate 1.5mbit", "rate 1500kbit"},
		{"rate 10Mbit limit 100", "rate 10mbit limit 100"},
		{"rate 1mbps", "rate 8mbit"},
		{"rate 1kibps", "rate 8192bit"},
		{"rate 8bit", "rate 8bit"},
		{"rate 1tbit", "rate 1000gbit"},
		{"drop data:3", "drop data:3"},
		{"drop data:7,1-3,5,4", "drop data:1-5,7"},
		{"drop udp:10-20 drop syn:1 drop udp:15-30,1", "drop syn:1 drop udp:1,10-30"},
		{"drop udp:1,3,5,7 drop udp:2-6", "drop udp:1-7"},
		{"block icmp reject tcp:80 allow udp:53", "block icmp reject tcp:80 allow udp:53"},
		{"block tcp:65535", "block tcp:65535"},
		{"limit 9 rate 1kbit drop raw:1 corrupt 1% loss 2% delay 1ms 1us",
			"delay 1ms 1us loss 2% corrupt 1% rate 1kbit limit 9 drop raw:1"},
	};
	static char text[FATE_TEXT_BYTES], again[FATE_TEXT_BYTES];

	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct fate_spec spec = parse(specs[i].text), second;

		check_text(specs[i].text, fate_format(&spec, text), specs[i].canonical, __LINE__);
		second = parse(text);
		check_text(text, fate_format(&second, again), text, __LINE__);
		CHECK(spec.delay_ns == second.delay_ns && spec.rate_bits == second.rate_bits);
		CHECK_EQ(memcmp(&spec.loss_p, &second.loss_p, sizeof(double)), 0);
		CHECK_EQ(memcmp(&spec.gemodel_r, &second.gemodel_r, sizeof(double)), 0);
	}
}

#define WORDS "delay, loss, duplicate, corrupt, reorder, rate, limit, drop, block, reject, allow"
#define TIME  "a time with its unit (ns, us, ms or s), up to 3600s"
#define SHARE "a percentage, 0% to 100%"
#define RATE  "a rate with its unit (bit, kbit, mbit, gbit; bytes: bps, kbps, ...), 8bit to 1tbit"
#define COUNT "a whole number, 1 to 1000000000"
#define DROP                                                                                    \
	"CLASS:N[,N-M...], N from 1, CLASS one of syn, synack, ack, data, fin, rst, tcp, udp, " \
	"icmp, raw"
#define RULE "tcp, udp, icmp or raw, or a port of the server's: tcp:PORT or udp:PORT"

static void test_bad_specs(void)
{
	static const struct {
		const char *text, *error;
	} specs[] = {
		{"jitter 5ms", "link: 'jitter' is not one of " WORDS},
		{"DELAY 5ms", "link: 'DELAY' is not one of " WORDS},
		{"loss 5% 25%",
			"link: '25%' is not a word, nor a value of the word before it (netem's "
			"correlations are not offered)"},
		{"delay", "delay: a value is missing: wanted " TIME},
		{"delay 20", "delay: '20' is not " TIME},
		{"delay 20m", "delay: '20m' is not " TIME},
		{"delay -20ms", "delay: '-20ms' is not " TIME},
		{"delay 1e3ms", "delay: '1e3ms' is not " TIME},
		{"delay ms", "delay: 'ms' is not " TIME},
		{"delay .ms", "delay: '.ms' is not " TIME},
		{"delay 3600.1s", "delay: '3600.1s' is not " TIME},
		{"delay 99999999999999999999s", "delay: '99999999999999999999s' is not " TIME},
		{"delay nan", "delay: 'nan' is not " TIME},
		{"delay 20ms 5", "delay: jitter: '5' is not " TIME},
		{"delay 20ms 5ms distribution pareto",
			"distribution: 'pareto' is not uniform or normal"},
		{"delay 20ms 5ms distribution",
			"distribution: a value is missing: wanted uniform or normal"},
		{"delay 20ms distribution normal", "link: 'distribution' is not one of " WORDS},
		{"loss", "loss: a value is missing: wanted " SHARE
			 ", or gemodel P% [R% [1-H% [1-K%]]]"},
		{"loss 101%", "loss: '101%' is not " SHARE ", or gemodel P% [R% [1-H% [1-K%]]]"},
		{"loss -1%", "loss: '-1%' is not " SHARE ", or gemodel P% [R% [1-H% [1-K%]]]"},
		{"loss 5%%", "loss: '5%%' is not " SHARE ", or gemodel P% [R% [1-H% [1-K%]]]"},
		{"loss gemodel", "loss gemodel: a value is missing: wanted " SHARE},
		{"loss gemodel 1% 2x", "loss gemodel: '2x' is not " SHARE},
		{"loss gemodel 1% 2% 3% 4% 5%",
			"link: '5%' is not a word, nor a value of the word before it (netem's "
			"correlations are not offered)"},
		{"loss 1% loss 2%", "loss: said twice, once is allowed"},
		{"delay 1ms delay 2ms", "delay: said twice, once is allowed"},
		{"duplicate x", "duplicate: 'x' is not " SHARE},
		{"corrupt 0x5%", "corrupt: '0x5%' is not " SHARE},
		{"reorder 5%",
			"reorder: there is no delay to overtake: it is allowed with delay T, T "
			"above 0"},
		{"delay 0ms reorder 5%",
			"reorder: there is no delay to overtake: it is allowed with delay T, T "
			"above 0"},
		{"delay 1ms reorder 5% gap 0", "reorder: gap: '0' is not " COUNT},
		{"delay 1ms reorder 5% gap", "reorder: gap: a value is missing: wanted " COUNT},
		{"gap 5", "link: 'gap' is not one of " WORDS},
		{"rate 10", "rate: '10' is not " RATE},
		{"rate 0mbit", "rate: '0mbit' is not " RATE},
		{"rate 7bit", "rate: '7bit' is not " RATE},
		{"rate 1001gbit", "rate: '1001gbit' is not " RATE},
		{"rate fast", "rate: 'fast' is not " RATE},
		{"limit 0", "limit: '0' is not " COUNT " of packets"},
		{"limit 1.5", "limit: '1.5' is not " COUNT " of packets"},
		{"limit 1000000001", "limit: '1000000001' is not " COUNT " of packets"},
		{"drop", "drop: a value is missing: wanted " DROP},
		{"drop data", "drop: 'data' is not " DROP},
		{"drop data:", "drop: 'data:' is not " DROP},
		{"drop data:0", "drop: 'data:0' is not " DROP},
		{"drop data:3-1", "drop: 'data:3-1' is not " DROP},
		{"drop data:1,", "drop: 'data:1,' is not " DROP},
		{"drop data:1-2-3", "drop: 'data:1-2-3' is not " DROP},
		{"drop frag:1", "drop: 'frag:1' is not " DROP},
		{"block", "block: a value is missing: wanted " RULE},
		{"block arp", "block: 'arp' is not " RULE},
		{"block icmp:8", "block: 'icmp:8' is not " RULE},
		{"block tcp:0", "block: 'tcp:0' is not " RULE},
		{"reject tcp:65536", "reject: 'tcp:65536' is not " RULE},
		{"allow tcp:http", "allow: 'tcp:http' is not " RULE},
		{"allow udp:", "allow: 'udp:' is not " RULE},
		{"delay \x1b[31m", "delay: '?[31m' is not " TIME},
		{"loss 0123456789012345678901234567890123456789012345678901234567890123456789",
			"loss: '0123456789012345678901234567890123456789...' is not " SHARE
			", or gemodel P% [R% [1-H% [1-K%]]]"},
	};
	struct fate_spec spec;
	char error[FATE_ERROR_BYTES];

	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		CHECK_EQ(fate_parse(specs[i].text, &spec, error), -1);
		check_text(specs[i].text, error, specs[i].error, __LINE__);
	}
}

/* The longest specs that there are: room for each range and rule, and none for one more. */
static void test_full_specs(void)
{
	static char text[FATE_TEXT_BYTES], again[FATE_TEXT_BYTES];
	struct fate_spec spec;
	char error[FATE_ERROR_BYTES];
	size_t length = 0;

	for (unsigned long long i = 0; i < FATE_RANGES; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%llu-%llu",
			i == 0 ? "drop synack:" : ",", 999999999000000 + 3 * i,
			999999999000001 + 3 * i);
	spec = parse(text);
	check_text("1024 ranges", fate_format(&spec, again), text, __LINE__);
	snprintf(text + length, sizeof(text) - length, ",1");
	CHECK_EQ(fate_parse(text, &spec, error), -1);
	check_text("1025 ranges", error, "drop: more than 1024 numbers and ranges", __LINE__);

	length = 0;
	for (unsigned int i = 0; i < FATE_RULES; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%sreject tcp:%u",
			i == 0 ? "" : " ", 65000 + i);
	spec = parse(text);
	check_text("64 rules", fate_format(&spec, again), text, __LINE__);
	snprintf(text + length, sizeof(text) - length, " block udp");
	CHECK_EQ(fate_parse(text, &spec, error), -1);
	check_text("65 rules", error, "block: more than 64 rules", __LINE__);
}

/*
 * Random words, right and wrong, cut anywhere: a spec or one line, never a crash; what parses is
 * written back alike.
 */
static void test_random_specs(void)
{
	static const char *const pieces[] = {"delay 20ms ", "5ms", " ", "loss ", "gemodel 5% ",
		"5%", " reorder 1% ", "gap ", "5", " drop data:1", ",3-9", ",", "-", "9",
		" block tcp", " reject udp", ":80", " rate 5mbit", " limit 9",
		" distribution normal ", ".", "\xff", " allow icmp ", " duplicate 1", " corrupt .3",
		"%"};
	static char text[FATE_TEXT_BYTES], again[FATE_TEXT_BYTES];
	unsigned int good = 0;

	srand(1);
	for (int round = 0; round < 20000; round++) {
		struct fate_spec spec, second;
		char made[256] = "", error[FATE_ERROR_BYTES];

		for (int i = rand() % 12; i >= 0; i--)
			strcat(made, pieces[(size_t)rand() % (sizeof(pieces) / sizeof(pieces[0]))]);
		if (fate_parse(made, &spec, error) < 0) {
			CHECK(error[0] != '\0' && !strchr(error, '\n'));
			continue;
		}
		good++;
		fate_format(&spec, text);
		second = parse(text);
		check_text(made, fate_format(&second, again), text, __LINE__);
	}
	CHECK(good > 300);
}

/* ---- the generator ---- */

/*
 * SplitMix64 is public: seeded with 1234567 it begins 6457827717110365317, 3203168211198807973, ...
 * Here it is reached through the spec alone, so what is compared are fates that the slow generator
 * in tests/harness/fate_oracle.py gave.
 */
static void test_known_answers(void)
{
	static const struct {
		const char *spec;
		enum fate_direction direction;
		enum frame_class class;
		const char *lost; /* of the first 40 */
		int64_t delay_ns[4];
	} known[] = {
		{"delay 20ms 5ms loss 20%", FATE_UP, FRAME_UDP,
			".......x......x..........x..x......x....",
			{23082985, 15966973, 18225558, 20503802}},
		{"delay 20ms 5ms loss 20%", FATE_DOWN, FRAME_UDP,
			"x.x.........x.x...............x.........",
			{15671517, 24153131, 22429961, 19032441}},
		{"delay 20ms 5ms distribution normal loss 20%", FATE_UP, FRAME_TCP,
			"x...x...................x...x......xx...",
			{19692154, 12972870, 13464432, 14302598}},
		{"loss gemodel 10% 30%", FATE_UP, FRAME_RAW,
			"...................xxx.xx.xxx...........", {0, 0, 0, 0}},
		{"delay 1s 1s loss gemodel 10% 30% 80% 5%", FATE_DOWN, FRAME_ICMP,
			"........x.x.xx.............x...xx.......",
			{1238867364, 1130241491, 410250518, 486170188}},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char lost[41] = "";

		decide(known[i].spec, 7, known[i].direction, known[i].class, decisions, 40);
		for (int n = 0; n < 40; n++)
			lost[n] = decisions[n].result == FATE_LOST ? 'x' : '.';
		check_text(known[i].spec, lost, known[i].lost, __LINE__);
		for (int n = 0; n < 4; n++)
			if (decisions[n].result == FATE_DELIVERED)
				CHECK_EQ(decisions[n].delay_ns, known[i].delay_ns[n]);
	}
}

/* Each part of the key counts: of 100 000 at 50 %, two independent lists differ in half. */
static void test_key(void)
{
	static const struct {
		uint64_t seed;
		enum fate_direction direction;
		enum frame_class class;
	} keys[] = {{8, FATE_UP, FRAME_UDP}, {7, FATE_DOWN, FRAME_UDP}, {7, FATE_UP, FRAME_TCP},
		{7, FATE_UP, FRAME_RAW}, {UINT64_C(7) << 32, FATE_UP, FRAME_UDP},
		{7 + (UINT64_C(1) << 63), FATE_UP, FRAME_UDP}};

	decide("loss 50%", 7, FATE_UP, FRAME_UDP, decisions, MANY);
	decide("loss 50%", 7, FATE_UP, FRAME_UDP, others, MANY);
	CHECK_EQ(differences(decisions, others, MANY), 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		size_t n;

		decide("loss 50%", keys[i].seed, keys[i].direction, keys[i].class, others, MANY);
		n = differences(decisions, others, MANY);
		CHECK(n > MANY / 2 - 800 && n < MANY / 2 + 800);
	}
	/* The kind: what is duplicated is not what is lost, corrupted or sent ahead. */
	decide("delay 1ms duplicate 50% corrupt 50% reorder 50%", 7, FATE_UP, FRAME_UDP, others,
		MANY);
	for (int kind = 0; kind < 3; kind++) {
		size_t alike[2] = {0, 0};

		for (size_t i = 0; i < MANY; i++) {
			bool a = decisions[i].result == FATE_LOST;
			bool b = kind == 0   ? others[i].copies > 0
				 : kind == 1 ? others[i].corrupted
					     : others[i].ahead;

			alike[0] += a == b;
			alike[1] += b == (kind == 0 ? others[i].corrupted : others[i].copies > 0);
		}
		CHECK(alike[0] > MANY / 2 - 800 && alike[0] < MANY / 2 + 800);
		CHECK(kind == 2 || (alike[1] > MANY / 2 - 800 && alike[1] < MANY / 2 + 800));
	}
}

/*
 * No setting shifts another's draws, no other class's packets shift anything, and a new run begins
 * anew.
 */
static void test_independence(void)
{
	struct fate_spec spec =
		parse("delay 10ms 3ms loss 5% duplicate 50% corrupt 50% reorder 10% "
		      "drop udp:3 block tcp rate 1mbit limit 3");
	struct frame_info udp = packet(FRAME_UDP), tcp = packet(FRAME_TCP);
	struct fate fate;
	size_t lost = 0;

	decide("loss 5%", 7, FATE_UP, FRAME_UDP, decisions, MANY);
	decide("delay 10ms 3ms", 7, FATE_UP, FRAME_UDP, others, MANY);
	fate_init(&fate, 7, FATE_UP);
	fate_set(&fate, &spec);
	for (int run = 0; run < 2; run++) {
		for (size_t i = 0; i < MANY; i++) {
			struct fate_decision fated;

			for (size_t j = 0; j < i % 3; j++)
				fate_decide(&fate, &tcp, &fated);
			fate_decide(&fate, &udp, &fated);
			CHECK_EQ(fated.index, i);
			if (i == 2) {
				CHECK_EQ(fated.result, FATE_DROPPED);
				CHECK_EQ(fated.number, 3);
				continue;
			}
			lost += fated.result == FATE_LOST;
			CHECK_EQ(fated.result, decisions[i].result);
			if (fated.result == FATE_DELIVERED && !fated.ahead)
				CHECK_EQ(fated.delay_ns, others[i].delay_ns);
		}
		fate_reset(&fate, 7);
	}
	CHECK_EQ(lost, 2 * (count_result(decisions, MANY, FATE_LOST) -
				   (decisions[2].result == FATE_LOST)));
	/* A change in mid-run goes on where it was. */
	spec = parse("duplicate 100%");
	for (size_t i = 0; i < 1000; i++) {
		struct fate_decision fated;

		if (i == 500) {
			spec = parse("loss 5%");
			fate_set(&fate, &spec);
		} else if (i == 0) {
			fate_set(&fate, &spec);
		}
		fate_decide(&fate, &udp, &fated);
		CHECK_EQ(fated.result, i < 500 ? FATE_DELIVERED : decisions[i].result);
	}
}

/* ---- each impairment ---- */

static void test_rates(void)
{
	size_t copies = 0, corrupted = 0, low = 0;
	bool seen[800] = {false};
	size_t bits = 0;

	decide("loss 0%", 1, FATE_UP, FRAME_UDP, decisions, MANY);
	CHECK_EQ(count_result(decisions, MANY, FATE_LOST), 0);
	decide("loss 100%", 1, FATE_UP, FRAME_UDP, decisions, MANY);
	CHECK_EQ(count_result(decisions, MANY, FATE_LOST), MANY);
	/*
	 * Exact, as they are the same everywhere; 4 sigma from the mean at most, as they are
	 * random.
	 */
	decide("loss 5%", 1, FATE_UP, FRAME_UDP, decisions, MANY);
	CHECK_EQ(count_result(decisions, MANY, FATE_LOST), 4918);
	CHECK(4918 > 5000 - 4 * 69 && 4918 < 5000 + 4 * 69);
	decide("duplicate 10% corrupt 20%", 1, FATE_DOWN, FRAME_RAW, decisions, MANY);
	for (size_t i = 0; i < MANY; i++) {
		copies += decisions[i].copies;
		corrupted += decisions[i].corrupted;
		if (!decisions[i].corrupted)
			continue;
		CHECK(decisions[i].corrupt_bit < 800);
		low += decisions[i].corrupt_bit < 400;
		bits += !seen[decisions[i].corrupt_bit % 800];
		seen[decisions[i].corrupt_bit % 800] = true;
	}
	CHECK_EQ(copies, 9955);
	CHECK(9955 > 10000 - 4 * 95 && 9955 < 10000 + 4 * 95);
	CHECK_EQ(corrupted, 19870);
	CHECK(19870 > 20000 - 4 * 127 && 19870 < 20000 + 4 * 127);
	CHECK_EQ(bits, 800);
	CHECK(low > corrupted / 2 - 4 * 71 && low < corrupted / 2 + 4 * 71);
}

static void test_nothing_to_corrupt(void)
{
	const struct fate_spec spec = parse("corrupt 100%");
	const struct frame_info arp = {.class = FRAME_ARP};
	struct fate_decision fated;
	struct fate fate;

	fate_init(&fate, 1, FATE_UP);
	fate_set(&fate, &spec);
	fate_decide(&fate, &arp, &fated);
	CHECK_EQ(fated.result, FATE_DELIVERED);
	CHECK(!fated.corrupted);
}

/* Gilbert's model: of all p / (p + r) are lost, in bursts of 1 / r on average. */
static void test_gemodel(void)
{
	size_t lost, bursts = 0;

	decide("loss gemodel 2% 25%", 3, FATE_UP, FRAME_UDP, decisions, MANY);
	lost = count_result(decisions, MANY, FATE_LOST);
	for (size_t i = 0; i < MANY; i++)
		bursts += decisions[i].result == FATE_LOST &&
			  (i == 0 || decisions[i - 1].result != FATE_LOST);
	CHECK_EQ(lost, 7421);
	CHECK_EQ(bursts, 1812);
	CHECK((double)lost / MANY > 0.069 && (double)lost / MANY < 0.079); /* 0.0741 */
	CHECK((double)lost / (double)bursts > 3.8 && (double)lost / (double)bursts < 4.2); /* 4 */

	/* The state before the packet counts, so the first is in the good one whatever p is. */
	decide("loss gemodel 100% 0%", 3, FATE_UP, FRAME_UDP, decisions, 100);
	CHECK_EQ(decisions[0].result, FATE_DELIVERED);
	CHECK_EQ(count_result(decisions, 100, FATE_LOST), 99);
	CHECK_EQ(decisions[1].cause, FATE_CAUSE_BAD);
	decide("loss gemodel 100% 100%", 3, FATE_UP, FRAME_UDP, decisions, 100);
	for (size_t i = 0; i < 100; i++)
		CHECK_EQ(decisions[i].result, i % 2 ? FATE_LOST : FATE_DELIVERED);
	/* 1-h and 1-k: 1 - h is how likely loss is in the bad state, 1 - k in the good one. */
	decide("loss gemodel 100% 0% 0% 100%", 3, FATE_UP, FRAME_UDP, decisions, 100);
	CHECK_EQ(decisions[0].result, FATE_LOST);
	CHECK_EQ(decisions[0].cause, FATE_CAUSE_GOOD);
	CHECK_EQ(count_result(decisions, 100, FATE_LOST), 1);
	decide("loss gemodel 10% 30% 60% 1%", 3, FATE_UP, FRAME_UDP, decisions, MANY);
	lost = count_result(decisions, MANY, FATE_LOST);
	CHECK((double)lost / MANY > 0.150 &&
		(double)lost / MANY < 0.165); /* .25 * .6 + .75 * .01 */
	/* p alone: Bernoulli, at rate p. */
	decide("loss gemodel 20%", 3, FATE_UP, FRAME_UDP, decisions, MANY);
	lost = count_result(decisions, MANY, FATE_LOST);
	CHECK(lost > 20000 - 4 * 127 && lost < 20000 + 4 * 127);
}

/* One chain for each class: another class's packets do not move it, and a new run puts it back. */
static void test_gemodel_chains(void)
{
	const struct fate_spec spec = parse("loss gemodel 10% 10%");
	const struct frame_info udp = packet(FRAME_UDP), tcp = packet(FRAME_TCP);
	struct fate_decision fated;
	struct fate fate;

	decide("loss gemodel 10% 10% delay 1ms block udp", 9, FATE_UP, FRAME_RAW, others, 1000);
	decide("loss gemodel 10% 10%", 9, FATE_UP, FRAME_UDP, decisions, 1000);
	CHECK(differences(decisions, others, 1000) > 300);
	fate_init(&fate, 9, FATE_UP);
	fate_set(&fate, &spec);
	for (int run = 0; run < 2; run++) {
		for (size_t i = 0; i < 999; i++) {
			fate_decide(&fate, &tcp, &fated);
			fate_decide(&fate, &udp, &fated);
			CHECK_EQ(fated.result, decisions[i].result);
			/* The same model over again: no change. */
			fate_set(&fate, &spec);
		}
		fate_reset(&fate, 9);
	}
}

static void test_jitter(void)
{
	int64_t lowest = INT64_MAX, highest = 0;
	double sum = 0, squares = 0;
	size_t within[3] = {0};

	decide("delay 20ms", 5, FATE_UP, FRAME_UDP, decisions, 100);
	CHECK_EQ(decisions[99].delay_ns, 20000000);
	decide("delay 20ms 5ms", 5, FATE_UP, FRAME_UDP, decisions, MANY);
	for (size_t i = 0; i < MANY; i++) {
		int64_t delay_ns = decisions[i].delay_ns;

		lowest = delay_ns < lowest ? delay_ns : lowest;
		highest = delay_ns > highest ? delay_ns : highest;
		sum += (double)delay_ns;
		within[0] += delay_ns < 17500000;
	}
	CHECK(lowest >= 15000000 && lowest < 15001000);
	CHECK(highest <= 25000000 && highest > 24999000);
	CHECK(sum / MANY > 20e6 - 4 * 9130 && sum / MANY < 20e6 + 4 * 9130);
	CHECK(within[0] > 25000 - 4 * 137 && within[0] < 25000 + 4 * 137);

	/* Normal: mean, variance, and the shares within 1, 2 and 3 sigma. */
	decide("delay 20ms 5ms distribution normal", 5, FATE_UP, FRAME_UDP, decisions, MANY);
	memset(within, 0, sizeof(within));
	for (size_t i = 0; i < MANY; i++) {
		double z = ((double)decisions[i].delay_ns - 20e6) / 5e6;

		squares += z * z;
		for (int k = 0; k < 3; k++)
			within[k] += z > -(k + 1) && z < k + 1;
	}
	CHECK(squares / MANY > 0.98 && squares / MANY < 1.02);
	CHECK(within[0] > 67300 && within[0] < 68900); /* 68.3 % */
	CHECK(within[1] > 95200 && within[1] < 95800); /* 95.4 % */
	CHECK(within[2] > 99600 && within[2] < 99900); /* 99.7 % */

	/* Never below nothing. */
	decide("delay 1ms 5ms", 5, FATE_UP, FRAME_UDP, decisions, 1000);
	lowest = INT64_MAX;
	for (size_t i = 0; i < 1000; i++)
		lowest = decisions[i].delay_ns < lowest ? decisions[i].delay_ns : lowest;
	CHECK_EQ(lowest, 0);
	/* The largest that may be said. */
	decide("delay 3600s 3600s distribution normal", 5, FATE_UP, FRAME_UDP, decisions, MANY);
	for (size_t i = 0; i < MANY; i++)
		CHECK(decisions[i].delay_ns >= 0 &&
			decisions[i].delay_ns <= INT64_C(3600000000000) * 7);
}

static void test_reorder(void)
{
	size_t ahead = 0;

	decide("delay 10ms reorder 100% gap 5", 5, FATE_UP, FRAME_UDP, decisions, 1000);
	for (size_t i = 0; i < 1000; i++) {
		CHECK_EQ(decisions[i].ahead, i % 5 == 4);
		CHECK_EQ(decisions[i].delay_ns, i % 5 == 4 ? 0 : 10000000);
	}
	decide("delay 10ms reorder 25%", 5, FATE_UP, FRAME_UDP, decisions, MANY);
	for (size_t i = 0; i < MANY; i++)
		ahead += decisions[i].ahead;
	CHECK(ahead > 25000 - 4 * 137 && ahead < 25000 + 4 * 137);
	/* With a gap, at least gap - 1 keep their place after each. */
	decide("delay 10ms reorder 50% gap 4", 5, FATE_UP, FRAME_UDP, decisions, MANY);
	ahead = 0;
	for (size_t i = 0; i < MANY; i++) {
		ahead += decisions[i].ahead;
		for (size_t j = 1; decisions[i].ahead && j < 4; j++)
			CHECK(i >= 3 && !decisions[i - j].ahead);
	}
	CHECK(ahead > 19500 && ahead < 20500); /* one in 3 + 2 */
	/* Loss does not move the gap. */
	decide("delay 10ms reorder 50% gap 4 loss 30%", 5, FATE_UP, FRAME_UDP, others, MANY);
	for (size_t i = 0; i < MANY; i++)
		if (others[i].result == FATE_DELIVERED)
			CHECK_EQ(others[i].ahead, decisions[i].ahead);
}

static void test_drop(void)
{
	const struct fate_spec spec =
		parse("drop syn:1 drop data:3,5-6 drop ack:2 drop tcp:100-1000000");
	const struct frame_info syn = {
		.class = FRAME_TCP, .drops = 1u << FRAME_DROP_SYN | 1u << FRAME_DROP_TCP};
	const struct frame_info data = {
		.class = FRAME_TCP, .drops = 1u << FRAME_DROP_DATA | 1u << FRAME_DROP_TCP};
	const struct frame_info ack = {
		.class = FRAME_TCP, .drops = 1u << FRAME_DROP_ACK | 1u << FRAME_DROP_TCP};
	struct fate_decision fated;
	struct fate fate;
	char text[FATE_EXPLAIN_BYTES], got[9] = "";

	fate_init(&fate, 1, FATE_UP);
	fate_set(&fate, &spec);
	fate_decide(&fate, &syn, &fated);
	CHECK_EQ(fated.result, FATE_DROPPED);
	check_text("explain", fate_explain(&fated, text), "dropped: syn 1", __LINE__);
	fate_decide(&fate, &syn, &fated);
	CHECK_EQ(fated.result, FATE_DELIVERED);
	for (int i = 0; i < 8; i++) {
		struct fate_decision between;

		fate_decide(&fate, &data, &fated);
		got[i] = fated.result == FATE_DROPPED ? 'x' : '.';
		if (i == 5)
			check_text(
				"explain", fate_explain(&fated, text), "dropped: data 6", __LINE__);
		fate_decide(&fate, &ack, &between);
		CHECK_EQ(between.result, i == 1 ? FATE_DROPPED : FATE_DELIVERED);
	}
	check_text("data", got, "..x.xx..", __LINE__);
	for (int i = 19; i <= 101; i++) {
		fate_decide(&fate, &syn, &fated);
		CHECK_EQ(fated.result, i >= 100 ? FATE_DROPPED : FATE_DELIVERED);
	}
}

static enum fate_result wall(
	const char *text, enum fate_direction direction, struct frame_info info, const char *why)
{
	const struct fate_spec spec = parse(text);
	char said[FATE_EXPLAIN_BYTES];
	struct fate_decision fated;
	struct fate fate;

	fate_init(&fate, 1, direction);
	fate_set(&fate, &spec);
	fate_decide(&fate, &info, &fated);
	check_text(text, fate_explain(&fated, said), why, __LINE__);
	CHECK_EQ(fated.rejected, strncmp(why, "rejected", 8) == 0);
	return (enum fate_result)fated.result;
}

static void test_firewall(void)
{
	const struct frame_info to_80 = {
		.class = FRAME_TCP, .has_ports = true, .sport = 40000, .dport = 80};
	const struct frame_info from_80 = {
		.class = FRAME_TCP, .has_ports = true, .sport = 80, .dport = 40000};
	const struct frame_info dns = {
		.class = FRAME_UDP, .has_ports = true, .sport = 40000, .dport = 53};
	const struct frame_info stub = {.class = FRAME_TCP};
	const struct frame_info ping = {.class = FRAME_ICMP};
	const struct frame_info arp = {.class = FRAME_ARP};
	const struct frame_info other = {.class = FRAME_OTHER};
	const struct frame_info tail = {
		.class = FRAME_FRAG, .ip_version = 4, .has_protocol = true, .protocol = 17};
	const struct frame_info tail6 = {
		.class = FRAME_FRAG, .ip_version = 6, .has_protocol = true, .protocol = 58};

	CHECK_EQ(wall("block tcp:80", FATE_UP, to_80, "blocked: tcp:80"), FATE_BLOCKED);
	CHECK_EQ(wall("block tcp:80", FATE_DOWN, to_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("block tcp:80", FATE_DOWN, from_80, "blocked: tcp:80"), FATE_BLOCKED);
	CHECK_EQ(wall("block tcp:80", FATE_UP, from_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("block tcp:81", FATE_UP, to_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("block tcp:80", FATE_UP, stub, ""), FATE_DELIVERED);
	CHECK_EQ(wall("block tcp", FATE_UP, stub, "blocked: tcp"), FATE_BLOCKED);
	CHECK_EQ(wall("block udp", FATE_UP, to_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("reject udp:53", FATE_UP, dns, "rejected: udp:53"), FATE_BLOCKED);
	CHECK_EQ(wall("reject icmp block icmp", FATE_UP, ping, "rejected: icmp"), FATE_BLOCKED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, to_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:80", FATE_DOWN, from_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, dns, "blocked: not allowed"), FATE_BLOCKED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, ping, "blocked: not allowed"), FATE_BLOCKED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, other, "blocked: not allowed"), FATE_BLOCKED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, stub, "blocked: not allowed"), FATE_BLOCKED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, arp, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:80 allow udp:53", FATE_UP, dns, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:80 reject tcp", FATE_UP, to_80, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:22 reject tcp", FATE_UP, to_80, "rejected: tcp"), FATE_BLOCKED);
	/* Fragments behind the first show no port. */
	CHECK_EQ(wall("block udp", FATE_UP, tail, "blocked: udp"), FATE_BLOCKED);
	CHECK_EQ(wall("block tcp", FATE_UP, tail, ""), FATE_DELIVERED);
	CHECK_EQ(wall("block udp:53", FATE_UP, tail, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow udp:53", FATE_UP, tail, ""), FATE_DELIVERED);
	CHECK_EQ(wall("allow tcp:80", FATE_UP, tail, "blocked: not allowed"), FATE_BLOCKED);
	CHECK_EQ(wall("block icmp", FATE_UP, tail6, "blocked: icmp"), FATE_BLOCKED);
}

/* blocked > dropped > lost; what dies has nothing else. */
static void test_precedence(void)
{
	decide("loss 100% drop udp:1 duplicate 100% corrupt 100% delay 1ms reorder 100%", 1,
		FATE_UP, FRAME_UDP, decisions, 2);
	CHECK_EQ(decisions[0].result, FATE_DROPPED);
	CHECK_EQ(decisions[1].result, FATE_LOST);
	for (int i = 0; i < 2; i++)
		CHECK(decisions[i].copies == 0 && !decisions[i].corrupted && !decisions[i].ahead &&
			decisions[i].delay_ns == 0);
	decide("loss 100% drop udp:1 block udp", 1, FATE_UP, FRAME_UDP, decisions, 1);
	CHECK_EQ(decisions[0].result, FATE_BLOCKED);
}

static void test_explain(void)
{
	struct fate_decision fated = {.result = FATE_LOST,
		.cause = FATE_CAUSE_RANDOM,
		.draw = 0.012,
		.probability = 0.05};
	char text[FATE_EXPLAIN_BYTES];

	check_text("lost", fate_explain(&fated, text), "lost: draw 0.012 < 0.05", __LINE__);
	fated.cause = FATE_CAUSE_BAD;
	check_text("bad", fate_explain(&fated, text), "lost: gemodel bad, draw 0.012 < 0.05",
		__LINE__);
	fated.cause = FATE_CAUSE_GOOD;
	check_text("good", fate_explain(&fated, text), "lost: gemodel good, draw 0.012 < 0.05",
		__LINE__);
	fated = (struct fate_decision){.result = FATE_QUEUE, .limit = 10};
	check_text("queue", fate_explain(&fated, text), "queue: limit 10", __LINE__);
	fated = (struct fate_decision){.result = FATE_DELIVERED};
	check_text("clean", fate_explain(&fated, text), "", __LINE__);
	fated.copies = 1;
	check_text("copy", fate_explain(&fated, text), "duplicated", __LINE__);
	fated.corrupted = true;
	fated.corrupt_bit = 17;
	check_text("corrupt", fate_explain(&fated, text),
		"duplicated; corrupted: bit 17 behind the IP header", __LINE__);
	fated.ahead = true;
	check_text("all", fate_explain(&fated, text),
		"sent ahead; duplicated; corrupted: bit 17 behind the IP header", __LINE__);
	/* The loss that was drawn is the one that is told. */
	decide("loss 5%", 7, FATE_UP, FRAME_UDP, decisions, 1000);
	for (int i = 0; i < 1000; i++)
		if (decisions[i].result == FATE_LOST)
			CHECK(decisions[i].draw < 0.05 && decisions[i].draw >= 0);
}

int main(void)
{
	test_good_specs();
	test_bad_specs();
	test_full_specs();
	test_random_specs();
	test_known_answers();
	test_key();
	test_independence();
	test_rates();
	test_nothing_to_corrupt();
	test_gemodel();
	test_gemodel_chains();
	test_jitter();
	test_reorder();
	test_drop();
	test_firewall();
	test_precedence();
	test_explain();
	return check_failures != 0;
}
