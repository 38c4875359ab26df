#include "common/wire/host.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEVICE	 "eth0"
#define TUN_PATH "/dev/net/tun"

static const struct address {
	const char *name;
	const char *process;
	uint8_t mac[6];
	uint8_t v4[4];
	uint8_t v6[16];
} addresses[HOSTS] = {
	[HOST_CLIENT] = {"client", "wire-client", {2, 0, 0, 0, 0, 1}, {10, 0, 0, 1},
		{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
	[HOST_SERVER] = {"server", "wire-server", {2, 0, 0, 0, 0, 2}, {10, 0, 0, 2},
		{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}},
};

static const char hosts_file[] = "127.0.0.1 localhost\n"
				 "::1 localhost ip6-localhost ip6-loopback\n"
				 "10.0.0.1 client\n"
				 "10.0.0.2 server\n"
				 "fd00::1 client\n"
				 "fd00::2 server\n";

const char *host_name(enum host_id host)
{
	return addresses[host].name;
}

/* Fills failure, and returns -1: `return failed(...)`. */
static int failed(struct host_failure *failure, enum host_need need, const char *what)
{
	failure->need = need;
	failure->error = errno;
	snprintf(failure->what, sizeof failure->what, "%s", what);
	return -1;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	int error = n < 0 ? errno : 0;
	close(fd);
	errno = error;
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* The first number in a file of /proc/sys, or `otherwise` where there is none. */
static long read_number(const char *path, long otherwise)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return otherwise;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	return n > 0 ? strtol(text, NULL, 10) : otherwise;
}

/* Capabilities, by the bare system calls: libc has no names for them. */

struct capabilities {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[2];
};

static int capabilities_get(struct capabilities *caps)
{
	memset(caps, 0, sizeof *caps);
	caps->header.version = _LINUX_CAPABILITY_VERSION_3;
	return (int)syscall(SYS_capget, &caps->header, caps->data);
}

static bool privileged(void)
{
	struct capabilities caps;
	const uint32_t needed = 1u << CAP_SYS_ADMIN | 1u << CAP_NET_ADMIN | 1u << CAP_SYS_CHROOT;

	return capabilities_get(&caps) == 0 && (caps.data[0].effective & needed) == needed;
}

/*
 * exec() takes all capabilities from a process that is not root, but for the ambient ones. (A
 * program with capabilities of its own on its file, as ping may have, gets those and no others.)
 */
static int keep_capabilities(void)
{
	struct capabilities caps;

	if (geteuid() == 0)
		return 0;
	if (capabilities_get(&caps) < 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		caps.data[i].effective = caps.data[i].permitted;
		caps.data[i].inheritable = caps.data[i].permitted;
	}
	if (syscall(SYS_capset, &caps.header, caps.data) < 0)
		return -1;
	for (unsigned long cap = 0; cap < 64; cap++) {
		if ((caps.data[cap / 32].permitted >> cap % 32 & 1) == 0)
			continue;
		/* EINVAL: a capability that this kernel has no name for. */
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0 && errno != EINVAL)
			return -1;
	}
	return 0;
}

static int enter_user_namespace(struct host_failure *failure)
{
	char map[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (unshare(CLONE_NEWUSER) < 0)
		return failed(failure, HOST_USERNS, "unshare a user namespace");
	if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
		return failed(failure, HOST_USERNS, "write /proc/self/setgroups");
	snprintf(map, sizeof map, "%u %u 1", uid, uid);
	if (write_file("/proc/self/uid_map", map) < 0)
		return failed(failure, HOST_USERNS, "write /proc/self/uid_map");
	snprintf(map, sizeof map, "%u %u 1", gid, gid);
	if (write_file("/proc/self/gid_map", map) < 0)
		return failed(failure, HOST_USERNS, "write /proc/self/gid_map");
	return 0;
}

/* Route messages (RFC 3549): one request with its attributes, built in place. */

struct request {
	struct nlmsghdr header;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg address;
		struct ndmsg neighbour;
		struct rtmsg route;
		struct tcmsg queue;
		char room[512];
	} body;
};

static void request_begin(struct request *request, int type, int flags, size_t body_bytes)
{
	memset(request, 0, sizeof *request);
	request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(body_bytes);
	request->header.nlmsg_type = (uint16_t)type;
	request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
}

static void request_add(struct request *request, int type, const void *data, size_t bytes)
{
	struct rtattr attribute = {
		.rta_len = (uint16_t)RTA_LENGTH(bytes), .rta_type = (uint16_t)type};
	char *at = (char *)request + NLMSG_ALIGN(request->header.nlmsg_len);

	memcpy(at, &attribute, sizeof attribute);
	memcpy(at + RTA_LENGTH(0), data, bytes);
	request->header.nlmsg_len =
		(uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute.rta_len));
}

/* Sends it and waits for the kernel's verdict. */
static int request_send(int fd, struct request *request)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char room[1024];
	} answer;

	request->header.nlmsg_flags |= NLM_F_ACK;
	if (send(fd, request, request->header.nlmsg_len, 0) < 0)
		return -1;
	ssize_t n = recv(fd, &answer, sizeof answer, 0);
	if (n < 0)
		return -1;
	if ((size_t)n < sizeof answer.header + sizeof answer.error.error ||
		answer.header.nlmsg_type != NLMSG_ERROR) {
		errno = EPROTO;
		return -1;
	}
	errno = -answer.error.error;
	return errno == 0 ? 0 : -1;
}

static int link_up(int fd, unsigned index, unsigned flags, unsigned change, const uint8_t *mac)
{
	struct request request;

	request_begin(&request, RTM_NEWLINK, 0, sizeof request.body.link);
	request.body.link.ifi_index = (int)index;
	request.body.link.ifi_flags = IFF_UP | flags;
	request.body.link.ifi_change = IFF_UP | change;
	if (mac != NULL) {
		uint32_t slots = HOST_TAP_FRAMES;
		request_add(&request, IFLA_ADDRESS, mac, 6);
		request_add(&request, IFLA_TXQLEN, &slots, sizeof slots);
	}
	return request_send(fd, &request);
}

/*
 * Takes the queue before the device away (`noqueue`): frames go straight into the TAP's own, so
 * that there is one place where one can be dropped, and the one counter that the waterfall reads.
 * Which queue it would have been depends on the machine.
 */
static void queue_none(int fd, unsigned index)
{
	struct request request;

	request_begin(
		&request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.queue);
	request.body.queue.tcm_ifindex = (int)index;
	request.body.queue.tcm_parent = TC_H_ROOT;
	request_add(&request, TCA_KIND, "noqueue", sizeof "noqueue");
	request_send(fd, &request);
}

static int address_add(
	int fd, unsigned index, int family, const void *address, size_t bytes, int prefix)
{
	struct request request;

	request_begin(
		&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.address);
	request.body.address.ifa_family = (uint8_t)family;
	request.body.address.ifa_prefixlen = (uint8_t)prefix;
	request.body.address.ifa_index = index;
	request_add(&request, IFA_LOCAL, address, bytes);
	request_add(&request, IFA_ADDRESS, address, bytes);
	if (family == AF_INET) {
		static const uint8_t broadcast[4] = {10, 0, 0, 255};
		request_add(&request, IFA_BROADCAST, broadcast, sizeof broadcast);
	} else {
		/*
		 * A deprecated address works as any other, but a resolver sorts what is reached
		 * from it last (RFC 6724, rule 3). So a name stands for the IPv4 address first, on
		 * every machine: raw speaks IPv4 only.
		 */
		struct ifa_cacheinfo life = {.ifa_prefered = 0, .ifa_valid = UINT32_MAX};
		uint32_t flags = IFA_F_NODAD;
		request_add(&request, IFA_CACHEINFO, &life, sizeof life);
		request_add(&request, IFA_FLAGS, &flags, sizeof flags);
	}
	return request_send(fd, &request);
}

static int neighbour_add(
	int fd, unsigned index, int family, const void *address, size_t bytes, const uint8_t *mac)
{
	struct request request;

	request_begin(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
		sizeof request.body.neighbour);
	request.body.neighbour.ndm_family = (uint8_t)family;
	request.body.neighbour.ndm_ifindex = (int)index;
	request.body.neighbour.ndm_state = NUD_PERMANENT;
	request_add(&request, NDA_DST, address, bytes);
	request_add(&request, NDA_LLADDR, mac, 6);
	return request_send(fd, &request);
}

/*
 * 224.0.0.0/4 leaves by the cable: without a route to it, sending to a group is "Network is
 * unreachable".
 */
static int multicast_route_add(int fd, unsigned index)
{
	static const uint8_t groups[4] = {224, 0, 0, 0};
	struct request request;

	request_begin(
		&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.route);
	request.body.route.rtm_family = AF_INET;
	request.body.route.rtm_dst_len = 4;
	request.body.route.rtm_table = RT_TABLE_MAIN;
	request.body.route.rtm_protocol = RTPROT_STATIC;
	request.body.route.rtm_scope = RT_SCOPE_LINK;
	request.body.route.rtm_type = RTN_UNICAST;
	request_add(&request, RTA_DST, groups, sizeof groups);
	request_add(&request, RTA_OIF, &index, sizeof index);
	return request_send(fd, &request);
}

/*
 * What is the same on every machine. Where a setting does not exist, the kernel has not what it
 * would switch off; the congestion control is compiled in everywhere.
 */
static int settings_pin(struct host_failure *failure)
{
	static const struct setting {
		const char *path;
		const char *value;
		bool required;
	} settings[] = {
		{"/proc/sys/net/ipv4/tcp_congestion_control", "reno", true},
		{"/proc/sys/net/ipv4/tcp_no_metrics_save", "1", true},
		{"/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0", false},
		{"/proc/sys/net/ipv4/icmp_ratelimit", "0", true},
		/*
		 * No type of ICMP message is counted against the limit for all destinations
		 * together.
		 */
		{"/proc/sys/net/ipv4/icmp_ratemask", "0", false},
		{"/proc/sys/net/ipv6/icmp/ratelimit", "0", false},
		{"/proc/sys/net/ipv6/icmp/ratemask", "\n", false},
		/* No link-local address, duplicate address detection or router solicitation. */
		{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "0", false},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "0", false},
		{"/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1", false},
		{"/proc/sys/net/ipv6/conf/default/accept_dad", "0", false},
		{"/proc/sys/net/ipv6/conf/default/dad_transmits", "0", false},
		{"/proc/sys/net/ipv6/conf/default/accept_ra", "0", false},
		{"/proc/sys/net/ipv6/conf/default/autoconf", "0", false},
		{"/proc/sys/net/ipv6/conf/default/router_solicitations", "0", false},
	};
	char group[64];

	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
		if (write_file(settings[i].path, settings[i].value) < 0 && settings[i].required)
			return failed(failure, HOST_NETWORK, settings[i].path);
	}
	/* ping without privilege: a range must not name groups that our user namespace has not. */
	snprintf(group, sizeof group, "%u %u", getegid(), getegid());
	if (write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647") < 0)
		write_file("/proc/sys/net/ipv4/ping_group_range", group);
	return 0;
}

/*
 * Puts our names over /etc/hosts. The file lives in a memory file system that has no other name, so
 * it ends with the namespace; it is built where /proc is about to be mounted, a directory that is
 * there on every machine.
 */
static int names_mount(struct host_failure *failure)
{
	if (mount("wire", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k") < 0)
		return failed(failure, HOST_NAMESPACES, "mount a tmpfs");
	int fd = open("/proc/hosts", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return failed(failure, HOST_NAMESPACES, "create a hosts file");
	ssize_t n = write(fd, hosts_file, sizeof hosts_file - 1);
	if (n == (ssize_t)(sizeof hosts_file - 1) && fchmod(fd, 0644) < 0)
		n = -1;
	close(fd);
	if (n != (ssize_t)(sizeof hosts_file - 1))
		return failed(failure, HOST_NAMESPACES, "write a hosts file");
	if (mount("/proc/hosts", "/etc/hosts", NULL, MS_BIND, NULL) < 0 && errno != ENOENT)
		return failed(failure, HOST_NAMESPACES, "mount over /etc/hosts");
	if (umount2("/proc", MNT_DETACH) < 0)
		return failed(failure, HOST_NAMESPACES, "unmount a tmpfs");
	/* A name service daemon would answer from the machine's own hosts file. */
	mount("wire", "/run/nscd", "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4k");
	return 0;
}

static int tap_open(struct host_failure *failure)
{
	struct ifreq request;
	int fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return failed(failure, HOST_TUN, "open " TUN_PATH);
	memset(&request, 0, sizeof request);
	strcpy(request.ifr_name, DEVICE);
	request.ifr_flags = IFF_TAP | IFF_NO_PI;
	/*
	 * With no offload asked for, the kernel segments and sums before a frame gets here, as a
	 * cable would see it.
	 */
	if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETOFFLOAD, 0) < 0) {
		failed(failure, HOST_TAP, "make a TAP device");
		close(fd);
		return -1;
	}
	return fd;
}

static int network_start(
	int netlink, enum host_id host, bool discovery, struct host_failure *failure)
{
	const struct address *self = &addresses[host];
	const struct address *peer = &addresses[host == HOST_CLIENT ? HOST_SERVER : HOST_CLIENT];
	static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255};
	static const uint8_t broadcasts[2][4] = {{10, 0, 0, 255}, {255, 255, 255, 255}};
	unsigned index = if_nametoindex(DEVICE);
	unsigned noarp = discovery ? 0 : IFF_NOARP;
	bool ipv6 = access("/proc/sys/net/ipv6/conf/" DEVICE, F_OK) == 0;

	if (index == 0)
		return failed(failure, HOST_NETWORK, "find " DEVICE);
	/* The loopback device is number 1 in every network namespace. */
	if (link_up(netlink, 1, 0, 0, NULL) < 0)
		return failed(failure, HOST_NETWORK, "bring lo up");
	if (link_up(netlink, index, noarp, IFF_NOARP, self->mac) < 0)
		return failed(failure, HOST_NETWORK, "bring " DEVICE " up");
	queue_none(netlink, index);
	if (address_add(netlink, index, AF_INET, self->v4, sizeof self->v4, 24) < 0)
		return failed(failure, HOST_NETWORK, "add an IPv4 address");
	if (multicast_route_add(netlink, index) < 0)
		return failed(failure, HOST_NETWORK, "add a route for multicast");
	if (ipv6 && address_add(netlink, index, AF_INET6, self->v6, sizeof self->v6, 64) < 0)
		return failed(failure, HOST_NETWORK, "add an IPv6 address");
	if (discovery)
		return 0;
	if (neighbour_add(netlink, index, AF_INET, peer->v4, sizeof peer->v4, peer->mac) < 0)
		return failed(failure, HOST_NETWORK, "add an IPv4 neighbour");
	if (ipv6 &&
		neighbour_add(netlink, index, AF_INET6, peer->v6, sizeof peer->v6, peer->mac) < 0)
		return failed(failure, HOST_NETWORK, "add an IPv6 neighbour");
	/* Without ARP the kernel would address what is for all to itself. */
	for (int i = 0; i < 2; i++) {
		if (neighbour_add(netlink, index, AF_INET, broadcasts[i], 4, everybody) < 0)
			return failed(failure, HOST_NETWORK, "add a broadcast neighbour");
	}
	return 0;
}

/*
 * In the new process: makes the host around it. Returns 0 with tap and netlink set, or -1 with
 * failure filled.
 */
static int holder_build(enum host_id host, bool discovery, bool devices, int *tap, int *netlink,
	struct host_failure *failure)
{
	const struct address *self = &addresses[host];

	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS) < 0)
		return failed(
			failure, HOST_NAMESPACES, "unshare mount, network and UTS namespaces");
	if (sethostname(self->name, strlen(self->name)) < 0)
		return failed(failure, HOST_NAMESPACES, "set the host's name");
	/* What is mounted later on the machine shows here too; nothing of ours shows there. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return failed(failure, HOST_NAMESPACES, "make mounts its own");
	if (names_mount(failure) < 0)
		return -1;
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return failed(failure, HOST_PROC, "mount a fresh /proc");
	/*
	 * The outer /sys tells of the machine's network; where a fresh one is not allowed
	 * (containers), it stays.
	 */
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (!devices)
		return 0;
	if (settings_pin(failure) < 0)
		return -1;
	*tap = tap_open(failure);
	if (*tap < 0)
		return -1;
	*netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (*netlink < 0)
		return failed(failure, HOST_NETWORK, "open a route socket");
	return network_start(*netlink, host, discovery, failure);
}

static int report_send(int fd, const struct host_failure *failure, int tap, int netlink)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = (void *)failure, .iov_len = sizeof *failure};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (tap >= 0 && netlink >= 0) {
		int fds[2] = {tap, netlink};
		memset(&control, 0, sizeof control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int report_receive(int fd, struct host_failure *failure, int *tap, int *netlink)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = failure, .iov_len = sizeof *failure};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

	if (n != (ssize_t)sizeof *failure) {
		errno = n < 0 ? errno : ECHILD;
		return failed(failure, HOST_NAMESPACES, "start a host's process");
	}
	if (failure->need == HOST_NEEDS && (message.msg_flags & MSG_CTRUNC) != 0) {
		errno = EMFILE;
		return failed(failure, HOST_KERNEL, "take a host's device");
	}
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header != NULL && header->cmsg_len == CMSG_LEN(2 * sizeof(int))) {
		int fds[2];
		memcpy(fds, CMSG_DATA(header), sizeof fds);
		*tap = fds[0];
		*netlink = fds[1];
	}
	return failure->need == HOST_NEEDS ? 0 : -1;
}

/*
 * The life of a holder. It keeps nothing of the wire's but the pidfd that tells of its end: no
 * file, no terminal, no directory. That pidfd was open before the fork, so an end that came early
 * shows as well.
 */
static void holder_live(int wire_pidfd)
{
	struct pollfd wait = {.fd = 3, .events = POLLIN};
	int null = open("/dev/null", O_RDWR);

	if (dup2(wire_pidfd, 3) < 0)
		_exit(1);
	for (int fd = 0; fd < 3; fd++) {
		if (null >= 0)
			dup2(null, fd);
		else
			close(fd);
	}
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 4, ~0u, 0) < 0)
#endif
	{
		for (int fd = 4; fd < 1024; fd++)
			close(fd);
	}
	if (chdir("/") < 0)
		_exit(1);
	for (;;) {
		if (poll(&wait, 1, -1) > 0)
			_exit(0);
	}
}

/* Forks a holder; in the parent, returns its PID and `channel` is where its report will come. */
static pid_t holder_start(
	enum host_id host, bool discovery, bool devices, int wire_pidfd, int *channel)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	pid_t pid = fork();
	if (pid != 0) {
		close(pair[1]);
		*channel = pair[0];
		if (pid < 0)
			close(pair[0]);
		return pid;
	}

	struct host_failure failure = {.need = HOST_NEEDS};
	int tap = -1;
	int netlink = -1;
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	/* Ignored, not handled: the kernel itself then reaps the orphans that PID 1 inherits. */
	signal(SIGCHLD, SIG_IGN);
	setsid();
	prctl(PR_SET_NAME, addresses[host].process);
	int result = holder_build(host, discovery, devices, &tap, &netlink, &failure);
	if (report_send(pair[1], &failure, tap, netlink) < 0 || result < 0)
		_exit(1);
	holder_live(wire_pidfd);
	_exit(0);
}

int host_start(struct hosts *hosts, bool discovery, bool devices, struct host_failure *failure)
{
	/* PID 1 first: the namespace is its. */
	static const enum host_id order[HOSTS] = {HOST_SERVER, HOST_CLIENT};
	int channel[HOSTS] = {-1, -1};
	int result = 0;

	for (int i = 0; i < HOSTS; i++) {
		hosts->tap[i] = hosts->netlink[i] = hosts->pidfd[i] = -1;
		hosts->pid[i] = 0;
	}
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		return failed(failure, HOST_KERNEL, "open a pidfd");
	if (!privileged() && enter_user_namespace(failure) < 0) {
		close(self);
		return -1;
	}
	if (unshare(CLONE_NEWPID) < 0) {
		close(self);
		return failed(failure, HOST_NAMESPACES, "unshare a PID namespace");
	}
	for (int i = 0; i < HOSTS && result == 0; i++) {
		enum host_id host = order[i];
		pid_t pid = holder_start(host, discovery, devices, self, &channel[host]);
		if (pid < 0) {
			result = failed(failure, HOST_NAMESPACES, "start a host's process");
			break;
		}
		hosts->pid[host] = pid;
		hosts->pidfd[host] = (int)syscall(SYS_pidfd_open, pid, 0);
		if (hosts->pidfd[host] < 0)
			result = failed(failure, HOST_KERNEL, "open a pidfd");
	}
	for (int i = 0; i < HOSTS && result == 0; i++) {
		enum host_id host = order[i];
		result = report_receive(
			channel[host], failure, &hosts->tap[host], &hosts->netlink[host]);
	}
	for (int i = 0; i < HOSTS; i++) {
		if (channel[i] >= 0)
			close(channel[i]);
	}
	close(self);
	if (result < 0) {
		struct host_failure kept = *failure;
		host_stop(hosts);
		*failure = kept;
	}
	return result;
}

static void close_open(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void host_stop(struct hosts *hosts)
{
	if (hosts->pid[HOST_SERVER] > 0)
		kill(hosts->pid[HOST_SERVER], SIGKILL);
	for (int i = 0; i < HOSTS; i++) {
		close_open(&hosts->tap[i]);
		close_open(&hosts->netlink[i]);
	}
	/*
	 * PID 1 is a zombie only when all others of the namespace are reaped. Those that are our
	 * children are reaped here; one whose parent is elsewhere (`on --pid`) and stopped may keep
	 * us waiting, so there is an end to it.
	 */
	for (int tries = 0; tries < 200; tries++) {
		pid_t pid;
		do {
			pid = waitpid(-1, NULL, WNOHANG);
		} while (pid > 0);
		if (pid < 0)
			break;
		struct pollfd wait = {.fd = hosts->pidfd[HOST_SERVER], .events = POLLIN};
		if (wait.fd >= 0) {
			poll(&wait, 1, 10);
		} else {
			struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
			nanosleep(&pause, NULL);
		}
	}
	for (int i = 0; i < HOSTS; i++)
		close_open(&hosts->pidfd[i]);
}

int host_tx_dropped(const struct hosts *hosts, enum host_id host, uint64_t *dropped)
{
	static union {
		struct nlmsghdr header;
		char bytes[32768];
	} answer;
	struct request request;
	int fd = hosts->netlink[host];

	request_begin(&request, RTM_GETLINK, 0, sizeof request.body.link);
	request_add(&request, IFLA_IFNAME, DEVICE, sizeof DEVICE);
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
		return -1;
	ssize_t n = recv(fd, &answer, sizeof answer, 0);
	if (n < 0)
		return -1;
	if (!NLMSG_OK(&answer.header, (size_t)n)) {
		errno = EPROTO;
		return -1;
	}
	if (answer.header.nlmsg_type == NLMSG_ERROR) {
		struct nlmsgerr error;
		memcpy(&error, NLMSG_DATA(&answer.header), sizeof error);
		errno = -error.error;
		return -1;
	}
	size_t left = answer.header.nlmsg_len - NLMSG_LENGTH(sizeof request.body.link);
	char *at = answer.bytes + NLMSG_LENGTH(sizeof request.body.link);
	struct rtattr attribute;
	while (left >= sizeof attribute) {
		memcpy(&attribute, at, sizeof attribute);
		if (attribute.rta_len < sizeof attribute || attribute.rta_len > left)
			break;
		if (attribute.rta_type == IFLA_STATS64 &&
			attribute.rta_len >= RTA_LENGTH(sizeof(struct rtnl_link_stats64) / 2)) {
			struct rtnl_link_stats64 stats;
			size_t have = attribute.rta_len - RTA_LENGTH(0);
			memset(&stats, 0, sizeof stats);
			memcpy(&stats, at + RTA_LENGTH(0),
				have < sizeof stats ? have : sizeof stats);
			*dropped = stats.tx_dropped;
			return 0;
		}
		size_t step = RTA_ALIGN(attribute.rta_len);
		if (step >= left)
			break;
		at += step;
		left -= step;
	}
	errno = ENODATA;
	return -1;
}

static bool same_namespace(pid_t pid, const char *name)
{
	char path[64];
	struct stat own;
	struct stat its;

	snprintf(path, sizeof path, "/proc/self/ns/%s", name);
	if (stat(path, &own) < 0)
		return false;
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
	return stat(path, &its) == 0 && own.st_ino == its.st_ino && own.st_dev == its.st_dev;
}

bool host_is_here(pid_t pid)
{
	return same_namespace(pid, "net");
}

bool host_is_holder(pid_t pid, enum host_id host)
{
	char path[32];
	char comm[32] = "";

	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, comm, sizeof comm - 1);
	close(fd);
	if (n > 0 && comm[n - 1] == '\n')
		comm[n - 1] = '\0';
	return strcmp(comm, addresses[host].process) == 0;
}

int host_enter(pid_t holder, int pidfd, bool *other_pids, const char **what)
{
	static const struct space {
		const char *name;
		int type;
		const char *what;
	} spaces[] = {
		{"user", CLONE_NEWUSER, "enter its user namespace"},
		{"pid", CLONE_NEWPID, "enter its PID namespace"},
		{"uts", CLONE_NEWUTS, "enter its UTS namespace"},
		{"net", CLONE_NEWNET, "enter its network namespace"},
		{"mnt", CLONE_NEWNS, "enter its mount namespace"},
	};
	enum { SPACES = sizeof spaces / sizeof spaces[0] };
	int fd[SPACES];
	char path[64];
	int result = 0;
	int error = 0;
	char *directory = getcwd(NULL, 0);

	/* All are opened first: behind the mount namespace there is another /proc. */
	*other_pids = false;
	for (int i = 0; i < SPACES; i++) {
		fd[i] = -1;
		if (same_namespace(holder, spaces[i].name))
			continue;
		snprintf(path, sizeof path, "/proc/%d/ns/%s", holder, spaces[i].name);
		if (result == 0) {
			fd[i] = open(path, O_RDONLY | O_CLOEXEC);
			if (fd[i] < 0) {
				result = -1;
				error = errno;
				*what = "see its namespaces";
			}
		}
	}
	/* It lives: so what was opened under its PID was its own. */
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	if (result == 0 && poll(&ended, 1, 0) > 0) {
		result = -1;
		error = ESRCH;
		*what = "see its namespaces";
	}
	for (int i = 0; i < SPACES && result == 0; i++) {
		if (fd[i] < 0)
			continue;
		if (setns(fd[i], spaces[i].type) < 0) {
			result = -1;
			error = errno;
			*what = spaces[i].what;
		}
		if (spaces[i].type == CLONE_NEWPID)
			*other_pids = true;
	}
	for (int i = 0; i < SPACES; i++) {
		if (fd[i] >= 0)
			close(fd[i]);
	}
	if (result == 0 && keep_capabilities() < 0) {
		result = -1;
		error = errno;
		*what = "keep capabilities";
	}
	/*
	 * A new mount namespace means its root directory. Where the old place is out of reach, that
	 * is where we stay.
	 */
	if (result == 0 && (directory == NULL || chdir(directory) < 0)) {
		warnx("%s is out of reach on the host: the command starts in /",
			directory != NULL ? directory : "the directory");
		if (chdir("/") < 0) {
			result = -1;
			error = errno;
			*what = "change directory";
		}
	}
	free(directory);
	errno = error;
	return result;
}

/* Why, and what helps. */

static bool in_container(void)
{
	return access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0 ||
	       getenv("container") != NULL;
}

static const char container_command[] =
	"docker run --device /dev/net/tun --cap-add SYS_ADMIN --cap-add NET_ADMIN"
	" --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
	" --security-opt systempaths=unconfined IMAGE";

static const char *tun_remedy(int error, char reason[HOST_TEXT_BYTES])
{
	if (error == ENOENT || error == ENODEV || error == ENXIO) {
		snprintf(reason, HOST_TEXT_BYTES, "there is no %s", TUN_PATH);
		return in_container() ? container_command : "sudo modprobe tun";
	}
	if (error == EACCES) {
		snprintf(reason, HOST_TEXT_BYTES, "%s is closed to you (EACCES)", TUN_PATH);
		return "sudo chmod 0666 " TUN_PATH;
	}
	if (error == EPERM) {
		snprintf(reason, HOST_TEXT_BYTES, "%s is forbidden to this container (EPERM)",
			TUN_PATH);
		return container_command;
	}
	return NULL;
}

static const char *permission_remedy(
	const struct host_failure *failure, char reason[HOST_TEXT_BYTES])
{
	bool denied = failure->error == EPERM || failure->error == EACCES;

	if ((failure->error == ENOSPC || denied) &&
		read_number("/proc/sys/user/max_user_namespaces", 1) == 0) {
		snprintf(reason, HOST_TEXT_BYTES,
			"user namespaces are switched off (user.max_user_namespaces is 0)");
		return "sudo sysctl -w user.max_user_namespaces=15000";
	}
	if (failure->error == ENOSPC) {
		snprintf(reason, HOST_TEXT_BYTES, "there are too many namespaces (cannot %s)",
			failure->what);
		return failure->need == HOST_USERNS
			       ? "sudo sysctl -w user.max_user_namespaces=15000"
			       : "sudo sysctl -w user.max_net_namespaces=15000 "
				 "user.max_pid_namespaces=15000"
				 " user.max_mnt_namespaces=15000 user.max_uts_namespaces=15000";
	}
	if (failure->need == HOST_USERNS && failure->error == EINVAL) {
		snprintf(reason, HOST_TEXT_BYTES,
			"this kernel has no user namespaces; root needs none");
		return "sudo build/bin/wire";
	}
	if (!denied)
		return NULL;
	if (read_number("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0) {
		snprintf(reason, HOST_TEXT_BYTES,
			"user namespaces are for root only (kernel.unprivileged_userns_clone is "
			"0)");
		return "sudo sysctl -w kernel.unprivileged_userns_clone=1";
	}
	if (geteuid() != 0 &&
		read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) != 0) {
		snprintf(reason, HOST_TEXT_BYTES,
			"AppArmor restricts user namespaces"
			" (kernel.apparmor_restrict_unprivileged_userns is 1)");
		return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
	}
	if (failure->need == HOST_PROC) {
		snprintf(reason, HOST_TEXT_BYTES,
			"a fresh /proc is forbidden here: parts of this one are hidden (cannot %s)",
			failure->what);
		return container_command;
	}
	snprintf(reason, HOST_TEXT_BYTES, "this %s forbids it (cannot %s: %s)",
		in_container() ? "container" : "machine", failure->what, strerror(failure->error));
	return in_container() || geteuid() == 0 ? container_command : "sudo build/bin/wire";
}

void host_explain(const struct host_failure *failure, char reason[HOST_TEXT_BYTES],
	char remedy[HOST_TEXT_BYTES])
{
	const char *command = NULL;

	snprintf(reason, HOST_TEXT_BYTES, "cannot %s: %s", failure->what, strerror(failure->error));
	if (failure->need == HOST_KERNEL && failure->error == ENOSYS) {
		snprintf(reason, HOST_TEXT_BYTES, "this kernel is older than Linux 5.3");
		command = "sudo apt full-upgrade";
	} else if (failure->need == HOST_TUN) {
		command = tun_remedy(failure->error, reason);
	}
	if (command == NULL)
		command = permission_remedy(failure, reason);
	if (command == NULL)
		command = in_container() ? container_command : "sudo build/bin/wire";
	snprintf(remedy, HOST_TEXT_BYTES, "%s", command);
}

/*
 * In a process of its own: starts and ends the hosts, and reports. Returns 0, or -1 with failure
 * filled.
 */
static int check_start(bool devices, struct host_failure *failure)
{
	int pair[2];

	fflush(NULL);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return failed(failure, HOST_KERNEL, "make a socket pair");
	pid_t pid = fork();
	if (pid < 0) {
		close(pair[0]);
		close(pair[1]);
		return failed(failure, HOST_KERNEL, "fork");
	}
	if (pid == 0) {
		struct hosts hosts;
		struct host_failure found = {.need = HOST_NEEDS};
		if (host_start(&hosts, false, devices, &found) == 0)
			host_stop(&hosts);
		report_send(pair[1], &found, -1, -1);
		_exit(0);
	}
	close(pair[1]);
	int tap;
	int netlink;
	int result = report_receive(pair[0], failure, &tap, &netlink);
	close(pair[0]);
	waitpid(pid, NULL, 0);
	return result;
}

bool host_check(FILE *out)
{
	static const char *const names[HOST_NEEDS] = {
		[HOST_KERNEL] = "Linux 5.3 or newer",
		[HOST_TUN] = TUN_PATH,
		[HOST_USERNS] = "a user namespace of one's own",
		[HOST_NAMESPACES] = "PID, mount, network and UTS namespaces",
		[HOST_PROC] = "a fresh /proc",
		[HOST_TAP] = "a TAP device",
		[HOST_NETWORK] = "addresses and settings of its network",
	};
	struct host_failure tun = {.need = HOST_NEEDS};
	struct host_failure found = {.need = HOST_NEEDS};
	bool well = true;
	bool reached = true;

	int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		failed(&tun, HOST_TUN, "open " TUN_PATH);
	else
		close(fd);
	check_start(fd >= 0, &found);
	for (int need = 0; need < HOST_NEEDS; need++) {
		const struct host_failure *failure = NULL;
		if (need == HOST_TUN && tun.need != HOST_NEEDS)
			failure = &tun;
		else if ((int)found.need == need)
			failure = &found;
		if (failure != NULL) {
			char reason[HOST_TEXT_BYTES];
			char remedy[HOST_TEXT_BYTES];
			host_explain(failure, reason, remedy);
			fprintf(out, "missing  %s: %s; this helps: %s\n", names[need], reason,
				remedy);
			well = false;
			reached = reached && need == HOST_TUN;
		} else if (!reached || (need > HOST_PROC && tun.need != HOST_NEEDS)) {
			fprintf(out, "unknown  %s: not reached\n", names[need]);
		} else if (need == HOST_USERNS && privileged()) {
			fprintf(out, "ok       %s (not needed: you are privileged)\n", names[need]);
		} else {
			fprintf(out, "ok       %s\n", names[need]);
		}
	}
	return well;
}
