#include "tcp/kernel.h"

#include <err.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#define US_NS 1000

void tcp_kernel(int fd, struct facts *f)
{
	/* An older kernel fills in less: what it does not know stays 0, and is left out below. */
	struct tcp_info info = {0};
	socklen_t len = sizeof(info), name_len = sizeof(f->fact[0].text);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		err(1, "TCP_INFO");
	f->group = "tcp_info";
	facts_add(f, "retransmits", info.tcpi_total_retrans);
	facts_add(f, "rtt_ns", (int64_t)info.tcpi_rtt * US_NS);
	facts_add(f, "rttvar_ns", (int64_t)info.tcpi_rttvar * US_NS);
	facts_add(f, "rto_ns", (int64_t)info.tcpi_rto * US_NS);
	facts_add(f, "cwnd_segments", info.tcpi_snd_cwnd);
	facts_add(f, "ssthresh_segments", info.tcpi_snd_ssthresh);
	facts_add(f, "mss_bytes", info.tcpi_snd_mss);
	facts_add(f, "reordering_segments", info.tcpi_reordering);
	facts_add(f, "segments_out", info.tcpi_segs_out);
	facts_add(f, "segments_in", info.tcpi_segs_in);
	if (len >= offsetof(struct tcp_info, tcpi_dsack_dups) + sizeof(info.tcpi_dsack_dups)) {
		facts_add(f, "bytes_sent", (int64_t)info.tcpi_bytes_sent);
		facts_add(f, "bytes_retransmitted", (int64_t)info.tcpi_bytes_retrans);
		/* These two count the SYN and the FIN as a byte each (RFC 9293 section 3.4). */
		facts_add(f, "bytes_acked", (int64_t)info.tcpi_bytes_acked);
		facts_add(f, "bytes_received", (int64_t)info.tcpi_bytes_received);
		/*
		 * The receiver says that it had this segment already: sent again in vain (RFC
		 * 2883).
		 */
		facts_add(f, "dsack_duplicates", info.tcpi_dsack_dups);
	}
	if (len >= offsetof(struct tcp_info, tcpi_rcv_ooopack) + sizeof(info.tcpi_rcv_ooopack))
		facts_add(f, "out_of_order_segments_in", info.tcpi_rcv_ooopack);
	facts_add(f, "congestion_control", 0);
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, f->fact[f->n - 1].text, &name_len))
		err(1, "TCP_CONGESTION");
}
