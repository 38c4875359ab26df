/*
 * What is in a frame: every kind that is told apart, every way to be cut short or lied to, and the
 * answers of a closed port.
 */
#include "common/wire/frame.h"

#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/message.h"
#include "tests/unit/check.h"

enum { ETHERNET = 14, V4 = 20, V6 = 40 };

static uint8_t bytes[2048];
static struct frame_info info;

static void put16(size_t at, unsigned int value)
{
	bytes[at] = (uint8_t)(value >> 8);
	bytes[at + 1] = (uint8_t)value;
}

static void put32(size_t at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

/* Parses from a block of exactly that size, so that ASan sees a byte read past it. */
static void parse(size_t length)
{
	uint8_t *exact = malloc(length > 0 ? length : 1);

	memcpy(exact, bytes, length);
	frame_parse(exact, length, &info);
	free(exact);
}

static void ethernet(unsigned int type)
{
	static const uint8_t macs[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, macs, sizeof(macs));
	put16(12, type);
}

/*
 * An IPv4 packet from 10.0.0.1 to 10.0.0.2 with so much behind its header; returns where that
 * begins.
 */
static size_t ipv4(uint8_t protocol, size_t body)
{
	static const uint8_t addresses[] = {10, 0, 0, 1, 10, 0, 0, 2};

	ethernet(0x0800);
	bytes[ETHERNET] = 0x45;
	put16(ETHERNET + 2, (unsigned int)(V4 + body));
	put16(ETHERNET + 4, 0x1234);
	put16(ETHERNET + 6, 0x4000);
	bytes[ETHERNET + 8] = 64;
	bytes[ETHERNET + 9] = protocol;
	memcpy(bytes + ETHERNET + 12, addresses, sizeof(addresses));
	return ETHERNET + V4;
}

/* The same from fd00::1 to fd00::2. */
static size_t ipv6(uint8_t next, size_t body)
{
	ethernet(0x86dd);
	bytes[ETHERNET] = 0x60;
	put16(ETHERNET + 4, (unsigned int)body);
	bytes[ETHERNET + 6] = next;
	bytes[ETHERNET + 7] = 64;
	bytes[ETHERNET + 8] = bytes[ETHERNET + 24] = 0xfd;
	bytes[ETHERNET + 23] = 1;
	bytes[ETHERNET + 39] = 2;
	return ETHERNET + V6;
}

static void tcp(size_t at, uint8_t flags)
{
	put16(at, 40000);
	put16(at + 2, 80);
	put32(at + 4, 0xfffffff0);
	put32(at + 8, 0x01020304);
	bytes[at + 12] = 0x50;
	bytes[at + 13] = flags;
}

static size_t message(size_t at)
{
	const struct message m = {.length = 64,
		.flow = 0xabcd0002,
		.kind = MESSAGE_REQUEST,
		.seq = UINT64_C(0x1122334455667788)};

	message_encode(bytes + at, &m);
	return 64;
}

static void check_message(void)
{
	CHECK(info.has_message);
	CHECK_EQ(info.message_flow, 0xabcd0002);
	CHECK_EQ(info.message_kind, MESSAGE_REQUEST);
	CHECK_EQ(info.message_seq, 0x1122334455667788);
}

static unsigned int set(enum frame_drop a, enum frame_drop b)
{
	return 1u << a | 1u << b;
}

/* ---- what is in it ---- */

static void test_tcp(void)
{
	static const struct {
		uint8_t flags;
		size_t payload;
		unsigned int drops;
		const char *text;
	} segments[] = {
		{FRAME_FLAG_SYN, 0, 1u << FRAME_DROP_SYN, "S"},
		{FRAME_FLAG_SYN | FRAME_FLAG_ECE | FRAME_FLAG_CWR, 0, 1u << FRAME_DROP_SYN, "SEC"},
		{FRAME_FLAG_SYN | FRAME_FLAG_ACK, 0, 1u << FRAME_DROP_SYNACK, "SA"},
		{FRAME_FLAG_ACK, 0, 1u << FRAME_DROP_ACK, "A"},
		{FRAME_FLAG_ACK | FRAME_FLAG_URG, 0, 1u << FRAME_DROP_ACK, "AU"},
		{FRAME_FLAG_ACK, 10, 1u << FRAME_DROP_DATA, "A"},
		{FRAME_FLAG_PSH | FRAME_FLAG_ACK, 1, 1u << FRAME_DROP_DATA, "PA"},
		{FRAME_FLAG_FIN | FRAME_FLAG_ACK, 0, 1u << FRAME_DROP_FIN, "FA"},
		{FRAME_FLAG_FIN | FRAME_FLAG_ACK, 9, 1u << FRAME_DROP_FIN | 1u << FRAME_DROP_DATA,
			"FA"},
		{FRAME_FLAG_SYN, 9, 1u << FRAME_DROP_SYN | 1u << FRAME_DROP_DATA, "S"},
		{FRAME_FLAG_RST, 0, 1u << FRAME_DROP_RST, "R"},
		{FRAME_FLAG_RST | FRAME_FLAG_ACK, 0, 1u << FRAME_DROP_RST, "RA"},
		{0, 0, 0, ""},
		{0xff, 0, 1u << FRAME_DROP_SYNACK | 1u << FRAME_DROP_FIN | 1u << FRAME_DROP_RST,
			"SFRPAUEC"},
	};

	for (size_t i = 0; i < 2 * sizeof(segments) / sizeof(segments[0]); i++) {
		size_t n = i / 2, body = 20 + segments[n].payload;
		size_t at = i % 2 ? ipv6(6, body) : ipv4(6, body);
		char text[FRAME_FLAGS_TEXT];

		tcp(at, segments[n].flags);
		parse(at + body);
		CHECK_EQ(info.class, FRAME_TCP);
		CHECK_EQ(info.drops, segments[n].drops | 1u << FRAME_DROP_TCP);
		CHECK_EQ(info.ip_version, i % 2 ? 6 : 4);
		CHECK(info.has_protocol && info.protocol == 6);
		CHECK(info.has_ports && info.sport == 40000 && info.dport == 80);
		CHECK(info.has_tcp && info.tcp_seq == 0xfffffff0 && info.tcp_ack == 0x01020304);
		CHECK_EQ(info.tcp_flags, segments[n].flags);
		CHECK_EQ(info.payload_length, segments[n].payload);
		CHECK_EQ(info.payload_offset, at + 20);
		CHECK_EQ(info.body_offset, at);
		CHECK_EQ(info.body_length, body);
		CHECK_EQ(info.has_ip_id, i % 2 == 0);
		CHECK(!info.has_message);
		CHECK(strcmp(frame_flags_text(info.tcp_flags, text), segments[n].text) == 0);
	}
}

static void test_tcp_cut_short(void)
{
	size_t at = ipv4(6, 40);

	tcp(at, FRAME_FLAG_ACK);
	bytes[at + 12] = 0xa0;
	parse(at + 40);
	CHECK(info.has_tcp && info.payload_length == 0); /* all options */
	bytes[at + 12] = 0xb0;
	parse(at + 40);
	CHECK(!info.has_tcp && info.has_ports && info.class == FRAME_TCP);
	CHECK_EQ(info.drops, 1u << FRAME_DROP_TCP);
	bytes[at + 12] = 0x40;
	parse(at + 40);
	CHECK(!info.has_tcp);
	bytes[at + 12] = 0x50;
	parse(at + 19);
	CHECK(!info.has_tcp && info.has_ports && info.body_length == 19);
	parse(at + 3);
	CHECK(!info.has_ports && info.class == FRAME_TCP);
}

static void test_udp(void)
{
	for (int v = 4; v <= 6; v += 2) {
		size_t at = v == 4 ? ipv4(17, 8 + 64) : ipv6(17, 8 + 64);

		put16(at, 5000);
		put16(at + 2, 53);
		message(at + 8);
		parse(at + 8 + 64);
		CHECK_EQ(info.class, FRAME_UDP);
		CHECK_EQ(info.drops, 1u << FRAME_DROP_UDP);
		CHECK(info.has_ports && info.sport == 5000 && info.dport == 53);
		CHECK(info.has_payload && info.payload_offset == at + 8 &&
			info.payload_length == 64);
		check_message();
		/* Padding of a short frame is no payload. */
		parse(at + 8 + 64 + 10);
		CHECK_EQ(info.payload_length, 64);
		CHECK_EQ(info.body_length, 72);
		/* Nor is a message there that is cut short. */
		parse(at + 8 + 47);
		CHECK(!info.has_message && info.payload_length == 47);
		parse(at + 8 + 48);
		check_message();
		parse(at + 7);
		CHECK(info.class == FRAME_UDP && !info.has_payload && info.has_ports);
	}
}

static void test_not_a_message(void)
{
	static const size_t wrong[] = {0, 3, 16, 17};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		size_t at = ipv4(17, 8 + 64) + 8;

		message(at);
		bytes[at + wrong[i]] ^= 0x40;
		parse(at + 64);
		CHECK(!info.has_message);
	}
}

static void test_raw(void)
{
	size_t at = ipv4(253, 64);

	message(at);
	parse(at + 64);
	CHECK_EQ(info.class, FRAME_RAW);
	CHECK_EQ(info.drops, 1u << FRAME_DROP_RAW);
	CHECK(!info.has_ports && info.has_payload);
	CHECK_EQ(info.payload_offset, at);
	CHECK_EQ(info.payload_length, 64);
	CHECK(info.has_ip_id && info.ip_id == 0x1234 && info.frag_offset == 0);
	check_message();
	/* Behind IP options just so. */
	at = ipv4(253, 64 + 8);
	bytes[ETHERNET] = 0x47;
	message(at + 8);
	parse(at + 8 + 64);
	CHECK_EQ(info.body_offset, at + 8);
	CHECK_EQ(info.body_length, 64);
	check_message();
	/* It is IPv4's alone. */
	at = ipv6(253, 64);
	parse(at + 64);
	CHECK_EQ(info.class, FRAME_OTHER);
}

static void test_icmp(void)
{
	size_t at = ipv4(1, 8);

	bytes[at] = 8;
	parse(at + 8);
	CHECK(info.class == FRAME_ICMP && info.drops == 1u << FRAME_DROP_ICMP);
	at = ipv4(58, 8);
	parse(at + 8);
	CHECK(info.class == FRAME_OTHER && info.drops == 0);
	at = ipv6(1, 8);
	parse(at + 8);
	CHECK(info.class == FRAME_OTHER && info.drops == 0);
	for (unsigned int type = 0; type < 256; type++) {
		bool discovery = type >= 133 && type <= 137;
		bool report = (type >= 130 && type <= 132) || type == 143;

		at = ipv6(58, 8);
		bytes[at] = (uint8_t)type;
		parse(at + 8);
		CHECK_EQ(info.class, discovery ? FRAME_ARP : report ? FRAME_OTHER : FRAME_ICMP);
		CHECK_EQ(info.drops, discovery || report ? 0 : 1u << FRAME_DROP_ICMP);
	}
	parse(at);
	CHECK_EQ(info.class, FRAME_ICMP);
}

static void test_fragments(void)
{
	size_t at = ipv4(17, 100);

	/*
	 * The first is what it is; those behind it are fragments, whatever their bytes look like.
	 */
	put16(ETHERNET + 6, 0x2000);
	message(at + 8);
	parse(at + 100);
	CHECK(info.class == FRAME_UDP && info.has_ports && info.payload_length == 92);
	check_message();
	put16(ETHERNET + 6, 0x2000 | 13);
	parse(at + 100);
	CHECK(info.class == FRAME_FRAG && !info.has_ports && !info.has_payload && info.drops == 0);
	CHECK(info.has_protocol && info.protocol == 17);
	CHECK(info.has_ip_id && info.ip_id == 0x1234 && info.frag_offset == 104);
	CHECK_EQ(info.body_length, 100);
	put16(ETHERNET + 6, 0x1fff);
	parse(at + 100);
	CHECK(info.class == FRAME_FRAG && info.frag_offset == 65528);

	at = ipv6(44, 108);
	bytes[at] = 17;
	put32(at + 4, 0xdeadbeef);
	put16(at + 2, 1);
	put16(at + 8, 5000);
	parse(at + 108);
	CHECK(info.class == FRAME_UDP && info.sport == 5000 && info.frag_offset == 0);
	CHECK(info.has_ip_id && info.ip_id == 0xdeadbeef);
	CHECK(info.body_offset == at + 8 && info.body_length == 100);
	put16(at + 2, 104 | 1);
	parse(at + 108);
	CHECK(info.class == FRAME_FRAG && info.frag_offset == 104 && info.protocol == 17);
	CHECK(!info.has_ports && info.drops == 0);
}

static void test_extensions(void)
{
	static const uint8_t kinds[] = {0, 43, 60, 135, 139, 140};
	size_t at = ipv6(0, 0), end = at;

	/* One of each kind, of several lengths, and UDP behind them. */
	for (size_t i = 0; i < sizeof(kinds); i++) {
		bytes[end] = i + 1 < sizeof(kinds) ? kinds[i + 1] : 51;
		bytes[end + 1] = (uint8_t)i;
		end += (i + 1) * 8;
	}
	bytes[end] = 17;
	bytes[end + 1] = 2;
	end += 16;
	put16(end + 2, 53);
	put16(ETHERNET + 4, (unsigned int)(end + 8 - at));
	parse(end + 8);
	CHECK(info.class == FRAME_UDP && info.dport == 53 && info.body_offset == end);
	/* Cut anywhere, it is what can still be known. */
	for (size_t length = 0; length < end; length++) {
		parse(length);
		CHECK(info.class == FRAME_OTHER && !info.has_ports);
	}
	/* As many as there are: nobody gets past a firewall with one more. */
	for (int n = 8; n <= 120; n++) {
		at = ipv6(60, (size_t)n * 8 + 8);
		for (int i = 0; i < n; i++)
			bytes[at + (size_t)i * 8] = i + 1 < n ? 60 : 17;
		parse(at + (size_t)n * 8 + 8);
		CHECK_EQ(info.class, FRAME_UDP);
	}
	/* No next header, and encryption: who knows. */
	at = ipv6(59, 0);
	parse(at);
	CHECK_EQ(info.class, FRAME_OTHER);
	at = ipv6(50, 40);
	parse(at + 40);
	CHECK_EQ(info.class, FRAME_OTHER);
}

static void test_odd_frames(void)
{
	size_t at;

	for (size_t length = 0; length < ETHERNET; length++) {
		parse(length);
		CHECK(info.class == FRAME_OTHER && info.ip_version == 0);
	}
	ethernet(0x0806);
	parse(ETHERNET);
	CHECK(info.class == FRAME_ARP && info.ip_version == 0 && info.body_length == 0);
	ethernet(0x8100); /* VLAN */
	parse(100);
	CHECK_EQ(info.class, FRAME_OTHER);
	/* Headers that lie. */
	at = ipv4(17, 8);
	bytes[ETHERNET] = 0x65;
	parse(at + 8);
	CHECK(info.class == FRAME_OTHER && info.ip_version == 0);
	bytes[ETHERNET] = 0x44;
	parse(at + 8);
	CHECK_EQ(info.class, FRAME_OTHER);
	bytes[ETHERNET] = 0x4f;
	parse(at + 8);
	CHECK_EQ(info.class, FRAME_OTHER);
	bytes[ETHERNET] = 0x45;
	put16(ETHERNET + 2, 19);
	parse(at + 8);
	CHECK_EQ(info.class, FRAME_OTHER);
	put16(ETHERNET + 2, 65535);
	parse(at + 8);
	CHECK(info.class == FRAME_UDP && info.payload_length == 0 && info.body_length == 8);
	at = ipv6(17, 8);
	bytes[ETHERNET] = 0x45;
	parse(at + 8);
	CHECK(info.class == FRAME_OTHER && info.ip_version == 0);
}

/* ---- the answers ---- */

static uint8_t answer[FRAME_ANSWER_BYTES + 1];

static size_t answer_to(size_t length)
{
	uint8_t *exact = malloc(length > 0 ? length : 1);
	size_t n;

	memcpy(exact, bytes, length);
	frame_parse(exact, length, &info);
	memset(answer, 0xee, sizeof(answer));
	n = frame_answer(exact, length, &info, answer);
	free(exact);
	CHECK(n <= FRAME_ANSWER_BYTES && answer[n] == 0xee);
	return n;
}

/* Does the answer go from there to here, and are its lengths and checksums right? */
static void check_answer(size_t length, uint8_t version, uint8_t protocol)
{
	const uint8_t *ip = answer + ETHERNET;
	size_t header = version == 4 ? V4 : V6;
	uint8_t pseudo[40] = {0};
	uint32_t sum;

	CHECK(memcmp(answer, bytes + 6, 6) == 0 && memcmp(answer + 6, bytes, 6) == 0);
	CHECK(memcmp(answer + 12, bytes + 12, 2) == 0);
	if (version == 4) {
		CHECK_EQ(ip[0], 0x45);
		CHECK_EQ(get16(ip + 2), length - ETHERNET);
		CHECK_EQ(ip[9], protocol);
		CHECK(memcmp(ip + 12, bytes + ETHERNET + 16, 4) == 0);
		CHECK(memcmp(ip + 16, bytes + ETHERNET + 12, 4) == 0);
		CHECK_EQ(checksum_finish(checksum_add(0, ip, V4)), 0);
		memcpy(pseudo, ip + 12, 8);
	} else {
		CHECK_EQ(ip[0] >> 4, 6);
		CHECK_EQ(get16(ip + 4), length - ETHERNET - V6);
		CHECK_EQ(ip[6], protocol);
		CHECK(memcmp(ip + 8, bytes + ETHERNET + 24, 16) == 0);
		CHECK(memcmp(ip + 24, bytes + ETHERNET + 8, 16) == 0);
		memcpy(pseudo, ip + 8, 32);
	}
	pseudo[34] = (uint8_t)((length - ETHERNET - header) >> 8);
	pseudo[35] = (uint8_t)(length - ETHERNET - header);
	pseudo[39] = protocol;
	/* ICMP of IPv4 is the only one without a pseudo-header. */
	sum = protocol == 1 ? 0 : checksum_add(0, pseudo, sizeof(pseudo));
	sum = checksum_add(sum, ip + header, length - ETHERNET - header);
	CHECK_EQ(checksum_finish(sum), 0);
}

static void test_answer_tcp(void)
{
	static const struct {
		uint8_t flags;
		size_t payload;
		uint32_t seq, ack;
		uint8_t answered;
	} segments[] = {
		{FRAME_FLAG_SYN, 0, 0, 0xfffffff1, FRAME_FLAG_RST | FRAME_FLAG_ACK},
		{FRAME_FLAG_SYN, 20, 0, 5, FRAME_FLAG_RST | FRAME_FLAG_ACK},
		{FRAME_FLAG_FIN, 3, 0, 0xfffffff4, FRAME_FLAG_RST | FRAME_FLAG_ACK},
		{0, 0, 0, 0xfffffff0, FRAME_FLAG_RST | FRAME_FLAG_ACK},
		{FRAME_FLAG_ACK, 0, 0x01020304, 0, FRAME_FLAG_RST},
		{FRAME_FLAG_ACK | FRAME_FLAG_PSH, 7, 0x01020304, 0, FRAME_FLAG_RST},
		{FRAME_FLAG_SYN | FRAME_FLAG_ACK, 0, 0x01020304, 0, FRAME_FLAG_RST},
	};

	for (size_t i = 0; i < 2 * sizeof(segments) / sizeof(segments[0]); i++) {
		size_t n = i / 2, body = 20 + segments[n].payload;
		size_t at = i % 2 ? ipv6(6, body) : ipv4(6, body), length;
		const uint8_t *reset = answer + at;

		tcp(at, segments[n].flags);
		length = answer_to(at + body);
		CHECK_EQ(length, at + 20);
		check_answer(length, i % 2 ? 6 : 4, 6);
		CHECK_EQ(get16(reset), 80);
		CHECK_EQ(get16(reset + 2), 40000);
		CHECK_EQ(get32(reset + 4), segments[n].seq);
		CHECK_EQ(get32(reset + 8), segments[n].ack);
		CHECK_EQ(reset[12], 0x50);
		CHECK_EQ(reset[13], segments[n].answered);
		tcp(at, (uint8_t)(segments[n].flags | FRAME_FLAG_RST));
		CHECK_EQ(answer_to(at + body), 0);
	}
}

static void test_answer_icmp(void)
{
	size_t at, length;

	for (size_t payload = 0; payload <= 1400; payload += 175) {
		size_t quote = 20 + 8 + payload < 548 ? 20 + 8 + payload : 548;

		at = ipv4(17, 8 + payload);
		length = answer_to(at + 8 + payload);
		CHECK_EQ(length, at + 8 + quote);
		check_answer(length, 4, 1);
		CHECK(answer[at] == 3 && answer[at + 1] == 3);
		CHECK(memcmp(answer + at + 8, bytes + ETHERNET, quote) == 0);

		at = ipv6(17, 8 + payload);
		quote = 40 + 8 + payload < 1232 ? 40 + 8 + payload : 1232;
		length = answer_to(at + 8 + payload);
		CHECK_EQ(length, at + 8 + quote);
		check_answer(length, 6, 58);
		CHECK(answer[at] == 1 && answer[at + 1] == 4);
		CHECK(memcmp(answer + at + 8, bytes + ETHERNET, quote) == 0);
	}
	at = ipv4(253, 64);
	length = answer_to(at + 64);
	check_answer(length, 4, 1);
	CHECK(answer[at] == 3 && answer[at + 1] == 2);
	/* Padding is not quoted. */
	CHECK_EQ(answer_to(at + 64 + 20), length);
}

static void test_no_answer(void)
{
	size_t at;

	for (unsigned int type = 0; type < 256; type++) {
		bool error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;

		at = ipv4(1, 8);
		bytes[at] = (uint8_t)type;
		CHECK_EQ(answer_to(at + 8) == 0, error);
		at = ipv6(58, 8);
		bytes[at] = (uint8_t)type;
		CHECK_EQ(answer_to(at + 8) == 0,
			type < 128 || (type >= 130 && type <= 137) || type == 143);
	}
	at = ipv4(1, 0);
	CHECK_EQ(answer_to(at), 0);
	at = ipv4(17, 100);
	put16(ETHERNET + 6, 13);
	CHECK_EQ(answer_to(at + 100), 0);
	at = ipv4(6, 10);
	CHECK_EQ(answer_to(at + 10), 0);
	ethernet(0x0806);
	CHECK_EQ(answer_to(42), 0);
	CHECK_EQ(answer_to(3), 0);
	/* To all, to many, from nobody. */
	for (int i = 0; i < 10; i++) {
		at = i < 6 ? ipv4(17, 8) : ipv6(17, 8);
		if (i == 0)
			bytes[0] = 0xff;
		if (i == 1)
			bytes[ETHERNET + 16] = 224;
		if (i == 2)
			memset(bytes + ETHERNET + 16, 255, 4);
		if (i == 3)
			memset(bytes + ETHERNET + 12, 0, 4);
		if (i == 4)
			bytes[ETHERNET + 12] = 127;
		if (i == 5)
			bytes[ETHERNET + 12] = 239;
		if (i == 6)
			bytes[ETHERNET + 24] = 0xff;
		if (i == 7)
			memset(bytes + ETHERNET + 8, 0, 16);
		if (i == 8)
			bytes[ETHERNET + 8] = 0xff;
		if (i == 9)
			bytes[0] |= 1;
		CHECK_EQ(answer_to(at + 8), 0);
	}
}

/* ---- any bytes ---- */

/* What must hold of any frame, whatever it says. */
static void check_bounds(size_t length)
{
	CHECK(info.class < FRAME_CLASSES && info.drops < 1u << FRAME_DROPS);
	CHECK(info.body_offset + info.body_length <= length);
	CHECK(!info.has_payload || info.payload_offset + info.payload_length <= length);
	CHECK(!info.has_tcp || (info.has_ports && info.has_payload && info.class == FRAME_TCP));
	CHECK(!info.has_ports || info.class == FRAME_TCP || info.class == FRAME_UDP);
	CHECK(!(info.drops & set(FRAME_DROP_SYN, FRAME_DROP_DATA)) || info.class == FRAME_TCP);
	CHECK_EQ((info.drops >> FRAME_DROP_TCP) & 1, info.class == FRAME_TCP);
	CHECK_EQ((info.drops >> FRAME_DROP_UDP) & 1, info.class == FRAME_UDP);
	CHECK_EQ((info.drops >> FRAME_DROP_ICMP) & 1, info.class == FRAME_ICMP);
	CHECK_EQ((info.drops >> FRAME_DROP_RAW) & 1, info.class == FRAME_RAW);
}

static void test_any_bytes(void)
{
	static const uint8_t protocols[] = {6, 17, 1, 58, 253, 0, 43, 44, 51, 60, 135};
	size_t seen[FRAME_CLASSES] = {0}, answers = 0;

	srand(4);
	for (int round = 0; round < 100000; round++) {
		uint8_t protocol = protocols[(size_t)rand() % sizeof(protocols)];
		size_t body = (size_t)rand() % 200, at, length;

		at = round % 3 == 0 ? ipv4(protocol, body) : ipv6(protocol, body);
		for (size_t i = at; i < at + body; i++)
			bytes[i] = rand() % 3 ? (uint8_t)rand()
					      : protocols[(size_t)rand() % sizeof(protocols)];
		if (rand() % 4 == 0)
			message(at + (size_t)rand() % 64);
		for (int i = rand() % 4; i > 0; i--)
			bytes[(size_t)rand() % (at + 1)] = (uint8_t)rand();
		length = rand() % 2 ? at + body : (size_t)rand() % (at + body + 1);
		answers += answer_to(length) > 0;
		check_bounds(length);
		seen[info.class]++;
	}
	for (int i = 0; i < FRAME_CLASSES; i++)
		CHECK(seen[i] > 100 || i == FRAME_ARP);
	CHECK(answers > 1000);
	for (int round = 0; round < 50000; round++) {
		size_t length = (size_t)rand() % 128;

		for (size_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)rand();
		answer_to(length);
		check_bounds(length);
	}
}

static void test_names(void)
{
	CHECK(strcmp(frame_class_name(FRAME_TCP), "tcp") == 0);
	CHECK(strcmp(frame_class_name(FRAME_OTHER), "other") == 0);
	CHECK(strcmp(frame_drop_name(FRAME_DROP_SYN), "syn") == 0);
	CHECK(strcmp(frame_drop_name(FRAME_DROP_RAW), "raw") == 0);
}

int main(void)
{
	test_tcp();
	test_tcp_cut_short();
	test_udp();
	test_not_a_message();
	test_raw();
	test_icmp();
	test_fragments();
	test_extensions();
	test_odd_frames();
	test_answer_tcp();
	test_answer_icmp();
	test_no_answer();
	test_any_bytes();
	test_names();
	return check_failures != 0;
}
