/*
 * wire: two hosts and the cable between them. One thread moves the frames (cable.h), obeys the
 * orders on stdin (orders.h) or minds the command that runs on the client, and sleeps when nothing
 * is due.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/options.h"
#include "common/wire/cable.h"
#include "common/wire/fate.h"
#include "common/wire/host.h"
#include "common/wire/orders.h"

enum {
	EXIT_USAGE = 2,
	EXIT_CANNOT_RUN = 77,
	EXIT_CANNOT_EXECUTE = 126,
	EXIT_NOT_FOUND = 127,
	/* Rounds under load before it looks at orders and signals. */
	ROUNDS = 16,
	NICE = -10,
};

/* How long a command has, after a signal that ends the wire, to end by itself. */
static const int64_t grace_ns = CLOCK_NS_PER_SECOND;

static const char usage[] =
	"usage: wire [OPTION...] [--] [COMMAND [ARGUMENT...]]\n"
	"Makes two hosts, client (10.0.0.1, fd00::1) and server (10.0.0.2, fd00::2), and is the\n"
	"cable between them. Runs COMMAND on client and exits as it does; in it, `on server CMD`\n"
	"runs CMD on the other host. Without a command it takes orders on stdin, one a line.\n"
	"\n"
	"  --link SPEC     what the link does, both ways: words as in tc-netem, e.g.\n"
	"                  'delay 20ms 5ms loss 5%', 'rate 1mbit limit 20', 'drop data:3'\n"
	"  --up SPEC       client to server only; replaces --link's for this direction\n"
	"  --down SPEC     server to client only\n"
	"  --seed N        what the fates are drawn from, 0 to 18446744073709551615 (1)\n"
	"  --log FILE      one CSV row for each packet\n"
	"  --pcap FILE     a capture of both ends (pcapng)\n"
	"  --arp           the hosts ask for each other's hardware addresses\n"
	"  --dry-run N     print the first N fates of each class, and make no network\n"
	"  --check         say whether this machine can run it, and what helps if not\n"
	"  --help          this text\n"
	"  --version       the version\n"
	"\n"
	"SPEC is any of: delay TIME [JITTER [distribution uniform|normal]], loss P%,\n"
	"  loss gemodel P [R [1-H [1-K]]], duplicate P%, corrupt P%, reorder P% [gap N], rate "
	"RATE,\n"
	"  limit PACKETS, drop CLASS:N[,N-M...], block|reject PROTO[:PORT], allow PROTO:PORT\n"
	"Unlike netem: copies use no rate and take no place in limit; reject answers at once, at\n"
	"the entrance of the link; there are no correlations.\n"
	"Orders: run [SEED], link SPEC, up SPEC, down SPEC, counters, drain, quit. drain is\n"
	"answered when nothing is on its way; under traffic that does not end, when what was sent\n"
	"before it is through, and 99 rounds of answers to it.\n"
	"Exit: as the command; 1 failed, 2 usage, 77 cannot run here.\n";

struct settings {
	struct fate_spec spec[FATE_DIRECTIONS];
	uint64_t seed;
	uint64_t dry_run;
	const char *log_path;
	const char *pcap_path;
	bool arp;
	bool check;
	bool dry;
	char **command; /* NULL: orders */
};

/* What ends the wire, and what it listens to besides the frames. */
struct control {
	struct cable *cable;
	struct orders orders;
	int signals;
	int parent;    /* pidfd; -1 where there is none to see */
	int orders_fd; /* 0, or -1: no orders */
	pid_t command;
	int64_t kill_ns; /* when the command's grace is over; INT64_MAX */
	bool ended;
	int status;
	bool foreground; /* we had the terminal when the command began */
	/* As they were for us, and will be for the command. */
	sigset_t mask;
	struct sigaction child_action;
	struct sigaction pipe_action;
};

/* The command. */

/* `on` lies beside this program, so its folder comes first. */
static void path_prepend(void)
{
	char self[4096];
	const char *path = getenv("PATH");
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n <= 0)
		return;
	self[n] = '\0';
	char *slash = strrchr(self, '/');
	if (slash == NULL)
		return;
	*slash = '\0';
	if (path == NULL)
		path = "/usr/local/bin:/usr/bin:/bin";
	size_t bytes = strlen(self) + strlen(path) + 2;
	char *joined = malloc(bytes);
	if (joined == NULL)
		return;
	snprintf(joined, bytes, "%s:%s", self, path);
	setenv("PATH", joined, 1);
	free(joined);
}

/* In the command's process: all that was changed for the wire is as it was, but for the place. */
static void command_run(struct control *control, char **command)
{
	bool other_pids;
	const char *what = "";

	if (host_enter(control->cable->hosts.pid[HOST_CLIENT],
		    control->cable->hosts.pidfd[HOST_CLIENT], &other_pids, &what) < 0) {
		warn("cannot %s", what);
		_exit(EXIT_FAILURE);
	}
	path_prepend();
	sigaction(SIGPIPE, &control->pipe_action, NULL);
	sigaction(SIGCHLD, &control->child_action, NULL);
	sigprocmask(SIG_SETMASK, &control->mask, NULL);
	execvp(command[0], command);
	int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
	warn("cannot run %s", command[0]);
	_exit(status);
}

/*
 * The command stays in our process group: what the terminal sends, Ctrl-Z or Ctrl-C, reaches it and
 * us alike, in a pipeline and in a script as well, and the shell that started us stops and
 * continues all together. A shell makes itself a group of its own.
 */
static int command_start(struct control *control, char **command)
{
	control->foreground = tcgetpgrp(STDIN_FILENO) == getpgrp();
	fflush(NULL);
	control->command = fork();
	if (control->command < 0)
		return -1;
	if (control->command == 0)
		command_run(control, command);
	return 0;
}

/*
 * A shell that was killed leaves the terminal to a group that is gone, where nobody can read it. It
 * is taken back from such a group only: any other is someone's, who put us in the background.
 */
static void terminal_restore(const struct control *control, pid_t command)
{
	pid_t group = tcgetpgrp(STDIN_FILENO);

	if (!control->foreground || group < 0 || group == getpgrp())
		return;
	if (group != command && (group == 0 || kill(-group, 0) == 0 || errno != ESRCH))
		return;
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(STDIN_FILENO, getpgrp());
	signal(SIGTTOU, SIG_DFL);
}

/*
 * Only the command and the holders matter: whoever became this program by exec() may have had
 * children before.
 */
static void children_look(struct control *control)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == control->command) {
			control->status =
				WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			control->command = 0;
			control->ended = true;
			terminal_restore(control, pid);
		}
		for (int i = 0; i < HOSTS && !control->ended; i++) {
			if (pid != control->cable->hosts.pid[i])
				continue;
			warnx("%s is gone: its process was ended", host_name((enum host_id)i));
			control->status = EXIT_FAILURE;
			control->ended = true;
		}
	}
}

/*
 * A signal to the wire goes to its command, which then has a moment to end by itself; a second one
 * ends all at once.
 */
static void signal_end(struct control *control, int number)
{
	if (control->command > 0 && control->kill_ns == INT64_MAX) {
		kill(control->command, number);
		kill(control->command, SIGCONT);
		control->kill_ns = clock_now_ns() + grace_ns;
		control->status = 128 + number;
		return;
	}
	control->status = 128 + number;
	control->ended = true;
}

/*
 * Ctrl-C and Ctrl-\ are the command's, as with system(3): it has them from the terminal already,
 * and may have a use for them.
 */
static void signals_read(struct control *control)
{
	struct signalfd_siginfo info;

	while (read(control->signals, &info, sizeof info) == (ssize_t)sizeof info) {
		bool key = (info.ssi_signo == SIGINT || info.ssi_signo == SIGQUIT) &&
			   info.ssi_code == SI_KERNEL;
		if (info.ssi_signo == SIGCHLD)
			children_look(control);
		else if (!key || control->command == 0)
			signal_end(control, (int)info.ssi_signo);
	}
}

/* The loop. */

/* While nobody reads the answers, the end of the parent and signals still end the wire. */
static bool wait_writable(void *context)
{
	struct control *control = context;

	while (!control->ended) {
		struct pollfd fds[] = {
			{.fd = STDOUT_FILENO, .events = POLLOUT},
			{.fd = control->parent, .events = POLLIN},
			{.fd = control->signals, .events = POLLIN},
		};
		if (poll(fds, sizeof fds / sizeof fds[0], -1) <= 0)
			continue;
		if (fds[1].revents != 0)
			control->ended = true;
		if (fds[2].revents != 0)
			signals_read(control);
		if (fds[0].revents != 0 && !control->ended)
			return true;
	}
	return false;
}

enum { WATCH_CLIENT, WATCH_SERVER, WATCH_SIGNALS, WATCH_PARENT, WATCH_ORDERS, WATCHES };

/* Sleeps until something is there or due; `look` only asks. */
static void watch(struct control *control, bool look)
{
	struct cable *cable = control->cable;
	struct pollfd fds[WATCHES] = {
		[WATCH_CLIENT] = {.fd = cable->hosts.tap[HOST_CLIENT], .events = POLLIN},
		[WATCH_SERVER] = {.fd = cable->hosts.tap[HOST_SERVER], .events = POLLIN},
		[WATCH_SIGNALS] = {.fd = control->signals, .events = POLLIN},
		[WATCH_PARENT] = {.fd = control->parent, .events = POLLIN},
		/* With no room for more, only its end is seen. */
		[WATCH_ORDERS] = {.fd = control->orders_fd,
			.events = orders_full(&control->orders) ? 0 : POLLIN},
	};
	struct timespec timeout = {0};
	struct timespec *until = &timeout;

	/*
	 * A negative descriptor is not watched; an unplugged TAP would report its error for ever.
	 */
	if (cable->direction[FATE_UP].unplugged)
		fds[WATCH_CLIENT].fd = -1;
	if (cable->direction[FATE_DOWN].unplugged)
		fds[WATCH_SERVER].fd = -1;
	if (!look) {
		int64_t due = cable_next_due(cable);
		if (control->kill_ns < due)
			due = control->kill_ns;
		if (due == INT64_MAX) {
			until = NULL;
		} else {
			int64_t left = due - clock_now_ns();
			if (left > 0) {
				timeout.tv_sec = left / CLOCK_NS_PER_SECOND;
				timeout.tv_nsec = left % CLOCK_NS_PER_SECOND;
			}
		}
	}
	if (ppoll(fds, WATCHES, until, NULL) <= 0)
		return;
	if (fds[WATCH_SIGNALS].revents != 0)
		signals_read(control);
	if (fds[WATCH_PARENT].revents != 0)
		control->ended = true;
	if (fds[WATCH_ORDERS].revents != 0 && !control->ended)
		orders_read(&control->orders);
}

static void carry(struct control *control)
{
	struct cable *cable = control->cable;
	unsigned busy = 0;

	while (!control->ended && !control->orders.over) {
		int moved = cable_deliver(cable);
		moved += cable_take(cable, &cable->direction[FATE_UP]);
		moved += cable_take(cable, &cable->direction[FATE_DOWN]);
		if (control->orders.draining && orders_drained(&control->orders, moved == 0))
			continue;
		if (control->kill_ns <= clock_now_ns())
			break;
		if (moved == 0)
			busy = 0;
		if (moved == 0 || ++busy % ROUNDS == 0)
			watch(control, moved != 0);
	}
}

/* Start and end. */

static void parse_spec(const char *option, const char *text, struct fate_spec *spec)
{
	char error[FATE_ERROR_BYTES];

	if (fate_parse(text, spec, error) < 0)
		errx(EXIT_USAGE, "%s: %s", option, error);
}

/* Which of two would count is not to be guessed; a word in a SPEC is once only, too. */
static void set_once(const char *option, const char **text)
{
	if (*text != NULL)
		errx(EXIT_USAGE, "%s %s: must not be given twice", option, optarg);
	*text = optarg;
}

/* Above all letters, so that optopt tells an option by its name from one by its letter. */
enum {
	OPTION_LINK = 256,
	OPTION_UP,
	OPTION_DOWN,
	OPTION_SEED,
	OPTION_LOG,
	OPTION_PCAP,
	OPTION_ARP,
	OPTION_DRY_RUN,
	OPTION_CHECK,
	OPTION_VERSION
};

static void parse_options(struct settings *settings, int argc, char **argv)
{
	static const struct option options[] = {
		{"link", required_argument, NULL, OPTION_LINK},
		{"up", required_argument, NULL, OPTION_UP},
		{"down", required_argument, NULL, OPTION_DOWN},
		{"seed", required_argument, NULL, OPTION_SEED},
		{"log", required_argument, NULL, OPTION_LOG},
		{"pcap", required_argument, NULL, OPTION_PCAP},
		{"arp", no_argument, NULL, OPTION_ARP},
		{"dry-run", required_argument, NULL, OPTION_DRY_RUN},
		{"check", no_argument, NULL, OPTION_CHECK},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, OPTION_VERSION},
		{NULL, 0, NULL, 0},
	};
	const char *link = NULL;
	const char *up = NULL;
	const char *down = NULL;
	int letter;

	settings->seed = 1;
	opterr = 0;
	/*
	 * "+": what is behind the command's name is the command's. ":": say which of the two
	 * mistakes it was.
	 */
	while ((letter = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		switch (letter) {
		case OPTION_LINK:
			set_once("--link", &link);
			break;
		case OPTION_UP:
			set_once("--up", &up);
			break;
		case OPTION_DOWN:
			set_once("--down", &down);
			break;
		case OPTION_SEED:
			if (!orders_number(optarg, &settings->seed))
				errx(EXIT_USAGE,
					"--seed %s: must be a number, 0 to 18446744073709551615",
					optarg);
			break;
		case OPTION_LOG:
			settings->log_path = optarg;
			break;
		case OPTION_PCAP:
			settings->pcap_path = optarg;
			break;
		case OPTION_ARP:
			settings->arp = true;
			break;
		case OPTION_DRY_RUN:
			if (!orders_number(optarg, &settings->dry_run) || settings->dry_run == 0)
				errx(EXIT_USAGE,
					"--dry-run %s: must be a number of packets, at least 1",
					optarg);
			settings->dry = true;
			break;
		case OPTION_CHECK:
			settings->check = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		case OPTION_VERSION:
			puts("wire (socklab) " SOCKLAB_VERSION);
			exit(EXIT_SUCCESS);
		case ':':
			errx(EXIT_USAGE, "%s: needs a value (see --help)", argv[optind - 1]);
		default:
			/* A letter stands in optopt; behind it optind may still be at its word. */
			if (optopt >= OPTION_LINK)
				errx(EXIT_USAGE, "%s: takes no value (see --help)",
					argv[optind - 1]);
			if (optopt != 0)
				errx(EXIT_USAGE, "-%c: no such option (see --help)", optopt);
			errx(EXIT_USAGE, "%s: no such option (see --help)", argv[optind - 1]);
		}
	}
	if (link != NULL) {
		parse_spec("--link", link, &settings->spec[FATE_UP]);
		settings->spec[FATE_DOWN] = settings->spec[FATE_UP];
	}
	if (up != NULL)
		parse_spec("--up", up, &settings->spec[FATE_UP]);
	if (down != NULL)
		parse_spec("--down", down, &settings->spec[FATE_DOWN]);
	if (optind < argc)
		settings->command = argv + optind;
	if (settings->command != NULL && (settings->dry || settings->check))
		errx(EXIT_USAGE, "%s: takes no command", settings->dry ? "--dry-run" : "--check");
}

/* What is in it stays until it is known that the wire can run. */
static int open_output(const char *option, const char *path, struct stat *file)
{
	memset(file, 0, sizeof *file);
	if (path == NULL)
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || fstat(fd, file) < 0)
		err(EXIT_USAGE, "%s %s: must be a file that can be written", option, path);
	return fd;
}

/*
 * Returns a pidfd of the parent, or -1 where there is none to see. Exits when it went before it
 * could be watched.
 */
static int watch_parent(void)
{
	pid_t parent = getppid();
	int fd = parent > 0 ? (int)syscall(SYS_pidfd_open, parent, 0) : -1;

	if (getppid() != parent)
		exit(EXIT_FAILURE);
	return fd;
}

static void hold_signals(struct control *control)
{
	static const int held[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
	const struct sigaction normal = {.sa_handler = SIG_DFL};
	const struct sigaction ignored = {.sa_handler = SIG_IGN};
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	/* What is ignored (nohup) stays so: held, it would come all the same. */
	for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
		struct sigaction action;
		if (sigaction(held[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&signals, held[i]);
	}
	/* Whoever started us may have it ignored, and then no child would ever be seen to end. */
	sigaction(SIGCHLD, &normal, &control->child_action);
	sigaction(SIGPIPE, &ignored, &control->pipe_action);
	if (sigprocmask(SIG_BLOCK, &signals, &control->mask) < 0)
		err(EXIT_FAILURE, "cannot hold signals");
	control->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (control->signals < 0)
		err(EXIT_FAILURE, "cannot listen to signals");
}

static void outputs_open(struct cable *cable, const struct settings *settings)
{
	struct stat log_file;
	struct stat capture_file;
	int log = open_output("--log", settings->log_path, &log_file);
	int capture = open_output("--pcap", settings->pcap_path, &capture_file);
	struct timespec wall;
	char comment[64];

	clock_gettime(CLOCK_REALTIME, &wall);
	int64_t offset = wall.tv_sec * CLOCK_NS_PER_SECOND + wall.tv_nsec - clock_now_ns();

	if (S_ISREG(log_file.st_mode) && log_file.st_ino == capture_file.st_ino &&
		log_file.st_dev == capture_file.st_dev)
		errx(EXIT_USAGE, "--pcap %s: must be another file than --log's",
			settings->pcap_path);
	snprintf(comment, sizeof comment, "seed %" PRIu64, settings->seed);
	log_open(&cable->log, log);
	pcapng_open(&cable->pcapng, capture, offset, comment);
}

/* EINVAL: a pipe or a device has nothing to cut off. */
static void outputs_truncate(const struct cable *cable)
{
	if (cable->log.fd >= 0 && ftruncate(cable->log.fd, 0) < 0 && errno != EINVAL)
		warn("--log: cannot cut off what was in it");
	if (cable->pcapng.fd >= 0 && ftruncate(cable->pcapng.fd, 0) < 0 && errno != EINVAL)
		warn("--pcap: cannot cut off what was in it");
}

/* What is not complete is said, and is no success. */
static int outputs_close(struct cable *cable, const struct settings *settings)
{
	int result = 0;

	if (log_close(&cable->log) < 0) {
		warn("--log %s: not complete", settings->log_path);
		result = -1;
	}
	if (pcapng_close(&cable->pcapng) < 0) {
		warn("--pcap %s: not complete", settings->pcap_path);
		result = -1;
	}
	return result;
}

/*
 * Wakes to the microsecond, and before others where that is allowed. Not for those who were started
 * before.
 */
static void be_punctual(void)
{
	prctl(PR_SET_TIMERSLACK, 1UL);
	if (getpriority(PRIO_PROCESS, 0) > NICE)
		setpriority(PRIO_PROCESS, 0, NICE);
}

/*
 * Ends without the handlers of exit(). A sanitizer has one that forks, and what we fork is born
 * into the hosts' PID namespace, where nothing can live any more.
 */
static _Noreturn void finish(int status)
{
	fflush(NULL);
	_exit(status);
}

/* Where a standard descriptor is closed, a file of ours would be opened in its place. */
static void take_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Too little of something, for the moment or for this user: no other rights would help. */
static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == EAGAIN || error == ENOMEM;
}

int main(int argc, char **argv)
{
	static struct settings settings;
	static struct cable cable;
	static struct control control = {.cable = &cable,
		.orders = {.cable = &cable, .wait_writable = wait_writable, .context = &control},
		.parent = -1,
		.orders_fd = -1,
		.kill_ns = INT64_MAX};
	struct host_failure failure;

	take_standard_descriptors();
	control.parent = watch_parent();
	if (getauxval(AT_SECURE) != 0)
		errx(EXIT_FAILURE, "must not have more rights than its user (set-user-ID, file "
				   "capabilities)");
	parse_options(&settings, argc, argv);
	if (settings.check)
		return host_check(stdout) ? EXIT_SUCCESS : EXIT_CANNOT_RUN;
	if (settings.dry) {
		if (fate_dry_run(stdout, settings.spec, settings.seed, settings.dry_run) < 0 ||
			fflush(stdout) != 0)
			err(EXIT_FAILURE, "--dry-run: cannot write");
		return EXIT_SUCCESS;
	}
	outputs_open(&cable, &settings);
	hold_signals(&control);
	if (host_start(&cable.hosts, settings.arp, true, &failure) < 0) {
		char reason[HOST_TEXT_BYTES];
		char remedy[HOST_TEXT_BYTES];
		if (is_shortage(failure.error)) {
			warnx("cannot %s: %s", failure.what, strerror(failure.error));
			finish(EXIT_FAILURE);
		}
		host_explain(&failure, reason, remedy);
		warnx("cannot run here: %s", reason);
		warnx("this helps: %s", remedy);
		finish(EXIT_CANNOT_RUN);
	}
	outputs_truncate(&cable);
	cable_init(&cable, settings.spec, settings.seed);
	if (settings.command == NULL) {
		control.orders_fd = STDIN_FILENO;
		orders_announce(&control.orders);
	} else if (command_start(&control, settings.command) < 0) {
		warn("cannot start a process");
		control.status = EXIT_FAILURE;
		control.ended = true;
	}
	be_punctual();
	carry(&control);
	if (control.orders.failed)
		control.status = EXIT_FAILURE;

	host_stop(&cable.hosts);
	if (outputs_close(&cable, &settings) < 0 && control.status == 0)
		control.status = EXIT_FAILURE;
	finish(control.status);
}
