/*
 * What is in a frame. See frame.h. Layouts: RFC 791, 8200, 9293, 768, 792, 4443; numbers: IANA's
 * registries.
 */
#include "common/wire/frame.h"

#include <string.h>

#include "common/checksum.h"
#include "common/message.h"

enum {
	ETHERNET_HEADER = 14,
	ETHERTYPE_4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ETHERTYPE_6 = 0x86dd,
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	TCP_HEADER = 20,
	UDP_HEADER = 8,
	ICMP_HEADER = 8,
	/* IP protocols, and what stands in the same field of IPv6 */
	NEXT_HOP_BY_HOP = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_AUTHENTICATION = 51,
	PROTOCOL_ICMP6 = 58,
	NEXT_DESTINATION = 60,
	NEXT_MOBILITY = 135,
	NEXT_HIP = 139,
	NEXT_SHIM6 = 140,
	PROTOCOL_RAW = 253,
	/* What an ICMP error quotes at most keeps the whole within 576 bytes (RFC 1812 4.3.2.3). */
	ICMP4_QUOTE = 576 - IPV4_HEADER - ICMP_HEADER,
	ICMP6_QUOTE = 1280 - IPV6_HEADER - ICMP_HEADER,
	ANSWER_TTL = 64,
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value);
}

/*
 * A payload that begins with a message of ours tells whose it is. The CRC is the receiver's
 * business.
 */
static void read_message(const uint8_t *payload, size_t length, struct frame_info *info)
{
	if (length < MESSAGE_HEADER_BYTES || get32(payload) != MESSAGE_MAGIC ||
		payload[16] != MESSAGE_VERSION || payload[17] < MESSAGE_DATA ||
		payload[17] > MESSAGE_REPLY)
		return;
	info->has_message = true;
	info->message_flow = get32(payload + 12);
	info->message_kind = payload[17];
	info->message_seq = get64(payload + 24);
}

static void read_payload(const uint8_t *bytes, size_t offset, size_t end, struct frame_info *info)
{
	info->has_payload = true;
	info->payload_offset = (uint32_t)offset;
	info->payload_length = (uint32_t)(end - offset);
	read_message(bytes + offset, end - offset, info);
}

static void set_drop(struct frame_info *info, enum frame_drop drop, bool member)
{
	if (member)
		info->drops = (uint16_t)(info->drops | 1u << drop);
}

static void read_tcp(const uint8_t *bytes, size_t at, size_t end, struct frame_info *info)
{
	const uint8_t *tcp = bytes + at;
	size_t header;
	uint8_t flags;

	if (end - at < TCP_HEADER)
		return;
	header = (size_t)(tcp[12] >> 4) * 4;
	if (header < TCP_HEADER || header > end - at)
		return;
	info->has_tcp = true;
	info->tcp_seq = get32(tcp + 4);
	info->tcp_ack = get32(tcp + 8);
	info->tcp_flags = flags = tcp[13];
	read_payload(bytes, at + header, end, info);

	flags &= FRAME_FLAG_SYN | FRAME_FLAG_ACK | FRAME_FLAG_FIN | FRAME_FLAG_RST;
	set_drop(info, FRAME_DROP_SYN, (flags & FRAME_FLAG_SYN) && !(flags & FRAME_FLAG_ACK));
	set_drop(info, FRAME_DROP_SYNACK, (flags & FRAME_FLAG_SYN) && (flags & FRAME_FLAG_ACK));
	set_drop(info, FRAME_DROP_ACK, flags == FRAME_FLAG_ACK && info->payload_length == 0);
	set_drop(info, FRAME_DROP_DATA, info->payload_length > 0);
	set_drop(info, FRAME_DROP_FIN, flags & FRAME_FLAG_FIN);
	set_drop(info, FRAME_DROP_RST, flags & FRAME_FLAG_RST);
}

/*
 * IPv6 has no ARP: neighbour and router discovery (RFC 4861) are its place, multicast reports (RFC
 * 3810) no one's.
 */
static uint8_t class_of_icmp6(uint8_t type)
{
	if (type >= 133 && type <= 137)
		return FRAME_ARP;
	if ((type >= 130 && type <= 132) || type == 143)
		return FRAME_OTHER;
	return FRAME_ICMP;
}

/* What is behind the IP header(s) of a packet or of a first fragment: from `at` up to `end`. */
static void read_body(const uint8_t *bytes, size_t at, size_t end, struct frame_info *info)
{
	if (info->protocol == PROTOCOL_TCP) {
		info->class = FRAME_TCP;
		set_drop(info, FRAME_DROP_TCP, true);
	} else if (info->protocol == PROTOCOL_UDP) {
		info->class = FRAME_UDP;
		set_drop(info, FRAME_DROP_UDP, true);
	} else if (info->protocol == PROTOCOL_ICMP && info->ip_version == 4) {
		info->class = FRAME_ICMP;
	} else if (info->protocol == PROTOCOL_ICMP6 && info->ip_version == 6) {
		info->class = end > at ? class_of_icmp6(bytes[at]) : FRAME_ICMP;
	} else if (info->protocol == PROTOCOL_RAW && info->ip_version == 4) {
		info->class = FRAME_RAW;
		set_drop(info, FRAME_DROP_RAW, true);
		read_payload(bytes, at, end, info);
	}
	set_drop(info, FRAME_DROP_ICMP, info->class == FRAME_ICMP);

	if ((info->class == FRAME_TCP || info->class == FRAME_UDP) && end - at >= 4) {
		info->has_ports = true;
		info->sport = get16(bytes + at);
		info->dport = get16(bytes + at + 2);
	}
	if (info->class == FRAME_TCP)
		read_tcp(bytes, at, end, info);
	if (info->class == FRAME_UDP && end - at >= UDP_HEADER)
		read_payload(bytes, at + UDP_HEADER, end, info);
}

static void set_body(struct frame_info *info, size_t at, size_t end)
{
	info->body_offset = (uint32_t)at;
	info->body_length = (uint32_t)(end - at);
}

static void read_ipv4(const uint8_t *bytes, size_t length, struct frame_info *info)
{
	const uint8_t *ip = bytes + ETHERNET_HEADER;
	size_t header, total, at, end;
	uint16_t fragment;

	if (length < ETHERNET_HEADER + IPV4_HEADER || ip[0] >> 4 != 4)
		return;
	header = (size_t)(ip[0] & 15) * 4;
	total = get16(ip + 2);
	if (header < IPV4_HEADER || total < header || header > length - ETHERNET_HEADER)
		return;
	/*
	 * A cable pads a short frame, and a capture or a liar cuts a long one: both the header and
	 * the frame bound the body.
	 */
	at = ETHERNET_HEADER + header;
	end = total < length - ETHERNET_HEADER ? ETHERNET_HEADER + total : length;
	fragment = get16(ip + 6);
	info->ip_version = 4;
	info->has_protocol = true;
	info->protocol = ip[9];
	info->has_ip_id = true;
	info->ip_id = get16(ip + 4);
	info->frag_offset = (fragment & 0x1fffu) * 8;
	set_body(info, at, end);
	if (info->frag_offset > 0)
		info->class = FRAME_FRAG;
	else
		read_body(bytes, at, end, info);
}

static bool is_extension(uint8_t next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTHENTICATION || next == NEXT_DESTINATION || next == NEXT_MOBILITY ||
	       next == NEXT_HIP || next == NEXT_SHIM6;
}

static void read_ipv6(const uint8_t *bytes, size_t length, struct frame_info *info)
{
	const uint8_t *ip = bytes + ETHERNET_HEADER;
	size_t total, at, end;
	uint8_t next;

	if (length < ETHERNET_HEADER + IPV6_HEADER || ip[0] >> 4 != 6)
		return;
	total = IPV6_HEADER + (size_t)get16(ip + 4);
	at = ETHERNET_HEADER + IPV6_HEADER;
	end = total < length - ETHERNET_HEADER ? ETHERNET_HEADER + total : length;
	next = ip[6];
	info->ip_version = 6;
	set_body(info, at, end);

	/* There may be any number of them: each has 8 bytes at least, and the frame an end. */
	while (is_extension(next)) {
		const uint8_t *header = bytes + at;
		size_t size;

		if (end - at < 8)
			return;
		if (next == NEXT_FRAGMENT)
			size = 8;
		else if (next == NEXT_AUTHENTICATION)
			size = ((size_t)header[1] + 2) * 4;
		else
			size = ((size_t)header[1] + 1) * 8;
		if (size > end - at)
			return;
		if (next == NEXT_FRAGMENT) {
			info->has_ip_id = true;
			info->ip_id = get32(header + 4);
			info->frag_offset = get16(header + 2) & 0xfff8u;
		}
		next = header[0];
		at += size;
		set_body(info, at, end);
		/*
		 * Behind a fragment header that is not the first, `next` tells what is there only
		 * once it is put together.
		 */
		if (info->frag_offset > 0) {
			info->class = FRAME_FRAG;
			break;
		}
	}
	info->has_protocol = true;
	info->protocol = next;
	if (info->class != FRAME_FRAG)
		read_body(bytes, at, end, info);
}

void frame_parse(const uint8_t *bytes, size_t length, struct frame_info *info)
{
	uint16_t type;

	memset(info, 0, sizeof(*info));
	info->class = FRAME_OTHER;
	if (length < ETHERNET_HEADER)
		return;
	type = get16(bytes + 12);
	if (type == ETHERTYPE_4)
		read_ipv4(bytes, length, info);
	else if (type == ETHERTYPE_6)
		read_ipv6(bytes, length, info);
	else if (type == ETHERTYPE_ARP)
		info->class = FRAME_ARP;
}

const char *frame_class_name(enum frame_class class)
{
	static const char *const names[FRAME_CLASSES] = {
		"tcp", "udp", "icmp", "raw", "frag", "arp", "other"};

	return names[class];
}

const char *frame_drop_name(enum frame_drop drop)
{
	static const char *const names[FRAME_DROPS] = {
		"syn", "synack", "ack", "data", "fin", "rst", "tcp", "udp", "icmp", "raw"};

	return names[drop];
}

const char *frame_flags_text(uint8_t flags, char text[FRAME_FLAGS_TEXT])
{
	static const struct {
		uint8_t flag;
		char letter;
	} letters[] = {{FRAME_FLAG_SYN, 'S'}, {FRAME_FLAG_FIN, 'F'}, {FRAME_FLAG_RST, 'R'},
		{FRAME_FLAG_PSH, 'P'}, {FRAME_FLAG_ACK, 'A'}, {FRAME_FLAG_URG, 'U'},
		{FRAME_FLAG_ECE, 'E'}, {FRAME_FLAG_CWR, 'C'}};
	size_t n = 0;

	for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++)
		if (flags & letters[i].flag)
			text[n++] = letters[i].letter;
	text[n] = '\0';
	return text;
}

/* Is this the address of one host, that could have sent a packet or have it come back? */
static bool is_one_host(const uint8_t *address, uint8_t ip_version)
{
	if (ip_version == 4)
		return address[0] != 0 && address[0] != 127 && address[0] < 224;
	for (int i = 0; i < 15; i++)
		if (address[i] != 0)
			return address[0] != 0xff;
	return false; /* :: and ::1 */
}

/* The Ethernet and IP headers of an answer: there and back change places. Returns their length. */
static size_t answer_headers(
	const uint8_t *bytes, uint8_t ip_version, uint8_t protocol, size_t body, uint8_t *answer)
{
	const uint8_t *from = bytes + ETHERNET_HEADER;
	uint8_t *ip = answer + ETHERNET_HEADER;

	memcpy(answer, bytes + 6, 6);
	memcpy(answer + 6, bytes, 6);
	memcpy(answer + 12, bytes + 12, 2);
	if (ip_version == 4) {
		memset(ip, 0, IPV4_HEADER);
		ip[0] = 0x45;
		put16(ip + 2, (uint32_t)(IPV4_HEADER + body));
		put16(ip + 6, 0x4000); /* never fragmented, so it needs no id (RFC 6864) */
		ip[8] = ANSWER_TTL;
		ip[9] = protocol;
		memcpy(ip + 12, from + 16, 4);
		memcpy(ip + 16, from + 12, 4);
		put16(ip + 10, checksum_finish(checksum_add(0, ip, IPV4_HEADER)));
		return ETHERNET_HEADER + IPV4_HEADER;
	}
	memset(ip, 0, IPV6_HEADER);
	ip[0] = 0x60;
	put16(ip + 4, (uint32_t)body);
	ip[6] = protocol;
	ip[7] = ANSWER_TTL;
	memcpy(ip + 8, from + 24, 16);
	memcpy(ip + 24, from + 8, 16);
	return ETHERNET_HEADER + IPV6_HEADER;
}

/* The checksum of a body with the pseudo-header before it (RFC 9293 3.1, RFC 8200 8.1). */
static uint16_t body_checksum(const uint8_t *answer, uint8_t ip_version, uint8_t protocol,
	const uint8_t *body, size_t length)
{
	const uint8_t *ip = answer + ETHERNET_HEADER;
	uint8_t tail[8] = {0};
	uint32_t sum;

	put32(tail, (uint32_t)length);
	tail[7] = protocol;
	sum = ip_version == 4 ? checksum_add(0, ip + 12, 8) : checksum_add(0, ip + 8, 32);
	sum = checksum_add(sum, tail, sizeof(tail));
	return checksum_finish(checksum_add(sum, body, length));
}

/* RFC 9293 3.10.7.1: what a closed port says to a segment. */
static size_t answer_tcp(const uint8_t *bytes, const struct frame_info *info, uint8_t *answer)
{
	size_t headers = answer_headers(bytes, info->ip_version, PROTOCOL_TCP, TCP_HEADER, answer);
	uint8_t *tcp = answer + headers;

	memset(tcp, 0, TCP_HEADER);
	put16(tcp, info->dport);
	put16(tcp + 2, info->sport);
	tcp[12] = TCP_HEADER / 4 << 4;
	if (info->tcp_flags & FRAME_FLAG_ACK) {
		put32(tcp + 4, info->tcp_ack);
		tcp[13] = FRAME_FLAG_RST;
	} else {
		/* SYN and FIN take a sequence number each. */
		put32(tcp + 8, info->tcp_seq + info->payload_length +
				       !!(info->tcp_flags & FRAME_FLAG_SYN) +
				       !!(info->tcp_flags & FRAME_FLAG_FIN));
		tcp[13] = FRAME_FLAG_RST | FRAME_FLAG_ACK;
	}
	put16(tcp + 16, body_checksum(answer, info->ip_version, PROTOCOL_TCP, tcp, TCP_HEADER));
	return headers + TCP_HEADER;
}

static size_t answer_icmp(const uint8_t *bytes, const struct frame_info *info, uint8_t *answer)
{
	bool four = info->ip_version == 4;
	uint8_t protocol = four ? PROTOCOL_ICMP : PROTOCOL_ICMP6;
	size_t most = four ? ICMP4_QUOTE : ICMP6_QUOTE;
	size_t quote = info->body_offset + info->body_length - ETHERNET_HEADER;
	size_t headers;
	uint8_t *icmp;

	if (quote > most)
		quote = most;
	headers = answer_headers(bytes, info->ip_version, protocol, ICMP_HEADER + quote, answer);
	icmp = answer + headers;
	memset(icmp, 0, ICMP_HEADER);
	icmp[0] = four ? 3 : 1;
	icmp[1] = !four ? 4 : info->class == FRAME_RAW ? 2 : 3;
	memcpy(icmp + ICMP_HEADER, bytes + ETHERNET_HEADER, quote);
	if (four)
		put16(icmp + 2, checksum_finish(checksum_add(0, icmp, ICMP_HEADER + quote)));
	else
		put16(icmp + 2, body_checksum(answer, 6, protocol, icmp, ICMP_HEADER + quote));
	return headers + ICMP_HEADER + quote;
}

/* Is this ICMP an error (or a redirect), which is never answered by one? */
static bool is_icmp_error(const uint8_t *bytes, const struct frame_info *info)
{
	uint8_t type;

	if (info->body_length == 0)
		return true;
	type = bytes[info->body_offset];
	if (info->ip_version == 6)
		return type < 128 || type == 137;
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

size_t frame_answer(
	const uint8_t *bytes, size_t length, const struct frame_info *info, uint8_t *answer)
{
	const uint8_t *ip = bytes + ETHERNET_HEADER;
	size_t from = info->ip_version == 4 ? 12 : 8, size = info->ip_version == 4 ? 4 : 16;

	if (length < ETHERNET_HEADER || info->ip_version == 0 || (bytes[0] & 1) || (bytes[6] & 1))
		return 0;
	if (!is_one_host(ip + from, info->ip_version) ||
		!is_one_host(ip + from + size, info->ip_version))
		return 0;
	switch (info->class) {
	case FRAME_TCP:
		if (!info->has_tcp || (info->tcp_flags & FRAME_FLAG_RST))
			return 0;
		return answer_tcp(bytes, info, answer);
	case FRAME_ICMP:
		return is_icmp_error(bytes, info) ? 0 : answer_icmp(bytes, info, answer);
	case FRAME_UDP:
	case FRAME_RAW:
		return answer_icmp(bytes, info, answer);
	default:
		return 0;
	}
}
