/*
 * What is in a frame: one Ethernet frame in, plain facts out. It takes any bytes, reads none past
 * the length it is given, and keeps no state. It also writes the answer that a closed port would
 * send, for a firewall that rejects. It never sees a device, a clock or a fate.
 */
#ifndef COMMON_WIRE_FRAME_H
#define COMMON_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The classes that fates are drawn in: each frame is in one. The numbers are part of the key that
 * fates are made from (fate.h): a change of order changes every fate.
 */
enum frame_class {
	FRAME_TCP,
	FRAME_UDP,
	FRAME_ICMP,  /* ICMP and ICMPv6, but for IPv6's neighbour discovery and multicast reports */
	FRAME_RAW,   /* IPv4 protocol 253, RFC 3692 */
	FRAME_FRAG,  /* a fragment behind the first: it does not say whose it is */
	FRAME_ARP,   /* ARP and what IPv6 has in its place, neighbour discovery (RFC 4861) */
	FRAME_OTHER, /* all else, and all that cannot be read */
	FRAME_CLASSES
};

/* The classes that `drop` counts in: a frame may be in several, or in none. */
enum frame_drop {
	FRAME_DROP_SYN,	   /* SYN without ACK */
	FRAME_DROP_SYNACK, /* SYN with ACK */
	FRAME_DROP_ACK,	   /* a pure ACK: no data, no SYN, FIN or RST */
	FRAME_DROP_DATA,   /* TCP with payload */
	FRAME_DROP_FIN,
	FRAME_DROP_RST,
	FRAME_DROP_TCP, /* these four: the whole fate class */
	FRAME_DROP_UDP,
	FRAME_DROP_ICMP,
	FRAME_DROP_RAW,
	FRAME_DROPS
};

enum {
	FRAME_FLAG_FIN = 0x01,
	FRAME_FLAG_SYN = 0x02,
	FRAME_FLAG_RST = 0x04,
	FRAME_FLAG_PSH = 0x08,
	FRAME_FLAG_ACK = 0x10,
	FRAME_FLAG_URG = 0x20,
	FRAME_FLAG_ECE = 0x40,
	FRAME_FLAG_CWR = 0x80,
};

/*
 * The longest frame that frame_answer() makes: IPv6's smallest MTU behind an Ethernet header (RFC
 * 4443 2.4 (c)).
 */
enum { FRAME_ANSWER_BYTES = 14 + 1280 };

/* Numbers are in host byte order; each has a meaning only with the has_ that its comment names. */
struct frame_info {
	uint64_t message_seq;	 /* has_message: one of our messages begins the payload */
	uint32_t message_flow;	 /* has_message: all 32 bits */
	uint32_t tcp_seq;	 /* has_tcp */
	uint32_t tcp_ack;	 /* has_tcp; as it stands, with or without the ACK flag */
	uint32_t ip_id;		 /* has_ip_id: IPv4's 16 bits, or an IPv6 fragment's 32 */
	uint32_t frag_offset;	 /* has_ip_id: in bytes; 0 in the first or only fragment */
	uint32_t body_offset;	 /* where what is behind the IP header(s) begins in the frame, */
	uint32_t body_length;	 /* and how much there is; 0 in what is not IP */
	uint32_t payload_offset; /* has_payload: what TCP, UDP or raw carry, */
	uint32_t payload_length; /* of this fragment */
	uint16_t sport;		 /* has_ports */
	uint16_t dport;		 /* has_ports */
	uint16_t drops;		 /* a set: 1u << enum frame_drop */
	uint8_t class;		 /* enum frame_class */
	uint8_t ip_version;	 /* 4, 6, or 0 */
	uint8_t protocol;	 /* has_protocol: behind the IP header(s), also of a fragment */
	uint8_t tcp_flags;	 /* has_tcp: FRAME_FLAG_* */
	uint8_t message_kind;	 /* has_message: 1 data, 2 request, 3 reply */
	bool has_protocol;
	bool has_ip_id;
	bool has_ports;
	bool has_tcp; /* the whole TCP header is there */
	bool has_payload;
	bool has_message;
};

/*
 * Fills info with what `length` bytes, an Ethernet frame or anything else, have to say. Never
 * fails.
 */
void frame_parse(const uint8_t *bytes, size_t length, struct frame_info *info);

/* "tcp", "udp", "icmp", "raw", "frag", "arp", "other" */
const char *frame_class_name(enum frame_class class);

/* "syn", "synack", "ack", "data", "fin", "rst", "tcp", "udp", "icmp", "raw" */
const char *frame_drop_name(enum frame_drop drop);

/*
 * Writes TCP flags as letters, in the order SFRPAUEC: "S", "SA", "A", "PA", "FA", "RA", or "".
 * Returns text.
 */
enum { FRAME_FLAGS_TEXT = 9 };
const char *frame_flags_text(uint8_t flags, char text[FRAME_FLAGS_TEXT]);

/*
 * Writes the frame that its destination would send back if nobody listened there: to TCP a RST (RFC
 * 9293 3.10.7.1); to the rest an ICMP unreachable, port for what has ports and for ICMP, protocol
 * for raw (RFC 792; ICMPv6 port: RFC 4443 3.1). `info` is what frame_parse() made of the same
 * bytes; `answer` has room for FRAME_ANSWER_BYTES. Returns the answer's length, or 0 where none may
 * be sent: to a RST, an ICMP error, a fragment behind the first, to or from an address that is not
 * one host's (RFC 1122 3.2.2, RFC 4443 2.4 (e)), or to what cannot be read.
 */
size_t frame_answer(
	const uint8_t *bytes, size_t length, const struct frame_info *info, uint8_t *answer);

#endif
