#include "common/message.h"

#include <pthread.h>
#include <string.h>

enum {
	AT_MAGIC = 0,
	AT_LENGTH = 4,
	AT_CLOCK_ID = 8,
	AT_FLOW = 12,
	AT_VERSION = 16,
	AT_KIND = 17,
	AT_ZERO = 18,
	AT_CRC = 20,
	AT_SEQ = 24,
	AT_DUE = 32,
	AT_SENT = 40,
};

/*
 * CRC-32C (Castagnoli, RFC 3720 section 12.1), eight bytes at a time: tables[k][b] is what byte b
 * does to the CRC when k more bytes follow it, so that eight look-ups that do not wait for one
 * another do the work of eight that do.
 */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
		tables[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (uint32_t b = 0; b < 256; b++)
			tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 255];
}

static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		crc ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
		crc = tables[7][crc & 255] ^ tables[6][crc >> 8 & 255] ^
		      tables[5][crc >> 16 & 255] ^ tables[4][crc >> 24] ^ tables[3][p[4]] ^
		      tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
	}
	for (; len; p++, len--)
		crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
	return crc;
}

/* Over the whole message as if its CRC field were zero: the field cannot cover itself. */
static uint32_t crc_of(const uint8_t *buf, size_t len)
{
	uint8_t header[MESSAGE_HEADER_BYTES];
	uint32_t crc;

	pthread_once(&tables_once, make_tables);
	memcpy(header, buf, sizeof(header));
	memset(header + AT_CRC, 0, 4);
	crc = crc_add(UINT32_MAX, header, sizeof(header));
	return ~crc_add(crc, buf + sizeof(header), len - sizeof(header));
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

void message_encode(uint8_t *buf, const struct message *m)
{
	memset(buf, 0, MESSAGE_HEADER_BYTES);
	put32(buf + AT_MAGIC, MESSAGE_MAGIC);
	put32(buf + AT_LENGTH, m->length);
	put32(buf + AT_CLOCK_ID, m->clock_id);
	put32(buf + AT_FLOW, m->flow);
	buf[AT_VERSION] = MESSAGE_VERSION;
	buf[AT_KIND] = m->kind;
	put64(buf + AT_SEQ, m->seq);
	put64(buf + AT_DUE, (uint64_t)m->due_ns);
	put64(buf + AT_SENT, (uint64_t)m->sent_ns);
	for (size_t i = MESSAGE_HEADER_BYTES; i < m->length; i++)
		buf[i] = (uint8_t)(m->seq + i);
	put32(buf + AT_CRC, crc_of(buf, m->length));
}

size_t message_length(const uint8_t *header)
{
	uint32_t length = get32(header + AT_LENGTH);

	if (get32(header + AT_MAGIC) != MESSAGE_MAGIC || header[AT_VERSION] != MESSAGE_VERSION)
		return 0;
	return length >= MESSAGE_HEADER_BYTES && length <= MESSAGE_MAX_BYTES ? length : 0;
}

enum message_verdict message_decode(const uint8_t *buf, size_t len, struct message *m)
{
	if (len < MESSAGE_HEADER_BYTES || get32(buf + AT_MAGIC) != MESSAGE_MAGIC)
		return MESSAGE_ALIEN;
	if (get32(buf + AT_LENGTH) != len || get32(buf + AT_CRC) != crc_of(buf, len))
		return MESSAGE_CORRUPT;
	/*
	 * What a right CRC covers was written so: another version or kind is somebody else's, not
	 * damage.
	 */
	if (buf[AT_VERSION] != MESSAGE_VERSION || buf[AT_ZERO] || buf[AT_ZERO + 1] ||
		buf[AT_KIND] < MESSAGE_DATA || buf[AT_KIND] > MESSAGE_REPLY)
		return MESSAGE_ALIEN;
	m->length = (uint32_t)len;
	m->clock_id = get32(buf + AT_CLOCK_ID);
	m->flow = get32(buf + AT_FLOW);
	m->kind = buf[AT_KIND];
	m->seq = get64(buf + AT_SEQ);
	m->due_ns = (int64_t)get64(buf + AT_DUE);
	m->sent_ns = (int64_t)get64(buf + AT_SENT);
	return MESSAGE_OK;
}
