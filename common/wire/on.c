/*
 * Runs a command on a host of a wire: `on server CMD` from a shell that the wire started, `on --pid
 * PID CMD` from outside, with the PID of the host's holder that the wire told when it was ready.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/options.h"
#include "common/wire/host.h"

enum { EXIT_USAGE = 2, EXIT_CANNOT_EXECUTE = 126, EXIT_NOT_FOUND = 127 };

static const char usage[] =
	"usage: on client|server COMMAND [ARGUMENT...]    in a shell that wire started\n"
	"       on --pid PID COMMAND [ARGUMENT...]        from outside; wire tells the PID\n"
	"Runs COMMAND on a host of a wire, and exits as it does (128 + the signal that ended "
	"it).\n";

static void run(char **command)
{
	execvp(command[0], command);
	int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
	warn("cannot run %s", command[0]);
	_exit(status);
}

/*
 * Inside a wire PID 1 holds `server`, and PID 2 `client`; /proc tells whether they are what they
 * should be.
 */
static pid_t holder_of(const char *name)
{
	enum host_id host = strcmp(name, host_name(HOST_CLIENT)) == 0 ? HOST_CLIENT : HOST_SERVER;
	pid_t pid = host == HOST_CLIENT ? 2 : 1;
	char path[32];
	char comm[32] = "";
	char wanted[32];

	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	snprintf(wanted, sizeof wanted, "wire-%s\n", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, comm, sizeof comm - 1);
		close(fd);
		if (n > 0 && strcmp(comm, wanted) == 0)
			return pid;
	}
	errx(EXIT_FAILURE, "not inside a wire: start one with `wire -- bash`, or give --pid PID");
}

static pid_t parse_pid(const char *text)
{
	char *end;
	errno = 0;
	long pid = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || pid < 1 || pid > 4194304)
		errx(EXIT_USAGE, "--pid %s: must be a process id, 1 to 4194304", text);
	return (pid_t)pid;
}

/*
 * In the child: dies with `on`, whose pidfd was open before the fork, so that an end before prctl()
 * is seen as well.
 */
static void child(char **command, int on_pidfd, const sigset_t *mask)
{
	struct pollfd parent = {.fd = on_pidfd, .events = POLLIN};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
		warn("cannot be tied to its parent");
		_exit(EXIT_FAILURE);
	}
	if (on_pidfd >= 0 && poll(&parent, 1, 0) > 0)
		_exit(EXIT_FAILURE);
	sigprocmask(SIG_SETMASK, mask, NULL);
	run(command);
}

/* Passes signals on, and waits. A signal from the terminal reached the child by itself. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
	for (;;) {
		siginfo_t info;
		int number = sigwaitinfo(signals, &info);

		if (number < 0)
			continue;
		if (number != SIGCHLD) {
			if (info.si_code != SI_KERNEL)
				kill(pid, number);
			continue;
		}
		int status;
		if (waitpid(pid, &status, WNOHANG) != pid)
			continue;
		return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

int main(int argc, char **argv)
{
	static const int passed[] = {
		SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCHLD};
	const char *what = "";
	bool other_pids;
	pid_t holder;
	char **command;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("on (socklab) " SOCKLAB_VERSION);
		return EXIT_SUCCESS;
	}
	if (argc >= 4 && strcmp(argv[1], "--pid") == 0) {
		holder = parse_pid(argv[2]);
		command = argv + 3;
	} else if (argc >= 3 &&
		   (strcmp(argv[1], "client") == 0 || strcmp(argv[1], "server") == 0)) {
		holder = holder_of(argv[1]);
		command = argv + 2;
	} else {
		errx(EXIT_USAGE, "must be `on client|server COMMAND` or `on --pid PID COMMAND`");
	}

	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (host_enter(holder, &other_pids, &what) < 0) {
		warn("process %d: cannot %s", holder, what);
		_exit(EXIT_FAILURE);
	}
	if (!other_pids) {
		close(self);
		run(command);
	}

	sigset_t signals;
	sigset_t before;
	sigemptyset(&signals);
	for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
		sigaddset(&signals, passed[i]);
	sigprocmask(SIG_BLOCK, &signals, &before);
	/* Ignored by whoever started us, it would never come. */
	signal(SIGCHLD, SIG_DFL);
	pid_t pid = fork();
	if (pid < 0) {
		warn("cannot fork");
		_exit(EXIT_FAILURE);
	}
	if (pid == 0)
		child(command, self, &before);
	/*
	 * Without the handlers of exit(): a sanitizer has one that forks, and it would fork into
	 * the host.
	 */
	_exit(wait_for(pid, &signals));
}
