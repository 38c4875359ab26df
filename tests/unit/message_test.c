/* message: its layout to the byte, its CRC against a slow one, and what damage does to it. */
#include "common/message.h"
#include "tests/unit/check.h"

#include <string.h>

static uint8_t buf[MESSAGE_MAX_BYTES];

static struct message sample(uint32_t length)
{
	return (struct message){.length = length,
		.clock_id = 0x01020304,
		.flow = 0x00070002,
		.kind = MESSAGE_REQUEST,
		.seq = UINT64_C(0x1122334455667788),
		.due_ns = 1000,
		.sent_ns = -2};
}

static void layout_is_as_written(void)
{
	static const uint8_t wanted[20] = {'S', 'L', 'A', 'B', 0, 0, 0, 50, 1, 2, 3, 4, 0, 7, 0, 2,
		MESSAGE_VERSION, MESSAGE_REQUEST, 0, 0};
	struct message m = sample(50);

	message_encode(buf, &m);
	CHECK(memcmp(buf, wanted, sizeof(wanted)) == 0);
	CHECK(memcmp(buf + 24, "\x11\x22\x33\x44\x55\x66\x77\x88", 8) == 0);
	CHECK(memcmp(buf + 32, "\0\0\0\0\0\0\x03\xe8", 8) == 0);
	CHECK(memcmp(buf + 40, "\xff\xff\xff\xff\xff\xff\xff\xfe", 8) == 0);
}

/* CRC-32C bit by bit, from its definition, against the table of message.c. */
static uint32_t slow_crc(const uint8_t *bytes, size_t len)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
	}
	return ~crc;
}

static void crc_is_crc32c(void)
{
	struct message m = sample(333);
	uint32_t got;

	CHECK_EQ(slow_crc((const uint8_t *)"123456789", 9), 0xe3069283); /* the known check value */
	message_encode(buf, &m);
	got = (uint32_t)buf[20] << 24 | (uint32_t)buf[21] << 16 | (uint32_t)buf[22] << 8 | buf[23];
	memset(buf + 20, 0, 4);
	CHECK_EQ(got, slow_crc(buf, 333));
}

static void what_is_written_is_read(void)
{
	static const uint32_t lengths[] = {48, 49, 100, 1472, MESSAGE_MAX_BYTES};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct message m = sample(lengths[i]), back = {0};

		message_encode(buf, &m);
		CHECK_EQ(message_length(buf), lengths[i]);
		CHECK_EQ(message_decode(buf, lengths[i], &back), MESSAGE_OK);
		CHECK_EQ(back.length, m.length);
		CHECK_EQ(back.clock_id, m.clock_id);
		CHECK_EQ(back.flow, m.flow);
		CHECK_EQ(back.kind, m.kind);
		CHECK_EQ(back.seq, m.seq);
		CHECK_EQ(back.due_ns, m.due_ns);
		CHECK_EQ(back.sent_ns, m.sent_ns);
		CHECK_EQ(message_run(&back), 7);
		CHECK_EQ(message_index(&back), 2);
	}
}

/*
 * No single flipped bit goes unnoticed: in the magic it makes an alien, anywhere else a corrupt
 * message.
 */
static void every_flipped_bit_shows(void)
{
	struct message m = sample(64), back;

	message_encode(buf, &m);
	for (size_t bit = 0; bit < 64 * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CHECK_EQ(
			message_decode(buf, 64, &back), bit < 32 ? MESSAGE_ALIEN : MESSAGE_CORRUPT);
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void cut_and_strange_ones_are_told(void)
{
	struct message m = sample(64), back;

	message_encode(buf, &m);
	for (size_t len = 0; len < 64; len++)
		CHECK_EQ(message_decode(buf, len, &back),
			len < 48 ? MESSAGE_ALIEN : MESSAGE_CORRUPT);
	/* A kind that does not exist, under a right CRC, is somebody else's. */
	m.kind = 4;
	message_encode(buf, &m);
	CHECK_EQ(message_decode(buf, 64, &back), MESSAGE_ALIEN);
	m.kind = 0;
	message_encode(buf, &m);
	CHECK_EQ(message_decode(buf, 64, &back), MESSAGE_ALIEN);
	/* A length that a stream must not believe. */
	memset(buf + 4, 0xff, 4);
	CHECK_EQ(message_length(buf), 0);
	memset(buf + 4, 0, 4);
	CHECK_EQ(message_length(buf), 0);
	memset(buf, 0, 4);
	CHECK_EQ(message_length(buf), 0);
}

int main(void)
{
	layout_is_as_written();
	crc_is_crc32c();
	what_is_written_is_read();
	every_flipped_bit_shows();
	cut_and_strange_ones_are_told();
	return check_failures != 0;
}
