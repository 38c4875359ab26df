#include "common/wire/pcapng.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/options.h"

/* Numbers are in this machine's byte order: the section header's magic tells the reader which. */
enum {
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 6,
	BYTE_ORDER_MAGIC = 0x1a2b3c4d,
	LINKTYPE_ETHERNET = 1,
	OPTION_END = 0,
	OPTION_COMMENT = 1,
	SECTION_APPLICATION = 4,
	INTERFACE_NAME = 2,
	INTERFACE_DESCRIPTION = 3,
	INTERFACE_RESOLUTION = 9,
	PACKET_FLAGS = 2,
	PACKET_ID = 5,
	SNAPLEN = 262144,
	COMMENT_MAX = 4096,
	/* Fixed parts, options and padding of any one block. */
	BLOCK_ROOM = COMMENT_MAX + 256,
};

static void put(struct pcapng *pcapng, const void *data, size_t length)
{
	if (length > 0)
		memcpy(pcapng->buffer + pcapng->used, data, length);
	pcapng->used += length;
}

static void put_padded(struct pcapng *pcapng, const void *data, size_t length)
{
	static const char zero[4];

	put(pcapng, data, length);
	put(pcapng, zero, (4 - length % 4) % 4);
}

static void put_u16(struct pcapng *pcapng, uint16_t value)
{
	put(pcapng, &value, sizeof value);
}

static void put_u32(struct pcapng *pcapng, uint32_t value)
{
	put(pcapng, &value, sizeof value);
}

static void put_option(struct pcapng *pcapng, uint16_t code, const void *data, size_t length)
{
	put_u16(pcapng, code);
	put_u16(pcapng, (uint16_t)length);
	put_padded(pcapng, data, length);
}

static void put_text_option(struct pcapng *pcapng, uint16_t code, const char *text)
{
	size_t length = strnlen(text, COMMENT_MAX);
	put_option(pcapng, code, text, length);
}

/* A block has its length at both ends, so that a file can be read backwards. */
static size_t block_begin(struct pcapng *pcapng, uint32_t type)
{
	size_t at = pcapng->used;

	put_u32(pcapng, type);
	put_u32(pcapng, 0);
	return at;
}

static void block_end(struct pcapng *pcapng, size_t at)
{
	uint32_t length = (uint32_t)(pcapng->used - at + sizeof length);

	put_u32(pcapng, length);
	memcpy(pcapng->buffer + at + sizeof(uint32_t), &length, sizeof length);
}

static void put_interface(struct pcapng *pcapng, const char *name, const char *description)
{
	const uint8_t nanoseconds = 9;
	size_t at = block_begin(pcapng, BLOCK_INTERFACE);

	put_u16(pcapng, LINKTYPE_ETHERNET);
	put_u16(pcapng, 0);
	put_u32(pcapng, SNAPLEN);
	put_text_option(pcapng, INTERFACE_NAME, name);
	put_text_option(pcapng, INTERFACE_DESCRIPTION, description);
	put_option(pcapng, INTERFACE_RESOLUTION, &nanoseconds, sizeof nanoseconds);
	put_option(pcapng, OPTION_END, NULL, 0);
	block_end(pcapng, at);
}

void pcapng_open(struct pcapng *pcapng, int fd, int64_t realtime_offset_ns, const char *comment)
{
	const uint64_t unknown_length = UINT64_MAX;

	pcapng->fd = fd;
	pcapng->error = 0;
	pcapng->used = 0;
	pcapng->realtime_offset_ns = realtime_offset_ns;
	if (fd < 0)
		return;
	size_t at = block_begin(pcapng, BLOCK_SECTION);
	put_u32(pcapng, BYTE_ORDER_MAGIC);
	put_u16(pcapng, 1);
	put_u16(pcapng, 0);
	put(pcapng, &unknown_length, sizeof unknown_length);
	if (comment != NULL && *comment != '\0')
		put_text_option(pcapng, OPTION_COMMENT, comment);
	put_text_option(pcapng, SECTION_APPLICATION, "wire (socklab) " SOCKLAB_VERSION);
	put_option(pcapng, OPTION_END, NULL, 0);
	block_end(pcapng, at);
	put_interface(pcapng, "client", "the client's end of the wire");
	put_interface(pcapng, "server", "the server's end of the wire");
}

int pcapng_flush(struct pcapng *pcapng)
{
	size_t done = 0;

	while (pcapng->fd >= 0 && pcapng->error == 0 && done < pcapng->used) {
		ssize_t n = write(pcapng->fd, pcapng->buffer + done, pcapng->used - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			pcapng->error = errno;
		else
			done += (size_t)n;
	}
	pcapng->used = 0;
	errno = pcapng->error;
	return pcapng->error == 0 ? 0 : -1;
}

int pcapng_close(struct pcapng *pcapng)
{
	int result = pcapng_flush(pcapng);

	if (pcapng->fd >= 0 && close(pcapng->fd) < 0 && result == 0) {
		pcapng->error = errno;
		result = -1;
	}
	pcapng->fd = -1;
	return result;
}

void pcapng_packet(struct pcapng *pcapng, enum pcapng_end end, enum pcapng_direction direction,
	int64_t time_ns, uint64_t id, const uint8_t *bytes, size_t length, const char *comment)
{
	uint64_t time = (uint64_t)(time_ns + pcapng->realtime_offset_ns);
	uint32_t flags = direction;

	if (pcapng->fd < 0)
		return;
	if (pcapng->used + length + BLOCK_ROOM > sizeof pcapng->buffer)
		pcapng_flush(pcapng);
	size_t at = block_begin(pcapng, BLOCK_PACKET);
	put_u32(pcapng, (uint32_t)end);
	put_u32(pcapng, (uint32_t)(time >> 32));
	put_u32(pcapng, (uint32_t)time);
	put_u32(pcapng, (uint32_t)length);
	put_u32(pcapng, (uint32_t)length);
	put_padded(pcapng, bytes, length);
	if (comment != NULL && *comment != '\0')
		put_text_option(pcapng, OPTION_COMMENT, comment);
	put_option(pcapng, PACKET_FLAGS, &flags, sizeof flags);
	put_option(pcapng, PACKET_ID, &id, sizeof id);
	put_option(pcapng, OPTION_END, NULL, 0);
	block_end(pcapng, at);
}
